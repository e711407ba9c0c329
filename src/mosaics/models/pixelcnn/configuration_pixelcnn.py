"""Configuration of the gated PixelCNN."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class PixelCNNConfig(PreTrainedConfig):
    r"""Configuration of a [`PixelCNN`], the prior of VQ-VAE and VQ-VAE-2 over grids of codes.

    By default 20 layers of 384 units with 5 x 5 kernels, as the gated PixelCNN that van den Oord et al.
    (https://arxiv.org/abs/1606.05328) trained on ImageNet; the first kernel is 7 x 7, as in the PixelCNN before it
    (https://arxiv.org/abs/1601.06759). The top prior of VQ-VAE-2 (https://arxiv.org/abs/1906.00446) has 512 units,
    `num_classes`, and attention after every fifth layer, `num_attention_layers=4`; its bottom prior has no attention,
    and the top codes as a condition: `condition_num_embeddings=[512], condition_factors=[2]`.

    Args:
        num_embeddings (`int`, defaults to 512): Size K of the codebook.
        grid_height (`int`, defaults to 32): Rows of the grids of training. Without attention any grid can be drawn.
        grid_width (`int`, defaults to 32): Columns of the grids of training.
        latents_per_position (`int`, defaults to 1): Codes L at each position, from one codebook, as in the CIFAR-10
            set-up of the VQ-VAE; each depends on those before it at its position too.
        hidden_size (`int`, defaults to 384): Channels of both stacks.
        num_layers (`int`, defaults to 20): Gated layers, the first one with mask A.
        first_kernel_size (`int`, defaults to 7): Kernel of the first layer; odd.
        kernel_size (`int`, defaults to 5): Kernel of the layers after it; odd.
        num_attention_layers (`int`, defaults to 0): Layers that end with causal self-attention over the whole grid,
            spread evenly, the last layer among them. They fix the size of the grid.
        num_attention_heads (`int`, defaults to 8): Heads of the attention.
        num_output_layers (`int`, defaults to 1): Residual 1 x 1 layers before the logits.
        num_classes (`int`, *optional*): Classes to condition on; none if not given.
        condition_num_embeddings (`list[int]`, *optional*): For every upper grid to condition on, top first, the size
            of its codebook.
        condition_factors (`list[int]`, *optional*): For every upper grid, how many times larger in each direction the
            grid of this model is; a power of 2.
        num_conditioning_blocks (`int`, defaults to 4): Residual blocks on each upper grid (20 in VQ-VAE-2).
        dropout (`float`, defaults to 0.0): Dropout in the residual branches.
        layer_norm_eps (`float`, defaults to 1e-5): Added to the variance in the norms of attention.
        initializer_range (`float`, defaults to 0.02): Standard deviation of the initial weights of class and position
            embeddings and of the logits; all others keep the variance of what passes.
        codebook_id (`str`, *optional*): Identity of the tokenizer whose codes the model was trained on.
    """

    model_type = "mosaics_pixelcnn"

    num_embeddings: int = 512
    grid_height: int = 32
    grid_width: int = 32
    latents_per_position: int = 1
    hidden_size: int = 384
    num_layers: int = 20
    first_kernel_size: int = 7
    kernel_size: int = 5
    num_attention_layers: int = 0
    num_attention_heads: int = 8
    num_output_layers: int = 1
    num_classes: int | None = None
    condition_num_embeddings: list[int] | None = None
    condition_factors: list[int] | None = None
    num_conditioning_blocks: int = 4
    dropout: float | int = 0.0
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    codebook_id: str | None = None

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns (h, w) of the grids of training."""
        return self.grid_height, self.grid_width

    @property
    def latent_axes(self) -> tuple[int, ...]:
        """What the shape of codes has after (h, w): (L,), or nothing for one code at each position."""
        return (self.latents_per_position,) if self.latents_per_position > 1 else ()

    @property
    def head_size(self) -> int:
        """Units of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def attention_layers(self) -> frozenset[int]:
        """Numbers, from 0, of the layers that end with attention."""
        count = self.num_attention_layers
        return frozenset((order + 1) * self.num_layers // count - 1 for order in range(count))

    @property
    def upper_grids(self) -> tuple[tuple[int, int], ...]:
        """(codebook size, factor) of every upper grid, top first."""
        return tuple(zip(self.condition_num_embeddings or (), self.condition_factors or (), strict=True))

    def validate_sizes(self):
        """Every size is in its range."""
        at_least_one = (
            "num_embeddings",
            "grid_height",
            "grid_width",
            "latents_per_position",
            "hidden_size",
            "num_layers",
        )
        for name in at_least_one:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("num_output_layers", "num_conditioning_blocks"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}.")
        if self.num_classes is not None and self.num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, or None for no classes, got {self.num_classes}.")
        for name, least in (("first_kernel_size", 3), ("kernel_size", 1)):
            if getattr(self, name) % 2 == 0 or getattr(self, name) < least:
                raise ValueError(f"{name} must be odd and at least {least}, got {getattr(self, name)}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}.")

    def validate_attention(self):
        """Attention fits the layers and the units."""
        if not 0 <= self.num_attention_layers <= self.num_layers:
            raise ValueError(
                f"num_attention_layers must be from 0 to num_layers = {self.num_layers}, got "
                f"{self.num_attention_layers}."
            )
        if self.num_attention_heads < 1 or (self.num_attention_layers and self.hidden_size % self.num_attention_heads):
            raise ValueError(
                f"hidden_size must be a multiple of num_attention_heads, got {self.hidden_size} and "
                f"{self.num_attention_heads}."
            )

    def validate_conditions(self):
        """Every upper grid has a codebook and a factor."""
        sizes, factors = self.condition_num_embeddings or (), self.condition_factors or ()
        if len(sizes) != len(factors):
            raise ValueError(
                "condition_num_embeddings and condition_factors must have one entry for every upper grid, got "
                f"{len(sizes)} and {len(factors)}."
            )
        if any(size < 1 for size in sizes):
            raise ValueError(f"condition_num_embeddings must be at least 1, got {list(sizes)}.")
        if any(factor < 1 or factor & (factor - 1) for factor in factors):
            raise ValueError(f"condition_factors must be powers of 2, got {list(factors)}.")
        if any(side % factor for side in self.grid_size for factor in factors):
            raise ValueError(
                f"condition_factors must divide the grid of {self.grid_height} x {self.grid_width}, got "
                f"{list(factors)}."
            )
