"""Configuration of the VQ-VAE-2."""

import math

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

ESTIMATOR_NAMES = ("straight_through", "rotation")


@strict
class VQVAE2Config(PreTrainedConfig):
    r"""Configuration of a [`VQVAE2`].

    The defaults are the ImageNet set-up of *Generating Diverse High-Fidelity Images with VQ-VAE-2*
    (https://arxiv.org/abs/1906.00446), Appendix A: 256x256 pixels to a top grid of 32x32 and a bottom grid of 64x64
    codes. Its set-up for 1024x1024 faces, grids of 32x32, 64x64 and 128x128, is
    `VQVAE2Config(image_size=1024, num_levels=3, bottom_downsamples=3)`.

    Args:
        image_size (`int`, defaults to 256): Side of the square pictures the model is meant for, in pixels.
        num_channels (`int`, defaults to 3): Colour channels.
        num_levels (`int`, defaults to 2): Grids of codes, at least 2; each is half as large as the one below.
        bottom_downsamples (`int`, defaults to 2): Convolutions of stride 2 below the bottom grid, whose side is
            `image_size / 2**bottom_downsamples`.
        num_embeddings (`int`, defaults to 512): Number of codes K of each level, which has a codebook of its own.
        embedding_dim (`int`, defaults to 64): Size of a code vector D.
        hidden_size (`int`, defaults to 128): Width of the convolutions; half of it before the resolution of the codes.
        upper_downsample_size (`int`, *optional*): Width of the strided convolution of the encoders above the bottom
            one; `hidden_size` if not given. Weights converted from other implementations may have half of it.
        num_residual_layers (`int`, defaults to 2): Residual blocks of every encoder and decoder.
        residual_hidden_size (`int`, defaults to 64): Width inside a residual block.
        commitment_cost (`float`, defaults to 0.25): beta, the weight of the commitment loss.
        ema_decay (`float`, defaults to 0.99): Decay of the averages that make the codebooks.
        gradient_estimator (`str`, defaults to `"straight_through"`): Or `"rotation"`.
    """

    model_type = "mosaics_vqvae2"
    image_size: int = 256
    num_channels: int = 3
    num_levels: int = 2
    bottom_downsamples: int = 2
    num_embeddings: int = 512
    embedding_dim: int = 64
    hidden_size: int = 128
    upper_downsample_size: int | None = None
    num_residual_layers: int = 2
    residual_hidden_size: int = 64
    commitment_cost: float | int = 0.25
    ema_decay: float | int = 0.99
    gradient_estimator: str = "straight_through"

    @property
    def downsample_factor(self) -> int:
        """Pixels along one side of a cell of the top grid: sizes of pictures are multiples of it."""
        return 2 ** (self.bottom_downsamples + self.num_levels - 1)

    @property
    def grid_sizes(self) -> tuple[int, ...]:
        """Codes along one side of each grid of an `image_size` picture, top first."""
        levels = reversed(range(self.num_levels))
        return tuple(self.image_size // 2 ** (self.bottom_downsamples + level) for level in levels)

    def validate_sizes(self):
        """Every size is in its range; called by the strict dataclass."""
        least = {
            "image_size": 1,
            "num_channels": 1,
            "num_levels": 2,
            "bottom_downsamples": 1,
            "num_embeddings": 2,
            "embedding_dim": 1,
            "hidden_size": 2,
            "num_residual_layers": 0,
            "residual_hidden_size": 1,
        }
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ValueError(f"VQVAE2Config.{name} must be at least {smallest}, got {getattr(self, name)}.")
        if self.upper_downsample_size is not None and self.upper_downsample_size < 1:
            raise ValueError(
                f"VQVAE2Config.upper_downsample_size must be at least 1, or None for hidden_size, got "
                f"{self.upper_downsample_size}."
            )
        if self.image_size % self.downsample_factor:
            raise ValueError(
                f"VQVAE2Config.image_size must be divisible by 2**(bottom_downsamples + num_levels - 1) = "
                f"{self.downsample_factor}, got {self.image_size}."
            )

    def validate_objective(self):
        """Weights are in their ranges and names known; called by the strict dataclass."""
        if not 0 <= self.commitment_cost < math.inf:
            raise ValueError(f"VQVAE2Config.commitment_cost must be finite and >= 0, got {self.commitment_cost}.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"VQVAE2Config.ema_decay must be in [0, 1), got {self.ema_decay}.")
        if self.gradient_estimator not in ESTIMATOR_NAMES:
            raise ValueError(
                f"VQVAE2Config.gradient_estimator must be one of {', '.join(ESTIMATOR_NAMES)}, got "
                f"{self.gradient_estimator!r}."
            )


__all__ = ["VQVAE2Config"]
