"""Between codes, pixels and the pictures on the page."""

from typing import cast

import torch
from PIL import Image, ImageDraw

from mosaics.pipelines import DallePipeline

VIOLET = (124, 58, 237)
BLANK = (226, 226, 232)


def to_pictures(pipe: DallePipeline, pixels: torch.Tensor) -> list[Image.Image]:
    """Pixels `(B, C, H, W)` in [0, 1] as PIL images."""
    pictures = pipe.image_processor.postprocess(pixels.cpu(), "pil", do_denormalize=[False] * len(pixels))
    return cast("list[Image.Image]", pictures)


@torch.no_grad()
def decode(pipe: DallePipeline, indices: torch.Tensor) -> torch.Tensor:
    """The pixels `(B, C, H, W)` of grids of codes `(B, h, w)`, on the CPU."""
    return pipe.codes_to_pixels(indices.to(pipe._execution_device)).cpu()


@torch.no_grad()
def encode(pipe: DallePipeline, pixels: torch.Tensor) -> torch.Tensor:
    """The codes `(B, h, w)` of pictures `(B, C, H, W)` in [0, 1], on the CPU."""
    return pipe.dvae.encode(pixels.to(pipe._execution_device)).cpu()


def enlarge(picture: Image.Image, smallest_side: int) -> Image.Image:
    """Enlarged by the least whole number that makes it at least `smallest_side` wide; pixels stay sharp squares."""
    factor = -(-smallest_side // picture.width)
    if factor <= 1:
        return picture
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def only_given(picture: Image.Image, rows: int, grid_size: int) -> Image.Image:
    """A picture of which the first `rows` of `grid_size` rows are kept, and the rest is blank."""
    kept = picture.height * rows // grid_size
    canvas = Image.new("RGB", picture.size, BLANK)
    canvas.paste(picture.crop((0, 0, picture.width, kept)))
    return canvas


def mark_given(picture: Image.Image, rows: int, grid_size: int) -> Image.Image:
    """The picture, enlarged, with a frame around its first `rows` of `grid_size` rows: what was given."""
    marked = enlarge(picture, 256).copy()
    boundary = marked.height * rows // grid_size
    frame = (0, 0, marked.width - 1, boundary - 1)
    ImageDraw.Draw(marked).rectangle(frame, outline=VIOLET, width=max(3, marked.width // 64))
    return marked
