"""The layers of the discrete VAE: bottleneck blocks, the encoder and the decoder (Appendix A.1 of its paper)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from mosaics.models.dvae.configuration_dvae import DiscreteVAEConfig
from mosaics.quantizers import GumbelQuantizer


class MainPath(nn.Conv2d):
    """A convolution outside the residual paths: the identity at first, if `config.identity_start`."""

    bias: nn.Parameter


class PathEnd(nn.Conv2d):
    """The last convolution of a residual path: zero at first, if `config.identity_start`."""


class PixelHead(nn.Conv2d):
    """The decoder's last convolution: at first the logits of its first inputs, if `config.identity_start`."""

    bias: nn.Parameter


class LogitHead(nn.Conv2d):
    """The encoder's last convolution, in float32 also under autocast: rounded logits would name other codes."""

    bias: nn.Parameter

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, D, h, w) features to the logits (B, K, h, w), float32."""
        with torch.autocast(features.device.type, enabled=False):
            return F.conv2d(features.float(), self.weight.float(), self.bias.float())


def convolution(in_channels: int, out_channels: int, kernel_size: int, layer: type[nn.Conv2d] = nn.Conv2d):
    """A convolution that keeps height and width."""
    return layer(in_channels, out_channels, kernel_size, padding=(kernel_size - 1) // 2)


class BottleneckBlock(nn.Module):
    """`id_path(x) + gain * res_path(x)`: four narrow convolutions, ReLU before each (Appendix A.1)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_sizes: tuple[int, ...], config: DiscreteVAEConfig):
        super().__init__()
        self.gain = config.post_gain
        same = in_channels == out_channels
        self.id_path = nn.Identity() if same else convolution(in_channels, out_channels, 1, MainPath)
        widths = [in_channels, *[out_channels // config.bottleneck_ratio] * (len(kernel_sizes) - 1), out_channels]
        layers = [nn.Conv2d] * (len(kernel_sizes) - 1) + [PathEnd]
        self.res_path = nn.ModuleList(
            convolution(*channels, kernel, layer)
            for channels, kernel, layer in zip(pairwise(widths), kernel_sizes, layers, strict=True)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, h, w) to (B, out_channels, h, w)."""
        hidden = x
        for layer in self.res_path:
            hidden = layer(F.relu(hidden))
        return self.id_path(x) + self.gain * hidden


def block_group(in_channels: int, out_channels: int, kernel_sizes: tuple[int, ...], config: DiscreteVAEConfig):
    """The residual blocks of one resolution."""
    widths = [in_channels] + [out_channels] * config.blocks_per_group
    return nn.Sequential(*(BottleneckBlock(a, b, kernel_sizes, config) for a, b in pairwise(widths)))


class Encoder(nn.Module):
    """Mapped pixels `(B, C, H, W)` to logits over the codes `(B, K, h, w)`, and the features they are linear in."""

    def __init__(self, config: DiscreteVAEConfig):
        super().__init__()
        widths = [config.hidden_size * 2**group for group in range(config.num_groups)]
        self.patch_size = config.patch_size
        self.input = convolution(
            config.num_channels * config.patch_size**2, widths[0], config.stem_kernel_size, MainPath
        )
        self.groups = nn.ModuleList(
            block_group(a, b, (3, 3, 3, 1), config) for a, b in zip([widths[0], *widths[:-1]], widths, strict=True)
        )
        self.output = LogitHead(widths[-1], config.num_embeddings, kernel_size=1)

    def forward(self, mapped_pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, C, H, W) mapped pixels to logits (B, K, h, w) and features (B, D, h, w)."""
        hidden = self.input(F.pixel_unshuffle(mapped_pixels, self.patch_size))
        for index, group in enumerate(self.groups):
            if index > 0:
                hidden = F.max_pool2d(hidden, 2)
            hidden = group(hidden)
        features = F.relu(hidden)
        return self.output(features), features


class Decoder(nn.Module):
    """Codes to the mean and log-scale of each pixel channel, `(B, 2C, H, W)`; nearest upsampling between groups.

    The paper's first 1x1 convolution over one-hot codes is the codebook, so it lives here, as the quantizer.
    """

    def __init__(self, config: DiscreteVAEConfig):
        super().__init__()
        widths = [config.hidden_size * 2**group for group in reversed(range(config.num_groups))]
        self.patch_size = config.patch_size
        self.quantizer = GumbelQuantizer(config.num_embeddings, config.codebook_dim)
        self.groups = nn.ModuleList(
            block_group(a, b, (1, 3, 3, 3), config)
            for a, b in zip([config.codebook_dim, *widths[:-1]], widths, strict=True)
        )
        self.output = convolution(widths[-1], 2 * config.num_channels * config.patch_size**2, 1, PixelHead)

    def forward(self, quantized: torch.Tensor) -> torch.Tensor:
        """(B, codebook_dim, h, w) code vectors to means and log-scales (B, 2C, H, W)."""
        hidden = quantized
        for index, group in enumerate(self.groups):
            if index > 0:
                hidden = F.interpolate(hidden, scale_factor=2, mode="nearest")
            hidden = group(hidden)
        return F.pixel_shuffle(self.output(F.relu(hidden)), self.patch_size)
