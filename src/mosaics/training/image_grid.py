"""Several images as one picture."""

import math

import torch
from PIL import Image

__all__ = ["image_grid"]


def image_grid(images: torch.Tensor, columns: int | None = None, padding: int = 2) -> Image.Image:
    """Lays images out in rows on a white ground.

    Args:
        images: (N, C, H, W) with values in [0, 1]; C is 1 or 3. Values outside are clipped.
        columns: Images in a row; about the square root of N by default.
        padding: Pixels around each image.

    Raises:
        ValueError: If the shape is another one.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"image_grid expects images of shape (N, 1 or 3, H, W), got {tuple(images.shape)}.")
    images = images.detach().float().cpu().expand(-1, 3, -1, -1)
    count, _, height, width = images.shape
    columns = min(count, columns or math.ceil(math.sqrt(count)))
    rows = math.ceil(count / columns)
    canvas = torch.ones(3, rows * (height + padding) + padding, columns * (width + padding) + padding)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        top, left = padding + row * (height + padding), padding + column * (width + padding)
        canvas[:, top : top + height, left : left + width] = image.nan_to_num(0.0).clamp(0, 1)
    return Image.fromarray((canvas * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy())
