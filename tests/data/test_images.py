import io
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mosaics.data.images import ImageError, read_image, to_pixel_values


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height=48, width=64, channels=3):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_ones(width, height):
    """A 1-bit PNG of any size, tiny as a file."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    line = b"\0" + b"\xff" * ((width + 7) // 8)
    packer, body = zlib.compressobj(9), b""
    for _ in range(height):
        body += packer.compress(line)
    body += packer.flush()
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def test_every_kind_of_source_gives_the_same_pixels(tmp_path):
    array = noise()
    picture = Image.fromarray(array)
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(picture))
    unit = torch.from_numpy(array).permute(2, 0, 1).float() / 255
    sources = [path, str(path), path.read_bytes(), bytearray(path.read_bytes()), picture, array, unit, unit[None]]
    sources += [{"bytes": path.read_bytes(), "path": "x.png"}, {"bytes": None, "path": str(path)}]
    sources += [array.astype(np.float32) / 255, array.astype(np.uint16) * 257]
    for source in sources:
        image = read_image(source)
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), array)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_file_is_refused_with_its_path(tmp_path, kind):
    whole = encoded(Image.fromarray(noise()), kind)
    for keep in (len(whole) // 2, len(whole) - 40, 20):
        path = tmp_path / f"torn-{keep}.{kind.lower()}"
        path.write_bytes(whole[:keep])
        with pytest.raises(ImageError, match=f"torn-{keep}"):
            read_image(path)
        with pytest.raises(ImageError, match="the-name"):
            read_image({"bytes": whole[:keep], "path": "the-name.jpg"})


def test_a_flipped_bit_in_a_png_an_empty_file_and_a_text_are_refused(tmp_path):
    data = bytearray(encoded(Image.fromarray(noise())))
    data[len(data) // 2] ^= 4
    for name, content, why in [
        ("flipped.png", bytes(data), "truncated or damaged"),
        ("empty.png", b"", r"is empty \(0 bytes\)"),
        ("text.jpg", b"<html>not found</html>", "no picture of a known format"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=f"{name}.*{why}"):
            read_image(tmp_path / name)


def test_a_bomb_in_a_text_chunk_is_refused_with_its_path(tmp_path):
    data = encoded(Image.fromarray(noise()))
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 5_000_000))
    (tmp_path / "text-bomb.png").write_bytes(data[:33] + text + data[33:])
    with pytest.raises(ImageError, match=r"text-bomb\.png"):
        read_image(tmp_path / "text-bomb.png")


@pytest.mark.parametrize("size", [(10_000, 8_800), (14_000, 14_000)])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, size):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of_ones(*size))
    assert path.stat().st_size < 50_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match=r"bomb\.png"):
        read_image(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes


def test_sixteen_bits_and_floats_keep_their_brightness(tmp_path):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
    expected = np.rint(ramp / 257)
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "deep.tiff")
    Image.fromarray((ramp / 65535).astype(np.float32)).save(tmp_path / "float.tiff")
    for name in ("deep.png", "deep.tiff", "float.tiff"):
        pixels = np.asarray(read_image(tmp_path / name)).astype(float)
        assert np.abs(pixels - expected[:, :, None]).max() <= 1, name


@pytest.mark.parametrize("bad", [np.nan, np.inf, 255.0, -0.5])
def test_floats_of_unknown_range_are_refused(tmp_path, bad):
    values = np.full((8, 8), 0.5, np.float32)
    values[3, 3] = bad
    Image.fromarray(values).save(tmp_path / "float.tiff")
    with pytest.raises(ImageError, match=r"float\.tiff.*unknown range"):
        read_image(tmp_path / "float.tiff")
    with pytest.raises(ImageError, match=r"outside \[0, 1\] or not finite"):
        read_image(values)


def test_transparency_is_composited_on_white_and_hidden_colours_stay_hidden(tmp_path):
    colours = np.zeros((1, 3, 4), np.uint8)
    colours[0] = [(200, 0, 0, 255), (200, 0, 0, 0), (200, 0, 0, 128)]
    golden = [(200, 0, 0), (255, 255, 255), (227, 127, 127)]
    rgba = Image.fromarray(colours)
    for kind in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        pixels = np.asarray(read_image(encoded(rgba, kind, **options)))[0]
        assert np.abs(pixels.astype(int) - golden).max() <= 1
    gray = Image.fromarray(np.array([[[0, 255], [0, 0]]], np.uint8), mode=None)
    assert np.asarray(read_image(encoded(gray)))[0].tolist() == [[0, 0, 0], [255, 255, 255]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    pixels = np.asarray(read_image(encoded(palette, transparency=1)))[0]
    assert pixels.tolist() == [[10, 20, 30], [255, 255, 255]]
    keyed = Image.fromarray(np.array([[[1, 2, 3], [9, 9, 9]]], np.uint8))
    pixels = np.asarray(read_image(encoded(keyed, transparency=(9, 9, 9))))[0]
    assert pixels.tolist() == [[1, 2, 3], [255, 255, 255]]


def test_exif_rotation_is_applied_once_and_broken_exif_is_survived():
    array = noise(48, 64)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    data = encoded(Image.fromarray(array), exif=exif)
    upright = read_image(data)
    np.testing.assert_array_equal(np.asarray(upright), np.rot90(array, -1))
    np.testing.assert_array_equal(np.asarray(read_image(upright)), np.asarray(upright))
    broken = encoded(Image.fromarray(array), exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 40)
    np.testing.assert_array_equal(np.asarray(read_image(broken)), array)


def test_cmyk_one_bit_and_animations_have_a_documented_result():
    cmyk = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    red = np.asarray(read_image(encoded(cmyk, "JPEG", quality=100)))
    assert np.abs(red.astype(int) - (255, 0, 0)).max() <= 12
    bits = Image.fromarray(np.array([[True, False]]))
    assert np.asarray(read_image(encoded(bits)))[0].tolist() == [[255] * 3, [0] * 3]
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert read_image(data).getpixel((1, 1)) == (255, 0, 0)


def test_what_is_no_picture_is_refused_by_name(tmp_path):
    with pytest.raises(ImageError, match=r"no picture file at .*missing\.png"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="is an address, not a file"):
        read_image("https://example.com/a.png")
    with pytest.raises(ImageError, match="got NoneType"):
        read_image(None)
    with pytest.raises(ImageError, match=r"shape \(3, 8, 8\)"):
        read_image(np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(ImageError, match="dtype int64"):
        read_image(np.zeros((8, 8), np.int64))
    with pytest.raises(ImageError, match="shape"):
        read_image(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ImageError, match="outside"):
        read_image(torch.full((3, 8, 8), 2.0))
    with pytest.raises(ImageError, match="above the limit of 10"):
        read_image(Image.new("RGB", (4, 4)), max_pixels=10)


def test_pixel_values_are_the_central_square_in_the_unit_range():
    array = np.zeros((32, 96, 3), np.uint8)
    array[:, 32:64] = (255, 128, 0)
    pixels = to_pixel_values(array, 16)
    assert pixels.shape == (3, 16, 16) and pixels.dtype == torch.float32 and pixels.is_contiguous()
    expected = torch.tensor([1.0, 128 / 255, 0.0])
    torch.testing.assert_close(pixels, expected[:, None, None].expand(3, 16, 16))
    square = noise(16, 16)
    exact = torch.from_numpy(square).permute(2, 0, 1).float() / 255
    torch.testing.assert_close(to_pixel_values(square, 16), exact, rtol=0, atol=0)


def test_a_picture_already_of_the_size_is_still_cropped_when_it_is_not_square():
    array = noise(16, 40)
    exact = torch.from_numpy(array[:, 12:28].copy()).permute(2, 0, 1).float() / 255
    torch.testing.assert_close(to_pixel_values(array, 16), exact, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 20_000, 3), (20_000, 1, 3)])
def test_extreme_shapes_become_squares_without_growing(shape):
    assert to_pixel_values(np.full(shape, 255, np.uint8), 8).eq(1).all()


@pytest.mark.parametrize("size", [0, -1, 2.5, True])
def test_a_bad_size_is_named(size):
    with pytest.raises(ValueError, match="image_size must be a positive integer"):
        to_pixel_values(np.zeros((4, 4), np.uint8), size)


def test_reading_a_folder_does_not_change_it(tmp_path):
    path = Path(tmp_path / "a.png")
    path.write_bytes(encoded(Image.fromarray(noise())))
    before = path.read_bytes()
    read_image(path)
    assert path.read_bytes() == before
