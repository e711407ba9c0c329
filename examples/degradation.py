"""Makes real pictures like generated ones, blurred or broken, for the models that have to read generated ones."""

import torch
import torch.nn.functional as F

MAX_SHIFT = 2
MAX_NOISE = 0.08
CELLS = 16  # along a side of a picture that is broken
SMALLEST_DIFFERENCE = 0.004


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


def break_pictures(pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Replaces cells of each picture by those of another: objects in pieces, as a generator fails.

    The other picture is the one before in the batch, or any. The cells, 5 % to 50 % of `CELLS` x `CELLS`, lie in
    patches of a size of the batch's own.

    Args:
        pixel_values: `(B, C, H, W)` in [0, 1], H and W divisible by `CELLS`.

    Returns:
        The broken pictures, and whether each `(B,)` differs visibly from both that it is made of.
    """
    count, _, height, width = pixel_values.shape
    others = pixel_values.roll(1, 0) if torch.rand(()) < 0.5 else pixel_values[torch.randperm(count)]
    patches = int(torch.randint(3, CELLS + 1, ()))
    noise = F.interpolate(torch.rand(count, 1, patches, patches), size=(CELLS, CELLS), mode="bilinear")
    shares = 0.05 + 0.45 * torch.rand(count, 1)
    heights = noise.flatten(1).sort(dim=1).values.gather(1, (shares * CELLS**2).long())
    replaced = (noise < heights.view(-1, 1, 1, 1)).to(pixel_values)
    replaced = F.interpolate(replaced, size=(height, width), mode="nearest").to(pixel_values.device)
    broken = torch.where(replaced > 0, others, pixel_values)
    differences = torch.stack([(broken - whole).abs().mean(dim=(1, 2, 3)) for whole in (pixel_values, others)])
    return broken, (differences > SMALLEST_DIFFERENCE).all(dim=0)
