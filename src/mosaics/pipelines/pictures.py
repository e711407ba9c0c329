"""The pictures a user hands to an image tokenizer, with as many colour channels as it reads."""

from typing import Any

import numpy as np
import torch

from mosaics.data.images import ImageError, to_pixel_values

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow turns colour into gray


def read_squares(images: Any, image_size: int) -> torch.Tensor:
    """One picture or a list, each cut to its central square and resized: `(N, 3, image_size, image_size)` in [0, 1].

    Args:
        images: PIL, paths, arrays or float tensors; tensors `(N, 3, H, W)` and arrays `(N, H, W, 3)` count as lists.
        image_size: Side of the result in pixels.

    Raises:
        ImageError: A picture is unreadable, or there is none.
    """
    if isinstance(images, torch.Tensor | np.ndarray) and images.ndim == 4:
        images = list(images)
    images = images if isinstance(images, list | tuple) else [images]
    if not images:
        raise ImageError("images must be a picture or a list of them, got an empty list.")
    squares = []
    for number, image in enumerate(images):
        try:
            squares.append(to_pixel_values(image, image_size))
        except ImageError as error:
            raise ImageError(f"images[{number}]: {error}") from error
    return torch.stack(squares)


def to_channels(pixels: torch.Tensor, num_channels: int) -> torch.Tensor:
    """Colour pictures `(N, 3, H, W)` as the tokenizer reads them: as they are, or gray.

    Raises:
        ImageError: The tokenizer reads neither colour nor gray.
    """
    if num_channels == 3:
        return pixels
    if num_channels != 1:
        raise ImageError(f"the vqvae reads {num_channels} channels; pictures have 3, or 1 as gray.")
    weights = torch.tensor(LUMINANCE).view(3, 1, 1)
    return (pixels * weights).sum(dim=1, keepdim=True).clamp(0, 1)
