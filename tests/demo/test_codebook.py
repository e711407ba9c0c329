import numpy as np
import pytest
import torch
from PIL import Image

from mosaics.demo.codebook import CANVAS_SIDE, CodebookMosaic, canvas_picture, check_code, place_at
from mosaics.demo.pictures import mark_given, only_given
from mosaics.demo.reconstruction import reconstruct


def test_a_click_on_a_cell_of_the_mosaic_gives_the_code_that_is_painted_there(pipe):
    mosaic = CodebookMosaic(pipe)
    picture = np.asarray(mosaic.picture()).astype(float) / 255
    factor, scale = pipe.dvae.config.downsample_factor, mosaic.scale
    for code in (0, 7, 1023, pipe.dvae.config.num_embeddings - 1):
        row, column = mosaic.place_of(code)
        left, top = column * mosaic.cell, row * mosaic.cell
        for x, y in ((left, top), (left + mosaic.cell - 1, top + mosaic.cell - 1)):
            assert mosaic.code_at(x, y) == code
        with torch.no_grad():
            field = pipe.dvae.decode(torch.full((1, 3, 3), code))[0, :, factor : 2 * factor, factor : 2 * factor]
        cell = picture[top : top + factor * scale : scale, left : left + factor * scale : scale]
        np.testing.assert_allclose(cell, field.permute(1, 2, 0).numpy(), atol=0.5 / 255 + 1e-4)


def test_the_mosaic_shows_every_code_once_and_the_brightest_first(pipe_without_clip):
    mosaic = CodebookMosaic(pipe_without_clip, columns=7)
    count = pipe_without_clip.dvae.config.num_embeddings
    codes = [mosaic.code_at((n % 7 + 0.5) * mosaic.cell, (n // 7 + 0.5) * mosaic.cell) for n in range(count)]
    assert sorted(codes) == list(range(count))
    assert codes[0] == mosaic.brightest()
    for x, y in ((-1, 0), (7 * mosaic.cell, 0), (6.5 * mosaic.cell, 4.5 * mosaic.cell), (0, 1e9)):
        with pytest.raises(ValueError, match="no code at this place"):
            mosaic.code_at(x, y)


def test_a_click_into_a_canvas_gives_row_and_column():
    assert place_at(0, 0, 512, 16) == (0, 0)
    assert place_at(33, 511, 512, 16) == (15, 1)
    with pytest.raises(ValueError, match="no code at this place"):
        place_at(512, 0, 512, 16)


def test_a_canvas_is_the_decoded_picture_with_lines(pipe):
    indices = torch.randint(2048, (16, 16), generator=torch.Generator().manual_seed(0))
    canvas = canvas_picture(pipe, indices, None)
    assert canvas.size == (CANVAS_SIDE, CANVAS_SIDE)
    with torch.no_grad():
        pixels = pipe.dvae.decode(indices[None])[0].permute(1, 2, 0).numpy()
    middles = np.asarray(canvas)[4::8, 4::8] / 255  # the middle of each enlarged pixel, off the lines
    np.testing.assert_allclose(middles, pixels, atol=0.5 / 255 + 1e-4)


@pytest.mark.parametrize("code", [-1, 2048, 1.5, float("nan"), None, "7", True])
def test_what_is_no_code_is_refused(code):
    with pytest.raises(ValueError, match="A code is an integer from 0 to 2047"):
        check_code(code, 2048)


def test_the_given_rows_are_kept_and_framed():
    picture = Image.new("RGB", (64, 64), "red")
    given = np.asarray(only_given(picture, 4, 16))
    assert (given[:16] == (255, 0, 0)).all()
    assert (given[16:] != (255, 0, 0)).any(axis=-1).all()
    marked = np.asarray(mark_given(picture, 4, 16))
    assert (marked[63] == marked[0]).all()
    assert (marked[64:] == (255, 0, 0)).all()


def test_the_numbers_of_a_reconstruction_are_those_of_the_model(pipe):
    pixels = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    result = reconstruct(pipe, pixels)
    with torch.no_grad():
        output = pipe.dvae(pixels[None])
    error = (output.reconstruction - pixels).square().mean()
    assert result.psnr == pytest.approx(float(-10 * error.log10()), abs=1e-3)
    assert result.num_codes == len(output.indices.unique())
    assert (result.num_positions, result.num_bytes, result.raw_bytes) == (256, 352, 12288)
    assert result.original.size == result.decoded.size == (512, 512)
