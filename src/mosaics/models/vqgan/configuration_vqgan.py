"""Configuration of the VQGAN."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

QUANTIZERS = ("vector", "gumbel", "normalized")


@strict
class VQGANConfig(PreTrainedConfig):
    r"""Configuration of a [`VQGAN`].

    The defaults are the ImageNet model of *Taming Transformers for High-Resolution Image Synthesis*
    (https://arxiv.org/abs/2012.09841) with 16,384 codes: 256x256 pixels to 16x16 codes.

    Args:
        image_size (`int`, defaults to 256): Side of the square pictures the model is meant for, in pixels.
        num_channels (`int`, defaults to 3): Colour channels.
        num_embeddings (`int`, defaults to 16384): Number of codes K.
        embedding_dim (`int`, defaults to 256): Size of a code vector D.
        latent_channels (`int`, defaults to 256): Channels that the encoder gives and the decoder takes.
        hidden_size (`int`, defaults to 128): Width at full resolution; a multiple of `norm_groups`.
        channel_multipliers (`list[int]`, defaults to `[1, 1, 2, 2, 4]`): For each resolution, the highest first, its
            width in units of `hidden_size`. Between two resolutions height and width are halved.
        num_residual_layers (`int`, defaults to 2): Residual blocks of the encoder at each resolution; the decoder has
            one more.
        attention_levels (`list[int]`, *optional*): Resolutions, counted from 0 at the highest, with self-attention
            after every residual block; the lowest if not given. There always is one attention layer in the middle.
        norm_groups (`int`, defaults to 32): Groups of the group normalisation.
        quantizer (`str`, defaults to `"vector"`): `"vector"`, the nearest code; `"gumbel"`, the code of the largest
            logit; or `"normalized"`, the code of the nearest direction, as in LlamaGen.
    """

    model_type = "mosaics_vqgan"
    image_size: int = 256
    num_channels: int = 3
    num_embeddings: int = 16384
    embedding_dim: int = 256
    latent_channels: int = 256
    hidden_size: int = 128
    channel_multipliers: list[int] | None = None
    num_residual_layers: int = 2
    attention_levels: list[int] | None = None
    norm_groups: int = 32
    quantizer: str = "vector"

    def __post_init__(self, **kwargs: Any):
        self.channel_multipliers, self.attention_levels = self.resolutions
        super().__post_init__(**kwargs)

    @property
    def resolutions(self) -> tuple[list[int], list[int]]:
        """`channel_multipliers` and `attention_levels`, the defaults resolved."""
        multipliers = [1, 1, 2, 2, 4] if self.channel_multipliers is None else self.channel_multipliers
        levels = [len(multipliers) - 1] if self.attention_levels is None else self.attention_levels
        return multipliers, levels

    @property
    def downsample_factor(self) -> int:
        """Pixels along one side of a code's cell."""
        return 2 ** (len(self.widths) - 1)

    @property
    def grid_size(self) -> int:
        """Codes along one side of the grid of an `image_size` picture."""
        return self.image_size // self.downsample_factor

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels at each resolution, the highest first."""
        multipliers, _ = self.resolutions
        return tuple(self.hidden_size * multiplier for multiplier in multipliers)

    @property
    def has_attention(self) -> tuple[bool, ...]:
        """Whether each resolution has self-attention, the highest first."""
        multipliers, levels = self.resolutions
        return tuple(level in levels for level in range(len(multipliers)))

    def validate_sizes(self):
        """Every size is in its range; called by the strict dataclass."""
        least = {
            "image_size": 1,
            "num_channels": 1,
            "num_embeddings": 2,
            "embedding_dim": 1,
            "latent_channels": 1,
            "hidden_size": 1,
            "num_residual_layers": 1,
            "norm_groups": 1,
        }
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ValueError(f"VQGANConfig.{name} must be at least {smallest}, got {getattr(self, name)}.")

    def validate_levels(self):
        """The resolutions fit together; called by the strict dataclass."""
        multipliers, with_attention = self.resolutions
        levels = len(multipliers)
        if not multipliers or min(multipliers) < 1:
            raise ValueError(
                f"VQGANConfig.channel_multipliers must be positive, one for each resolution, got {multipliers}."
            )
        if any(self.hidden_size * multiplier % self.norm_groups for multiplier in multipliers):
            raise ValueError(
                f"VQGANConfig.hidden_size times each of channel_multipliers must be divisible by norm_groups = "
                f"{self.norm_groups}, got {self.hidden_size} times {multipliers}."
            )
        if self.image_size % 2 ** (levels - 1):
            raise ValueError(
                f"VQGANConfig.image_size must be divisible by 2**(number of channel_multipliers - 1) = "
                f"{2 ** (levels - 1)}, got {self.image_size}."
            )
        if any(level not in range(levels) for level in with_attention):
            raise ValueError(
                f"VQGANConfig.attention_levels must be resolutions from 0 to {levels - 1} (one for each of "
                f"channel_multipliers), got {with_attention}."
            )

    def validate_quantizer(self):
        """The quantizer is known; called by the strict dataclass."""
        if self.quantizer not in QUANTIZERS:
            raise ValueError(f"VQGANConfig.quantizer must be one of {', '.join(QUANTIZERS)}, got {self.quantizer!r}.")


__all__ = ["VQGANConfig"]
