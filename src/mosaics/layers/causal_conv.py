"""Dilated causal convolution over time."""

import torch
import torch.nn.functional as F
from torch import nn


class CausalConv1d(nn.Conv1d):
    r"""A convolution over time that sees the present and the past: t, t - d, ..., t - (k - 1) d.

    *WaveNet: A Generative Model for Raw Audio*, van den Oord et al. 2016 (https://arxiv.org/abs/1609.03499), Section
    2.1. Times before the first count as zero. The last of the k taps is the present.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Taps k.
        dilation: Distance d between two taps.

    Shape:
        - Input: `(B, in_channels, T)`.
        - Output: `(B, out_channels, T)`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1):
        if kernel_size < 1 or dilation < 1:
            raise ValueError(
                f"CausalConv1d needs a kernel_size and a dilation of at least 1, got {kernel_size} and {dilation}."
            )
        super().__init__(in_channels, out_channels, kernel_size, dilation=dilation)

    @property
    def reach(self) -> int:
        """How far back the kernel sees: (k - 1) d."""
        return (self.kernel_size[0] - 1) * self.dilation[0]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, T) to (B, out_channels, T)."""
        return super().forward(F.pad(features, (self.reach, 0)))
