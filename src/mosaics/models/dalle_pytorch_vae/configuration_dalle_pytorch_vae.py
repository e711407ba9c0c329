"""Configuration of the discrete VAE of DALLE-pytorch."""

import math

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

RECONSTRUCTION_LOSSES = ("mse", "smooth_l1")


@strict
class DallePytorchVAEConfig(PreTrainedConfig):
    r"""Configuration of a [`DallePytorchVAE`].

    The defaults are those of the project (https://github.com/lucidrains/DALLE-pytorch). Its checkpoints hold the
    sizes only; what else changes the result is set here.

    Args:
        image_size (`int`, defaults to 256): Side of the square pictures, in pixels.
        num_channels (`int`, defaults to 3): Colour channels.
        num_embeddings (`int`, defaults to 512): Number of codes K.
        codebook_dim (`int`, defaults to 512): Size of a code vector D.
        num_layers (`int`, defaults to 3): Convolutions of stride 2; each halves the picture.
        num_residual_blocks (`int`, defaults to 0): Residual blocks of the encoder, and of the decoder.
        hidden_size (`int`, defaults to 64): Width of all convolutions.
        pixel_mean (`list[float]`, *optional*): What is subtracted from each channel of pictures in [0, 1]; 0.5 of
            colours and 0 of a fourth channel if not given.
        pixel_std (`list[float]`, *optional*): What each channel is then divided by; 0.5, and 1 for a fourth channel.
        temperature (`float`, defaults to 0.9): Temperature of the Gumbel-softmax relaxation in training.
        straight_through (`bool`, defaults to `False`): In training, decode single sampled codes, not mixtures.
        reconstruction_loss (`str`, defaults to `"mse"`): `"mse"` or `"smooth_l1"`, on normalised pixels.
        kl_weight (`float`, defaults to 0.0): Weight of the KL divergence to the uniform distribution, averaged over
            positions. (The project sums it over positions and batch: divide its weight by their number.)
    """

    model_type = "mosaics_dalle_pytorch_vae"
    image_size: int = 256
    num_channels: int = 3
    num_embeddings: int = 512
    codebook_dim: int = 512
    num_layers: int = 3
    num_residual_blocks: int = 0
    hidden_size: int = 64
    pixel_mean: list[float] | None = None
    pixel_std: list[float] | None = None
    temperature: float | int = 0.9
    straight_through: bool = False
    reconstruction_loss: str = "mse"
    kl_weight: float | int = 0.0

    def __post_init__(self, **kwargs):
        self.pixel_mean, self.pixel_std = self.pixel_statistics
        super().__post_init__(**kwargs)

    @property
    def pixel_statistics(self) -> tuple[list[float], list[float]]:
        """`pixel_mean` and `pixel_std`, the defaults resolved."""
        colours = min(self.num_channels, 3)
        others = self.num_channels - colours
        mean = [0.5] * colours + [0.0] * others if self.pixel_mean is None else self.pixel_mean
        std = [0.5] * colours + [1.0] * others if self.pixel_std is None else self.pixel_std
        return mean, std

    @property
    def downsample_factor(self) -> int:
        """Pixels along one side of a code's cell."""
        return 2**self.num_layers

    @property
    def grid_size(self) -> int:
        """Codes along one side of the grid of an `image_size` picture."""
        return self.image_size // self.downsample_factor

    def validate_sizes(self):
        """Every size is in its range; called by the strict dataclass."""
        least = {
            "image_size": 1,
            "num_channels": 1,
            "num_embeddings": 2,
            "codebook_dim": 1,
            "num_layers": 1,
            "num_residual_blocks": 0,
            "hidden_size": 1,
        }
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ValueError(
                    f"DallePytorchVAEConfig.{name} must be at least {smallest}, got {getattr(self, name)}."
                )
        if self.image_size % self.downsample_factor:
            raise ValueError(
                f"DallePytorchVAEConfig.image_size must be divisible by 2**num_layers = {self.downsample_factor}, got "
                f"{self.image_size}."
            )

    def validate_pixels(self):
        """One mean and one positive deviation for each channel; called by the strict dataclass."""
        mean, std = self.pixel_statistics
        for name, values in {"pixel_mean": mean, "pixel_std": std}.items():
            if len(values) != self.num_channels or not all(math.isfinite(value) for value in values):
                raise ValueError(
                    f"DallePytorchVAEConfig.{name} must hold a finite number for each of num_channels="
                    f"{self.num_channels}, got {values}."
                )
        if any(value <= 0 for value in std):
            raise ValueError(f"DallePytorchVAEConfig.pixel_std must be positive, got {std}.")

    def validate_training(self):
        """Losses and rates are known and in range; called by the strict dataclass."""
        if self.reconstruction_loss not in RECONSTRUCTION_LOSSES:
            raise ValueError(
                f"DallePytorchVAEConfig.reconstruction_loss must be one of {', '.join(RECONSTRUCTION_LOSSES)}, got "
                f"{self.reconstruction_loss!r}."
            )
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"DallePytorchVAEConfig.temperature must be positive and finite, got {self.temperature}.")
        if not 0 <= self.kl_weight < math.inf:
            raise ValueError(f"DallePytorchVAEConfig.kl_weight must be finite and at least 0, got {self.kl_weight}.")


__all__ = ["DallePytorchVAEConfig"]
