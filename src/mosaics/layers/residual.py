"""The residual block of the VQ-VAE family."""

import torch
import torch.nn.functional as F
from torch import nn


class ResidualOutput(nn.Conv2d):
    """The convolution that ends a residual branch: small at first, so that blocks start near the identity."""


class ResidualBlock(nn.Module):
    r"""`x + conv1x1(relu(conv3x3(relu(x))))`, the block of VQ-VAE and VQ-VAE-2.

    *Neural Discrete Representation Learning* (https://arxiv.org/abs/1711.00937), Section 4.1. The first ReLU is not in
    place: the skip adds x, not relu(x).

    Args:
        channels: Channels of input and output.
        hidden_channels: Channels between the two convolutions.
        dropout: Dropout before the second convolution.

    Shape:
        - Input and output: `(B, channels, h, w)`.
    """

    def __init__(self, channels: int, hidden_channels: int, dropout: float = 0.0):
        super().__init__()
        self.conv3x3 = nn.Conv2d(channels, hidden_channels, 3, padding=1)
        self.conv1x1 = ResidualOutput(hidden_channels, channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, channels, h, w) to the same shape."""
        hidden = F.relu(self.conv3x3(F.relu(features)))
        return features + self.conv1x1(self.dropout(hidden))
