"""Configuration of the discrete VAE."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class DiscreteVAEConfig(PreTrainedConfig):
    r"""Configuration of a [`DiscreteVAE`].

    The defaults are the architecture of *Zero-Shot Text-to-Image Generation* (https://arxiv.org/abs/2102.12092),
    Appendix A.1, as published by OpenAI: 53,786,240 encoder and 43,829,766 decoder parameters, 256x256 pixels to
    32x32 codes.

    Args:
        image_size (`int`, defaults to 256): Side of the square pictures the model is meant for, in pixels.
        num_channels (`int`, defaults to 3): Colour channels.
        num_embeddings (`int`, defaults to 8192): Number of codes K.
        codebook_dim (`int`, defaults to 128): Size of a code vector, the decoder's first width.
        hidden_size (`int`, defaults to 256): Width at full resolution; it doubles with every halving.
        num_groups (`int`, defaults to 4): Resolutions; the picture is halved `num_groups - 1` times.
        blocks_per_group (`int`, defaults to 2): Residual blocks at each resolution.
        bottleneck_ratio (`int`, defaults to 4): A residual block works at its output width divided by this.
        stem_kernel_size (`int`, defaults to 7): Kernel of the encoder's first convolution.
        patch_size (`int`, defaults to 1): Pixels are folded into channels by this factor before the encoder and
            unfolded after the decoder; 1 is the paper, 2 or 4 skip the costly full resolution for small models.
        residual_gain (`float`, *optional*): Factor of every residual path; the paper's 1 / n_layers^2 if not given,
            n_layers the number of residual blocks.
        min_log_scale (`float`, *optional*): Lower bound of ln b of the likelihood, unbounded in the paper. Flat
            backgrounds have an unbounded density, which then outweighs everything else in the picture: -1.5 (about 17
            of 255 grey levels in mid-tones) keeps the loss on the objects of drawn pictures.
        pixel_epsilon (`float`, defaults to 0.1): Margin of the pixel map of the logit-Laplace likelihood.
        identity_start (`bool`, defaults to `False`): Initialise the main path as the identity and every residual path
            as zero (Zhang et al. 2019, https://arxiv.org/abs/1901.09321), so that the encoder's features are the
            pixels of a patch and a code vector is decoded as one. With codes started by k-means a model without
            pooling begins as a codebook of patches and only gets better from there; from random weights it needs
            thousands of steps to come that far.
    """

    model_type = "mosaics_dvae"
    image_size: int = 256
    num_channels: int = 3
    num_embeddings: int = 8192
    codebook_dim: int = 128
    hidden_size: int = 256
    num_groups: int = 4
    blocks_per_group: int = 2
    bottleneck_ratio: int = 4
    stem_kernel_size: int = 7
    patch_size: int = 1
    residual_gain: float | int | None = None
    min_log_scale: float | int | None = None
    pixel_epsilon: float | int = 0.1
    identity_start: bool = False

    @property
    def downsample_factor(self) -> int:
        """Pixels along one side of a code's cell."""
        return self.patch_size * 2 ** (self.num_groups - 1)

    @property
    def grid_size(self) -> int:
        """Codes along one side of the grid of an `image_size` picture."""
        return self.image_size // self.downsample_factor

    @property
    def post_gain(self) -> float:
        """The factor of every residual path."""
        if self.residual_gain is not None:
            return float(self.residual_gain)
        return 1 / (self.num_groups * self.blocks_per_group) ** 2

    def validate_sizes(self):
        """Every size is a positive integer; called by the strict dataclass."""
        for name in (
            "image_size",
            "num_channels",
            "num_embeddings",
            "codebook_dim",
            "hidden_size",
            "num_groups",
            "blocks_per_group",
            "bottleneck_ratio",
            "stem_kernel_size",
            "patch_size",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"DiscreteVAEConfig.{name} must be at least 1, got {getattr(self, name)}.")
        if self.num_embeddings < 2:
            raise ValueError(f"DiscreteVAEConfig.num_embeddings must be at least 2, got {self.num_embeddings}.")
        if self.stem_kernel_size % 2 == 0:
            raise ValueError(f"DiscreteVAEConfig.stem_kernel_size must be odd, got {self.stem_kernel_size}.")
        if not 0 < self.pixel_epsilon < 0.5:
            raise ValueError(f"DiscreteVAEConfig.pixel_epsilon must be in (0, 0.5), got {self.pixel_epsilon}.")

    def validate_divisibility(self):
        """Pictures divide into code cells, widths into bottlenecks; called by the strict dataclass."""
        if self.image_size % self.downsample_factor:
            raise ValueError(
                f"DiscreteVAEConfig.image_size must be divisible by patch_size * 2**(num_groups - 1) = "
                f"{self.downsample_factor}, got {self.image_size}."
            )
        if self.hidden_size % self.bottleneck_ratio:
            raise ValueError(
                f"DiscreteVAEConfig.hidden_size must be divisible by bottleneck_ratio = {self.bottleneck_ratio}, "
                f"got {self.hidden_size}."
            )

    def validate_identity_start(self):
        """The main path is wide enough for the pixels of a patch; called by the strict dataclass."""
        needed = self.num_channels * self.patch_size**2
        if self.identity_start and min(self.hidden_size, self.codebook_dim) < needed:
            raise ValueError(
                f"DiscreteVAEConfig.identity_start needs hidden_size and codebook_dim of at least num_channels * "
                f"patch_size**2 = {needed}, got {self.hidden_size} and {self.codebook_dim}."
            )


__all__ = ["DiscreteVAEConfig"]
