"""The VQ-VAE of *Neural Discrete Representation Learning* (van den Oord et al. 2017, https://arxiv.org/abs/1711.00937)."""

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
from mosaics.likelihoods import (
    discretized_logistic_mixture_log_prob,
    discretized_logistic_mixture_mean,
    gaussian_nll,
    logistic_mixture_of_residuals,
    logistic_mixture_size,
)
from mosaics.models.image_checks import check_indices, check_pixels
from mosaics.models.pretrained import MosaicsPreTrainedModel
from mosaics.models.vqvae.configuration_vqvae import VQVAEConfig
from mosaics.models.vqvae.principal_start import start_from_principal_components
from mosaics.outputs import always_set
from mosaics.quantizers import (
    EMAVectorQuantizer,
    FiniteScalarQuantizer,
    NormalizedVectorQuantizer,
    ProductQuantizer,
    QuantizerOutput,
    VectorQuantizer,
)


@dataclass
class VQVAEOutput(ModelOutput):
    """What [`VQVAE`] returns.

    Args:
        loss: Scalar, reconstruction_loss + codebook_loss + commitment_cost * commitment_loss.
        reconstruction_loss: Scalar, -log p(x | z) in nats per pixel channel.
        codebook_loss: Scalar, mean of (sg[z] - e)^2; 0 for quantizers whose codes have no gradient.
        commitment_loss: Scalar, mean of (z - sg[e])^2, unweighted.
        bits_per_dim: Scalar, the negative ELBO under the uniform prior over codes in bits per pixel channel, the
            codes' share of log2 K each included. Only with the logistic mixture, which gives probabilities of 8-bit
            values; a Gaussian density has no such number.
        reconstruction: `(B, C, H, W)` in [0, 1].
        indices: `(B, h, w)` the codes; `(B, h, w, L)` with L > 1 latents per position.
        perplexity: Scalar, exp of the entropy of the code frequencies in the batch.
        codebook_usage: Scalar, share of the codes that occur in the batch.
    """

    loss: torch.Tensor = always_set()
    reconstruction_loss: torch.Tensor = always_set()
    codebook_loss: torch.Tensor = always_set()
    commitment_loss: torch.Tensor = always_set()
    bits_per_dim: torch.Tensor | None = None
    reconstruction: torch.Tensor = always_set()
    indices: torch.Tensor = always_set()
    perplexity: torch.Tensor = always_set()
    codebook_usage: torch.Tensor = always_set()


def scale_widths(config: VQVAEConfig) -> list[int]:
    """Widths after each strided convolution: half of the hidden size at half resolution, if more follow."""
    return [config.hidden_size // 2] * (config.num_downsamples > 1) + [config.hidden_size] * max(
        1, config.num_downsamples - 1
    )


def residual_blocks(config: VQVAEConfig) -> nn.Sequential:
    """The residual blocks at the resolution of the codes."""
    return nn.Sequential(
        *(ResidualBlock(config.hidden_size, config.residual_hidden_size) for _ in range(config.num_residual_layers))
    )


class Encoder(nn.Module):
    """Pixels `(B, C, H, W)` in [-1, 1] to the vectors z_e of each position, `(B, L D, h, w)`."""

    def __init__(self, config: VQVAEConfig):
        super().__init__()
        widths = [config.num_channels, *scale_widths(config)]
        self.downsamples = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))
        self.input = nn.Conv2d(config.hidden_size, config.hidden_size, 3, padding=1)
        self.blocks = residual_blocks(config)
        self.output = nn.Conv2d(config.hidden_size, config.latents_per_position * config.embedding_dim, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        hidden = pixels
        for layer in self.downsamples:
            hidden = F.relu(layer(hidden))
        return self.output(F.relu(self.blocks(self.input(hidden))))


class Decoder(nn.Module):
    """Code vectors `(B, L D, h, w)` to the parameters of p(x | z) at each pixel, `(B, channels, H, W)`."""

    def __init__(self, config: VQVAEConfig, out_channels: int):
        super().__init__()
        widths = [*reversed(scale_widths(config)), out_channels]
        self.input = nn.Conv2d(config.latents_per_position * config.embedding_dim, config.hidden_size, 3, padding=1)
        self.blocks = residual_blocks(config)
        self.upsamples = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))

    def forward(self, quantized: torch.Tensor) -> torch.Tensor:
        hidden = self.blocks(self.input(quantized))
        for layer in self.upsamples:
            hidden = layer(F.relu(hidden))
        return hidden


class GaussianLikelihood:
    """p(x | z): the decoder's output is the mean; the scale is fixed."""

    def __init__(self, config: VQVAEConfig):
        self.num_parameters = config.num_channels
        self.scale = config.gaussian_scale

    def nll(self, pixel_values: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        """Nats per pixel channel."""
        return gaussian_nll(pixel_values.float(), (parameters.float() + 1) / 2, self.scale)

    def mean(self, parameters: torch.Tensor) -> torch.Tensor:
        """The mean picture in [0, 1]."""
        return ((parameters.float() + 1) / 2).clamp(0, 1)

    def linear_start(self, mean: torch.Tensor, residuals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The matrix and the bias that make the parameters of a pixel, in [-1, 1], less its mean colour `(C,)`."""
        return torch.eye(len(mean)), mean


class LogisticMixtureLikelihood:
    """p(x | z): a discretised logistic mixture."""

    def __init__(self, config: VQVAEConfig):
        self.num_parameters = logistic_mixture_size(config.num_channels, config.num_mixtures)
        self.num_channels, self.num_mixtures = config.num_channels, config.num_mixtures

    def nll(self, pixel_values: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        """Nats per pixel channel."""
        log_prob = discretized_logistic_mixture_log_prob(pixel_values, parameters, self.num_mixtures)
        return -log_prob.mean() / self.num_channels

    def mean(self, parameters: torch.Tensor) -> torch.Tensor:
        """The mean picture in [0, 1]."""
        return discretized_logistic_mixture_mean(parameters, self.num_channels, self.num_mixtures)

    def linear_start(self, mean: torch.Tensor, residuals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The matrix and the bias that make the parameters of a pixel, in [-1, 1], less its mean colour `(C,)`.

        See [`logistic_mixture_of_residuals`], which takes the same residuals `(N, C)`.
        """
        return logistic_mixture_of_residuals(mean, residuals, self.num_mixtures)


Quantizer = VectorQuantizer | EMAVectorQuantizer | NormalizedVectorQuantizer | FiniteScalarQuantizer


def build_quantizer(config: VQVAEConfig) -> Quantizer | ProductQuantizer:
    """The quantizer of a position: one for all its codes, or one for each."""
    if config.separate_codebooks:
        return ProductQuantizer(lambda: build_single_quantizer(config), config.latents_per_position)
    return build_single_quantizer(config)


def build_single_quantizer(config: VQVAEConfig) -> Quantizer:
    """The quantizer that `config.quantizer` names."""
    if config.fsq_levels is not None:
        return FiniteScalarQuantizer(config.fsq_levels)
    sizes = (config.num_embeddings, config.embedding_dim)
    if config.quantizer == "vector":
        return VectorQuantizer(*sizes, gradient_estimator=config.gradient_estimator)
    if config.quantizer == "ema":
        return EMAVectorQuantizer(*sizes, decay=config.ema_decay, gradient_estimator=config.gradient_estimator)
    return NormalizedVectorQuantizer(
        *sizes, code_dim=config.normalized_dim, gradient_estimator=config.gradient_estimator
    )


class VQVAEPreTrainedModel(MosaicsPreTrainedModel):
    """Initialisation and loading shared by the VQ-VAE's classes."""

    config: VQVAEConfig
    config_class = VQVAEConfig
    base_model_prefix = "vqvae"
    main_input_name = "pixel_values"
    input_modalities = "image"
    _no_split_modules = ["ResidualBlock"]  # noqa: RUF012 (the form transformers expects)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, VectorQuantizer | EMAVectorQuantizer | NormalizedVectorQuantizer):
            module.reset_parameters()
        elif isinstance(module, ResidualOutput):
            init_fan_in_(module, gain=0.1)
        elif is_linear(module):
            init_fan_in_(module, gain=math.sqrt(2))  # a ReLU halves the mean square; codes need features of size 1


class VQVAE(VQVAEPreTrainedModel):
    r"""The VQ-VAE: pictures to grids of codes and back.

    *Neural Discrete Representation Learning* (https://arxiv.org/abs/1711.00937). Strided convolutions and residual
    blocks give a vector at each grid position; the nearest codebook entry replaces it; the decoder mirrors the
    encoder and gives p(x | z).

    Example:
    ```python
    >>> import torch
    >>> from mosaics import VQVAE, VQVAEConfig
    >>> config = VQVAEConfig(image_size=16, num_embeddings=32, hidden_size=8, residual_hidden_size=4, embedding_dim=4)
    >>> vqvae = VQVAE(config).eval()
    >>> indices = vqvae.encode(torch.rand(1, 3, 16, 16))
    >>> indices.shape
    torch.Size([1, 4, 4])
    >>> vqvae.decode(indices).shape
    torch.Size([1, 3, 16, 16])

    ```
    """

    __call__: Callable[..., VQVAEOutput]  # what `nn.Module` makes of `forward`

    def __init__(self, config: VQVAEConfig):
        super().__init__(config)
        mixture = config.likelihood == "logistic_mixture"
        self.likelihood = LogisticMixtureLikelihood(config) if mixture else GaussianLikelihood(config)
        self.encoder = Encoder(config)
        self.quantizer = build_quantizer(config)
        self.decoder = Decoder(config, self.likelihood.num_parameters)
        self.post_init()

    @can_return_tuple
    def forward(self, pixel_values: torch.Tensor) -> VQVAEOutput:
        r"""The loss of a batch of pictures, Eq. 3 of the paper, and their reconstruction.

            loss = -log p(x | z_q) + || sg[z_e] - e ||^2 + beta || z_e - sg[e] ||^2

        Each term is a mean: the first over the pixel channels, the others over the elements of z_e. The KL divergence
        of the posterior to the uniform prior, log K for each code, is a constant: it is left out of the loss and
        counted in `bits_per_dim`.

        Args:
            pixel_values: `(B, C, H, W)` in [0, 1]; H and W divisible by `config.downsample_factor`.

        Raises:
            ValueError: On a wrong shape, dtype or range; when not training, on values that are not finite.
        """
        bottleneck: QuantizerOutput = self.quantizer(self.features(pixel_values))
        parameters = self.decoder(self.join_latents(bottleneck.quantized))
        reconstruction_loss = self.likelihood.nll(pixel_values, parameters)
        regularisers = bottleneck.codebook_loss + self.config.commitment_cost * bottleneck.commitment_loss
        return VQVAEOutput(
            loss=reconstruction_loss + regularisers,
            reconstruction_loss=reconstruction_loss,
            codebook_loss=bottleneck.codebook_loss,
            commitment_loss=bottleneck.commitment_loss,
            bits_per_dim=self._bits_per_dim(reconstruction_loss, bottleneck.indices, pixel_values),
            reconstruction=self.likelihood.mean(parameters),
            indices=bottleneck.indices.squeeze(-1) if self.config.latents_per_position == 1 else bottleneck.indices,
            perplexity=bottleneck.perplexity,
            codebook_usage=bottleneck.codebook_usage,
        )

    def initialize_from(self, pixel_values: torch.Tensor, generator: torch.Generator | None = None) -> None:
        """Starts as transform coding of pictures: principal components of the cells, k-means of the components.

        Of several codes at a position each takes components of its own, by the bits that they deserve; see
        `mosaics.models.vqvae.principal_start`. Call it before training.

        Args:
            pixel_values: `(N, C, H, W)` in [0, 1], some hundred training pictures.
            generator: On the CPU, of the random choices of k-means.

        Raises:
            ValueError: If the pictures have a wrong shape or range or are too few; if `hidden_size` is less than two
                channels for each value of a cell; if codes of a position share a codebook, or are not vectors.
        """
        config = self.config
        if config.quantizer not in ("vector", "ema"):
            raise ValueError(f'VQVAE.initialize_from needs quantizer "vector" or "ema", got {config.quantizer!r}.')
        if config.latents_per_position > 1 and not config.separate_codebooks:
            raise ValueError(
                f"VQVAE.initialize_from gives each of the {config.latents_per_position} codes of a position "
                "components of its own: set separate_codebooks=True."
            )
        check_pixels(pixel_values, config.num_channels, config.downsample_factor, training=False)
        start_from_principal_components(self, pixel_values.cpu(), generator or torch.Generator().manual_seed(0))

    def encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The codes `(B, h, w)` of pictures `(B, C, H, W)` in [0, 1]; `(B, h, w, L)` with L > 1 per position."""
        indices = self.quantizer.encode(self.features(pixel_values))
        return indices.squeeze(-1) if self.config.latents_per_position == 1 else indices

    def decode(self, indices: torch.Tensor) -> torch.Tensor:
        """The pictures `(B, C, H, W)` in [0, 1] that codes, of the shape [`encode`] gives, stand for."""
        latents = self.config.latents_per_position
        axes = ("batch", "height", "width") + ((str(latents),) if latents > 1 else ())
        check_indices(indices, self.config.num_embeddings, axes)
        quantized = self.quantizer.lookup(indices if latents > 1 else indices[..., None])
        return self.likelihood.mean(self.decoder(self.join_latents(quantized.to(self.dtype))))

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The encoder's vectors `(B, D, h, w, L)`, not yet quantized, of pictures `(B, C, H, W)` in [0, 1]."""
        check_pixels(pixel_values, self.config.num_channels, self.config.downsample_factor, self.training)
        features = self.encoder((2 * pixel_values - 1).to(self.dtype))
        return features.unflatten(1, (self.config.latents_per_position, self.config.embedding_dim)).movedim(1, -1)

    def join_latents(self, quantized: torch.Tensor) -> torch.Tensor:
        """Code vectors `(B, D, h, w, L)` to `(B, L D, h, w)`."""
        return quantized.movedim(-1, 1).flatten(1, 2)

    def _bits_per_dim(
        self, nll: torch.Tensor, indices: torch.Tensor, pixel_values: torch.Tensor
    ) -> torch.Tensor | None:
        """(-log p(x | z) + number of codes * log K) / (C H W ln 2)."""
        if self.config.likelihood == "gaussian":
            return None
        codes_per_dimension = indices[0].numel() / pixel_values[0].numel()
        return (nll.detach() + codes_per_dimension * math.log(self.config.num_embeddings)) / math.log(2)


__all__ = ["VQVAE", "VQVAEOutput"]
