"""Makes real pictures a little like generated ones, for the models that have to read generated ones."""

import torch
import torch.nn.functional as F

MAX_SHIFT = 2
MAX_NOISE = 0.08


def degrade(pixel_values: torch.Tensor) -> torch.Tensor:
    """Blurs half of the batches, and shifts and adds noise to all; each batch `(B, C, H, W)` by an amount of its own.

    The blur is that of a picture of a third of the size or more, the shift is at most `MAX_SHIFT` pixels and wraps
    around, the noise has a standard deviation of at most `MAX_NOISE`.
    """
    size = pixel_values.shape[-1]
    if torch.rand(()) < 0.5:
        smaller = int(torch.randint(size // 3, size, ()))
        pixel_values = F.interpolate(pixel_values, size=(smaller, smaller), mode="bilinear", antialias=True)
        pixel_values = F.interpolate(pixel_values, size=(size, size), mode="bilinear")
    x, y = torch.randint(-MAX_SHIFT, MAX_SHIFT + 1, (2,)).tolist()
    pixel_values = pixel_values.roll((y, x), dims=(2, 3))
    return pixel_values + MAX_NOISE * torch.rand(()) * torch.randn_like(pixel_values)
