"""*Generating Diverse High-Fidelity Images with VQ-VAE-2* (Razavi et al. 2019, https://arxiv.org/abs/1906.00446)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from transformers.utils import ModelOutput, can_return_tuple

from mosaics.layers.initialization import init_fan_in_, is_linear
from mosaics.layers.residual import ResidualBlock, ResidualOutput
from mosaics.models.image_checks import check_indices, check_pixels
from mosaics.models.pretrained import MosaicsPreTrainedModel
from mosaics.models.vqvae2.configuration_vqvae2 import VQVAE2Config
from mosaics.outputs import always_set
from mosaics.quantizers import EMAVectorQuantizer, QuantizerOutput


@dataclass
class VQVAE2Output(ModelOutput):
    """What [`VQVAE2`] returns; tuples have one entry for each level, top first.

    Args:
        loss: Scalar, reconstruction_loss + commitment_cost * commitment_loss.
        reconstruction_loss: Scalar, mean squared error of the pixels on the scale from -1 to 1.
        commitment_loss: Scalar, mean of (z - sg[e])^2, unweighted, summed over the levels.
        reconstruction: `(B, C, H, W)` in [0, 1].
        indices: The codes of each level, `(B, h, w)`, `(B, 2 h, 2 w)`, ...
        perplexity: Scalars, exp of the entropy of each level's code frequencies in the batch.
        codebook_usage: Scalars, share of each level's codes that occur in the batch.
    """

    loss: torch.Tensor = always_set()
    reconstruction_loss: torch.Tensor = always_set()
    commitment_loss: torch.Tensor = always_set()
    reconstruction: torch.Tensor = always_set()
    indices: tuple[torch.Tensor, ...] = always_set()
    perplexity: tuple[torch.Tensor, ...] = always_set()
    codebook_usage: tuple[torch.Tensor, ...] = always_set()


def scale_widths(hidden_size: int, num_scales: int) -> list[int]:
    """Widths after each strided convolution: half of the hidden size while more follow one at full width."""
    return [hidden_size // 2] * (num_scales > 1) + [hidden_size] * max(1, num_scales - 1)


def residual_blocks(config: VQVAE2Config) -> nn.Sequential:
    """The residual blocks at the resolution of the codes."""
    return nn.Sequential(
        *(ResidualBlock(config.hidden_size, config.residual_hidden_size) for _ in range(config.num_residual_layers))
    )


class Encoder(nn.Module):
    """E of one level: strided convolutions, a 3x3 convolution, residual blocks; `(B, hidden_size, h, w)`."""

    def __init__(self, in_channels: int, widths: list[int], config: VQVAE2Config):
        super().__init__()
        self.downsamples = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise([in_channels, *widths])
        )
        self.input = nn.Conv2d(widths[-1], config.hidden_size, 3, padding=1)
        self.blocks = residual_blocks(config)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        for layer in self.downsamples:
            features = F.relu(layer(features))
        return F.relu(self.blocks(self.input(features)))


class Decoder(nn.Module):
    """D of one level: a 3x3 convolution, residual blocks, transposed convolutions of stride 2."""

    def __init__(self, in_channels: int, out_channels: int, num_upsamples: int, config: VQVAE2Config):
        super().__init__()
        widths = [*reversed(scale_widths(config.hidden_size, num_upsamples)), out_channels]
        self.input = nn.Conv2d(in_channels, config.hidden_size, 3, padding=1)
        self.blocks = residual_blocks(config)
        self.upsamples = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        hidden = self.blocks(self.input(codes))
        for layer in self.upsamples:
            hidden = layer(F.relu(hidden))
        return hidden


class Level(nn.Module):
    r"""One grid of codes, between the level below it (or the pixels) and the level above it (if there is one).

    With h the features of the level below, e the code vectors of all levels above, upsampled to this grid, and D_up
    what the decoder of the level above makes of them:

        E(h)                      goes up
        z = Q(conv([E(h), D_up])) this level's codes, after those above are known
        D([e, z])                 goes down
    """

    def __init__(self, number: int, config: VQVAE2Config):
        super().__init__()
        is_bottom, is_top = number == 0, number == config.num_levels - 1
        codes_above = (config.num_levels - 1 - number) * config.embedding_dim
        scales = config.bottom_downsamples if is_bottom else 1
        if is_bottom:
            self.encoder = Encoder(config.num_channels, scale_widths(config.hidden_size, scales), config)
        else:
            width = config.upper_downsample_size or config.hidden_size
            self.encoder = Encoder(config.hidden_size, [width], config)
        self.upsample = None if is_top else nn.ConvTranspose2d(codes_above, codes_above, 4, stride=2, padding=1)
        context = 0 if is_top else config.embedding_dim
        self.to_codes = nn.Conv2d(config.hidden_size + context, config.embedding_dim, 1)
        self.quantizer = EMAVectorQuantizer(
            config.num_embeddings,
            config.embedding_dim,
            decay=config.ema_decay,
            gradient_estimator=config.gradient_estimator,
        )
        out_channels = config.num_channels if is_bottom else config.embedding_dim
        self.decoder = Decoder(codes_above + config.embedding_dim, out_channels, scales, config)

    def vectors(self, features: torch.Tensor, from_above: torch.Tensor | None) -> torch.Tensor:
        """What is quantised, `(B, D, h, w)`: of E(h), and of D_up unless this is the top."""
        context = features if from_above is None else torch.cat([features, from_above], dim=1)
        return self.to_codes(context)

    def join(self, codes_above: torch.Tensor | None, quantized: torch.Tensor) -> torch.Tensor:
        """`[e, z]`: the code vectors of this level under those of the levels above, `(B, levels D, h, w)`."""
        if self.upsample is None or codes_above is None:
            return quantized
        return torch.cat([self.upsample(codes_above), quantized], dim=1)


class VQVAE2PreTrainedModel(MosaicsPreTrainedModel):
    """Initialisation and loading shared by the VQ-VAE-2's classes."""

    config: VQVAE2Config
    config_class = VQVAE2Config
    base_model_prefix = "vqvae2"
    main_input_name = "pixel_values"
    input_modalities = "image"
    _no_split_modules = ["ResidualBlock"]  # noqa: RUF012 (the form transformers expects)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, EMAVectorQuantizer):
            module.reset_parameters()
        elif isinstance(module, ResidualOutput):
            init_fan_in_(module, gain=0.1)
        elif is_linear(module):
            init_fan_in_(module, gain=math.sqrt(2))  # a ReLU halves the mean square; codes need features of size 1


class VQVAE2(VQVAE2PreTrainedModel):
    r"""The VQ-VAE-2: pictures to a hierarchy of code grids and back.

    *Generating Diverse High-Fidelity Images with VQ-VAE-2* (https://arxiv.org/abs/1906.00446), Algorithm 1, for any
    number of levels. Features go up from the pixels; codes are chosen from the top down, each level seeing what the
    decoders above it make of the codes chosen so far; the bottom decoder sees the codes of all levels. The codebooks
    are moving averages, so the loss has no codebook term.

    Example:
    ```python
    >>> import torch
    >>> from mosaics import VQVAE2, VQVAE2Config
    >>> config = VQVAE2Config(image_size=32, num_embeddings=16, embedding_dim=4, hidden_size=8, residual_hidden_size=4)
    >>> vqvae = VQVAE2(config).eval()
    >>> top, bottom = vqvae.encode(torch.rand(1, 3, 32, 32))
    >>> top.shape, bottom.shape
    (torch.Size([1, 4, 4]), torch.Size([1, 8, 8]))
    >>> vqvae.decode((top, bottom)).shape
    torch.Size([1, 3, 32, 32])

    ```
    """

    __call__: Callable[..., VQVAE2Output]  # what `nn.Module` makes of `forward`

    def __init__(self, config: VQVAE2Config):
        super().__init__(config)
        self.levels = nn.ModuleList(Level(number, config) for number in range(config.num_levels))  # bottom first
        self.post_init()

    @can_return_tuple
    def forward(self, pixel_values: torch.Tensor) -> VQVAE2Output:
        r"""The loss of a batch of pictures, Eq. 2 of the paper with EMA codebooks, and their reconstruction.

            loss = || x - D(e) ||^2 + beta * sum over levels of || z - sg[e] ||^2

        Each term is a mean over its elements, x on the scale from -1 to 1.

        Args:
            pixel_values: `(B, C, H, W)` in [0, 1]; H and W divisible by `config.downsample_factor`.

        Raises:
            ValueError: On a wrong shape, dtype or range; when not training, on values that are not finite.
        """
        bottlenecks, decoded = self._quantize(self._features(pixel_values))
        reconstruction_loss = F.mse_loss(decoded.float(), 2 * pixel_values.float() - 1)
        commitment_loss = torch.stack([bottleneck.commitment_loss for bottleneck in bottlenecks]).sum()
        return VQVAE2Output(
            loss=reconstruction_loss + self.config.commitment_cost * commitment_loss,
            reconstruction_loss=reconstruction_loss,
            commitment_loss=commitment_loss,
            reconstruction=_to_pixels(decoded),
            indices=tuple(bottleneck.indices for bottleneck in bottlenecks),
            perplexity=tuple(bottleneck.perplexity for bottleneck in bottlenecks),
            codebook_usage=tuple(bottleneck.codebook_usage for bottleneck in bottlenecks),
        )

    def encode(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The codes of pictures `(B, C, H, W)` in [0, 1], one grid for each level, top first."""
        all_indices, codes, from_above = [], None, None
        for level, features in zip(reversed(self.levels), self._features(pixel_values), strict=True):
            indices = level.quantizer.encode(level.vectors(features, from_above))
            all_indices.append(indices)
            if level is not self.levels[0]:
                codes = level.join(codes, level.quantizer.lookup(indices).to(self.dtype))
                from_above = level.decoder(codes)
        return tuple(all_indices)

    def decode(self, indices: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """The pictures `(B, C, H, W)` in [0, 1] that grids of codes, top first as from [`encode`], stand for."""
        self._check_grids(indices)
        codes = None
        for level, grid in zip(reversed(self.levels), indices, strict=True):
            codes = level.join(codes, level.quantizer.lookup(grid).to(self.dtype))
        return _to_pixels(self.levels[0].decoder(codes))

    def _features(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """E of each level, `(B, hidden_size, h, w)`, top first."""
        check_pixels(pixel_values, self.config.num_channels, self.config.downsample_factor, self.training)
        features, hidden = [], (2 * pixel_values - 1).to(self.dtype)
        for level in self.levels:
            hidden = level.encoder(hidden)
            features.append(hidden)
        return features[::-1]

    def _quantize(self, features: list[torch.Tensor]) -> tuple[list[QuantizerOutput], torch.Tensor]:
        """The bottlenecks, top first, and the bottom decoder's output."""
        bottlenecks, codes, above = [], None, None
        for level, hidden in zip(reversed(self.levels), features, strict=True):
            bottleneck = level.quantizer(level.vectors(hidden, None if above is None else above.decoder(codes)))
            bottlenecks.append(bottleneck)
            codes, above = level.join(codes, bottleneck.quantized), level
        return bottlenecks, self.levels[0].decoder(codes)

    def _check_grids(self, indices: tuple[torch.Tensor, ...]) -> None:
        levels = self.config.num_levels
        if not isinstance(indices, tuple | list) or len(indices) != levels:
            found = f"{len(indices)} grids" if isinstance(indices, tuple | list) else type(indices).__name__
            raise ValueError(f"indices must be a tuple of {levels} grids of codes, top first, got {found}.")
        for number, grid in enumerate(indices):
            axes = ("batch", "height", "width")
            if number > 0 and indices[0].ndim == 3:
                batch, height, width = indices[0].shape
                axes = (str(batch), str(height * 2**number), str(width * 2**number))
            check_indices(grid, self.config.num_embeddings, axes, name=f"indices[{number}]")


def _to_pixels(decoded: torch.Tensor) -> torch.Tensor:
    """From [-1, 1] to [0, 1]."""
    return ((decoded.float() + 1) / 2).clamp(0, 1)


__all__ = ["VQVAE2", "VQVAE2Output"]
