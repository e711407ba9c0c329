"""Configuration of the VQ-VAE."""

import math

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

QUANTIZERS = ("vector", "ema", "normalized", "fsq")
LIKELIHOODS = ("gaussian", "logistic_mixture")
ESTIMATOR_NAMES = ("straight_through", "rotation")


@strict
class VQVAEConfig(PreTrainedConfig):
    r"""Configuration of a [`VQVAE`].

    The defaults are the ImageNet set-up of *Neural Discrete Representation Learning*
    (https://arxiv.org/abs/1711.00937), Section 4.2: 128x128 pixels to 32x32 codes, K = 512; the network is that of
    Section 4.1, with 256 hidden units. The CIFAR-10 set-up, 32x32 pixels to a field of 8x8x10 codes, is
    `VQVAEConfig(image_size=32, latents_per_position=10)`: ten codes of the same codebook at each of 8x8 positions.
    The paper does not say how long a code is; 64, the 3x3 convolution after the strided ones and the halved first
    width are those of the implementation its authors published in Sonnet.

    Args:
        image_size (`int`, defaults to 128): Side of the square pictures the model is meant for, in pixels.
        num_channels (`int`, defaults to 3): Colour channels.
        num_embeddings (`int`, defaults to 512): Number of codes K.
        embedding_dim (`int`, defaults to 64): Size of a code vector D.
        latents_per_position (`int`, defaults to 1): Codes at each position of the grid.
        separate_codebooks (`bool`, defaults to `False`): Each of the codes of a position has a codebook of its own,
            of `num_embeddings` codes; else they share one.
        num_downsamples (`int`, defaults to 2): Convolutions of stride 2; the side of the grid is
            `image_size / 2**num_downsamples`.
        hidden_size (`int`, defaults to 256): Width of the convolutions; half of it at half resolution.
        num_residual_layers (`int`, defaults to 2): Residual blocks of the encoder, and of the decoder.
        residual_hidden_size (`int`, defaults to 256): Width inside a residual block.
        quantizer (`str`, defaults to `"vector"`): `"vector"`, `"ema"`, `"normalized"` or `"fsq"`, see
            `mosaics.quantizers`.
        gradient_estimator (`str`, defaults to `"straight_through"`): Or `"rotation"`; not for `"fsq"`.
        commitment_cost (`float`, defaults to 0.25): beta, the weight of the commitment loss.
        ema_decay (`float`, defaults to 0.99): Decay of the averages of `"ema"`.
        normalized_dim (`int`, defaults to 8): Size of a code of `"normalized"`, before it is projected to
            `embedding_dim`.
        fsq_levels (`list[int]`, *optional*): Levels of `"fsq"`: their number is `embedding_dim` and their product
            `num_embeddings`.
        likelihood (`str`, defaults to `"gaussian"`): p(x | z): `"gaussian"`, the squared error at a fixed scale, or
            `"logistic_mixture"`, probabilities of 8-bit values.
        gaussian_scale (`float`, defaults to 0.178): Standard deviation of the Gaussian, in pixels from 0 to 1. The
            default weights the squared error as Sonnet's example does, by the variance of CIFAR-10.
        num_mixtures (`int`, defaults to 10): Components of the logistic mixture.
    """

    model_type = "mosaics_vqvae"
    image_size: int = 128
    num_channels: int = 3
    num_embeddings: int = 512
    embedding_dim: int = 64
    latents_per_position: int = 1
    separate_codebooks: bool = False
    num_downsamples: int = 2
    hidden_size: int = 256
    num_residual_layers: int = 2
    residual_hidden_size: int = 256
    quantizer: str = "vector"
    gradient_estimator: str = "straight_through"
    commitment_cost: float | int = 0.25
    ema_decay: float | int = 0.99
    normalized_dim: int = 8
    fsq_levels: list[int] | None = None
    likelihood: str = "gaussian"
    gaussian_scale: float | int = 0.178
    num_mixtures: int = 10

    @property
    def downsample_factor(self) -> int:
        """Pixels along one side of a position's cell."""
        return 2**self.num_downsamples

    @property
    def grid_size(self) -> int:
        """Positions along one side of the grid of an `image_size` picture."""
        return self.image_size // self.downsample_factor

    def validate_sizes(self):
        """Every size is in its range; called by the strict dataclass."""
        least = {
            "image_size": 1,
            "num_channels": 1,
            "num_embeddings": 2,
            "embedding_dim": 1,
            "latents_per_position": 1,
            "num_downsamples": 1,
            "hidden_size": 2,
            "num_residual_layers": 0,
            "residual_hidden_size": 1,
            "normalized_dim": 1,
            "num_mixtures": 1,
        }
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ValueError(f"VQVAEConfig.{name} must be at least {smallest}, got {getattr(self, name)}.")
        if self.image_size % self.downsample_factor:
            raise ValueError(
                f"VQVAEConfig.image_size must be divisible by 2**num_downsamples = {self.downsample_factor}, got "
                f"{self.image_size}."
            )

    def validate_weights(self):
        """Weights and scales are in their ranges; called by the strict dataclass."""
        if not 0 <= self.commitment_cost < math.inf:
            raise ValueError(f"VQVAEConfig.commitment_cost must be finite and >= 0, got {self.commitment_cost}.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"VQVAEConfig.ema_decay must be in [0, 1), got {self.ema_decay}.")
        if not 0 < self.gaussian_scale < math.inf:
            raise ValueError(f"VQVAEConfig.gaussian_scale must be finite and > 0, got {self.gaussian_scale}.")

    def validate_choices(self):
        """Names are known and fit together; called by the strict dataclass."""
        for name, choices in (
            ("quantizer", QUANTIZERS),
            ("likelihood", LIKELIHOODS),
            ("gradient_estimator", ESTIMATOR_NAMES),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"VQVAEConfig.{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}."
                )
        if (self.quantizer == "fsq") != (self.fsq_levels is not None):
            raise ValueError(
                f"VQVAEConfig.fsq_levels belongs to quantizer='fsq' and only to it, got fsq_levels={self.fsq_levels} "
                f"and quantizer={self.quantizer!r}."
            )
        if self.separate_codebooks and (self.latents_per_position == 1 or self.quantizer == "fsq"):
            raise ValueError(
                "VQVAEConfig.separate_codebooks needs latents_per_position of at least 2 and a quantizer with a "
                f"codebook, got {self.latents_per_position} and {self.quantizer!r}."
            )
        if self.fsq_levels is not None:
            found = (len(self.fsq_levels), math.prod(self.fsq_levels))
            if found != (self.embedding_dim, self.num_embeddings):
                raise ValueError(
                    f"VQVAEConfig.fsq_levels={self.fsq_levels} needs embedding_dim={found[0]} and "
                    f"num_embeddings={found[1]}, got {self.embedding_dim} and {self.num_embeddings}."
                )
            if self.gradient_estimator != "straight_through":
                raise ValueError(
                    f"VQVAEConfig.gradient_estimator must be straight_through for quantizer='fsq', got "
                    f"{self.gradient_estimator!r}."
                )


__all__ = ["VQVAEConfig"]
