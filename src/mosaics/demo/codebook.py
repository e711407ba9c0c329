"""The codebook as a picture that can be clicked, and grids of codes to paint on."""

import threading

import torch
from PIL import Image, ImageDraw

from mosaics.demo.pictures import VIOLET, decode, enlarge, to_pictures
from mosaics.pipelines import DallePipeline

FIELD = 3  # a code is shown as it paints inside a field of its like, FIELD x FIELD
FIELDS_AT_A_TIME = 256
CANVAS_SIDE = 512


def paint_swatches(pipe: DallePipeline) -> torch.Tensor:
    """What each code paints where all its neighbours are the same code: `(K, C, f, f)` in [0, 1]."""
    count, factor = pipe.dvae.config.num_embeddings, pipe.dvae.config.downsample_factor
    middle = slice(factor * (FIELD // 2), factor * (FIELD // 2 + 1))
    swatches = []
    for codes in torch.arange(count).split(FIELDS_AT_A_TIME):
        fields = decode(pipe, codes[:, None, None].expand(-1, FIELD, FIELD))
        swatches.append(fields[:, :, middle, middle])
    return torch.cat(swatches).clamp(0, 1)


class CodebookMosaic:
    """All codes side by side, the brightest first, with a line between them.

    Args:
        pipe: The pipeline. Its codebook is painted when it is first looked at, once.
        columns: Codes in a row.
    """

    def __init__(self, pipe: DallePipeline, columns: int = 32):
        self.pipe = pipe
        self.columns = columns
        self._lock = threading.Lock()
        self._picture: Image.Image | None = None
        self._order: list[int] = []

    @property
    def cell(self) -> int:
        """Pixels from one code to the next in the picture."""
        return (self.pipe.dvae.config.downsample_factor + 1) * self.scale

    @property
    def scale(self) -> int:
        """Pixels of the picture for a pixel that a code paints."""
        return max(1, 16 // (self.pipe.dvae.config.downsample_factor + 1))

    def picture(self) -> Image.Image:
        """The mosaic."""
        return self._paint()

    def brightest(self) -> int:
        """The code that paints the lightest square."""
        self._paint()
        return self._order[0]

    def code_at(self, x: float, y: float) -> int:
        """The code at a pixel of the picture.

        Raises:
            ValueError: There is none.
        """
        self._paint()
        column, row = int(x // self.cell), int(y // self.cell)
        place = row * self.columns + column
        if not (0 <= column < self.columns and 0 <= place < len(self._order)):
            raise ValueError("There is no code at this place of the mosaic.")
        return self._order[place]

    def place_of(self, code: int) -> tuple[int, int]:
        """Row and column of a code in the mosaic."""
        self._paint()
        return divmod(self._order.index(code), self.columns)

    def marked(self, code: int) -> Image.Image:
        """The mosaic with a frame around a code."""
        row, column = self.place_of(code)
        marked = self.picture().copy()
        left, top = column * self.cell, row * self.cell
        ImageDraw.Draw(marked).rectangle(
            (left - 2, top - 2, left + self.cell, top + self.cell), outline=VIOLET, width=3
        )
        return marked

    def _paint(self) -> Image.Image:
        with self._lock:
            if self._picture is not None:
                return self._picture
            swatches = paint_swatches(self.pipe)
            order = swatches.mean(dim=(1, 2, 3)).argsort(descending=True, stable=True)
            self._order = order.tolist()
            framed = torch.nn.functional.pad(swatches[order], (0, 1, 0, 1), value=1.0)
            rows = list(framed.split(self.columns))
            missing = self.columns - len(rows[-1])
            rows[-1] = torch.cat([rows[-1], torch.ones(missing, *framed.shape[1:])])
            mosaic = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
            picture = to_pictures(self.pipe, mosaic[None])[0].convert("RGB")
            size = (picture.width * self.scale, picture.height * self.scale)
            self._picture = picture.resize(size, Image.Resampling.NEAREST)
            return self._picture


def check_code(code: float | None, num_embeddings: int) -> int:
    """Returns a code as an integer.

    Raises:
        ValueError: It is no integer from 0 to `num_embeddings` - 1.
    """
    valid = isinstance(code, int | float) and not isinstance(code, bool) and 0 <= code < num_embeddings
    if not valid or code != int(code):
        raise ValueError(f"A code is an integer from 0 to {num_embeddings - 1}, got {code!r}.")
    return int(code)


def canvas_picture(pipe: DallePipeline, indices: torch.Tensor, place: tuple[int, int] | None) -> Image.Image:
    """What a grid of codes `(h, w)` paints, enlarged, with thin lines between the codes and a frame around `place`."""
    picture = enlarge(to_pictures(pipe, decode(pipe, indices[None]))[0].convert("RGB"), CANVAS_SIDE)
    height, width = indices.shape
    cell = picture.width / width
    lines = Image.new("RGBA", picture.size)
    pen = ImageDraw.Draw(lines)
    for column in range(1, width):
        pen.line((column * cell, 0, column * cell, picture.height), fill=(128, 128, 128, 60))
    for row in range(1, height):
        pen.line((0, row * cell, picture.width, row * cell), fill=(128, 128, 128, 60))
    if place is not None:
        top, left = place[0] * cell, place[1] * cell
        pen.rectangle((left, top, left + cell, top + cell), outline=(*VIOLET, 255), width=3)
    return Image.alpha_composite(picture.convert("RGBA"), lines).convert("RGB")


def place_at(x: float, y: float, side: int, grid_size: int) -> tuple[int, int]:
    """Row and column of the code at a pixel of a canvas of `side` pixels.

    Raises:
        ValueError: The pixel is outside.
    """
    row, column = int(y * grid_size // side), int(x * grid_size // side)
    if not (0 <= row < grid_size and 0 <= column < grid_size):
        raise ValueError("There is no code at this place of the picture.")
    return row, column


def code_alone(pipe: DallePipeline, code: int) -> Image.Image:
    """What a grid of nothing but one code paints."""
    grid_size = pipe.dvae.config.grid_size
    pixels = decode(pipe, torch.full((1, grid_size, grid_size), code))
    return to_pictures(pipe, pixels)[0].convert("RGB")
