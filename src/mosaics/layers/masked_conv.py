r"""The masked convolutions of the gated PixelCNN, as convolutions that have no weights where the mask is zero.

*Conditional Image Generation with PixelCNN Decoders*, van den Oord et al. 2016 (https://arxiv.org/abs/1606.05328),
Section 2.2. A k x k convolution under a mask is a smaller convolution over the positions that the mask leaves. Written
so, nothing is multiplied by zero, and there is no mask that could get lost when a model is saved or converted.
"""

import torch
import torch.nn.functional as F
from torch import nn

MASK_TYPES = ("A", "B")


def _check_kernel(name: str, kernel_size: int, mask_type: str) -> None:
    if mask_type not in MASK_TYPES:
        raise ValueError(f'mask_type must be "A" or "B", got {mask_type!r}.')
    if kernel_size % 2 == 0 or kernel_size < (3 if mask_type == "A" else 1):
        raise ValueError(
            f"{name} needs an odd kernel_size, at least 3 with mask A and at least 1 with mask B; got {kernel_size} "
            f"with mask {mask_type}."
        )


class VerticalConv2d(nn.Conv2d):
    r"""Convolution of the vertical stack: a k x k kernel that sees the rows above, and with mask B its own row too.

        mask A   rows i - k // 2 ... i - 1       mask B   rows i - k // 2 ... i

    All columns j - k // 2 ... j + k // 2 of these rows are seen. The first layer has mask A. After it the features of
    row i depend on the rows above it only, so that the layers after it may look at all of row i: mask B.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side k of the square before masking; odd.
        mask_type: `"A"` or `"B"`.

    Shape:
        - Input: `(B, in_channels, h, w)`.
        - Output: `(B, out_channels, h, w)`.
        - Weight: `(out_channels, in_channels, k // 2 + (mask_type == "B"), k)`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, mask_type: str):
        _check_kernel(type(self).__name__, kernel_size, mask_type)
        self.reach = kernel_size // 2
        self.mask_type = mask_type
        super().__init__(in_channels, out_channels, (self.reach + (mask_type == "B"), kernel_size))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, h, w) to (B, out_channels, h, w)."""
        bottom = -1 if self.mask_type == "A" else 0  # with mask A nobody sees the last row
        return super().forward(F.pad(features, (self.reach, self.reach, self.reach, bottom)))


class HorizontalConv2d(nn.Conv2d):
    r"""Convolution of the horizontal stack: a 1 x k kernel that sees the columns to the left, with mask B its own too.

        mask A   columns j - k // 2 ... j - 1       mask B   columns j - k // 2 ... j

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Length k of the kernel before masking; odd.
        mask_type: `"A"` in the first layer, `"B"` after it.

    Shape:
        - Input: `(B, in_channels, h, w)`.
        - Output: `(B, out_channels, h, w)`.
        - Weight: `(out_channels, in_channels, 1, k // 2 + (mask_type == "B"))`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, mask_type: str):
        _check_kernel(type(self).__name__, kernel_size, mask_type)
        self.reach = kernel_size // 2
        self.mask_type = mask_type
        super().__init__(in_channels, out_channels, (1, self.reach + (mask_type == "B")))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, h, w) to (B, out_channels, h, w)."""
        right = -1 if self.mask_type == "A" else 0  # with mask A nobody sees the last column
        return super().forward(F.pad(features, (self.reach, right)))
