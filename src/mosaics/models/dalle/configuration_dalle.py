"""Configuration of the DALL-E transformer."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from mosaics.models.dalle.attention_patterns import ATTENTION_PATTERNS, paper_patterns

MAX_GRID_SIZE = 256
IMAGE_POSITIONS = ("axial", "learned")


@strict
class DalleTransformerConfig(PreTrainedConfig):
    r"""Configuration of a [`DalleTransformer`], the prior of DALL-E over one stream of text then image tokens.

    The sequence and the vocabularies are those of the paper (https://arxiv.org/abs/2102.12092): 256 text tokens of
    16,384 and 32 x 32 image tokens of 8,192. The network is small by default: 8 layers of 512 units. The
    12-billion-parameter model of the paper is `hidden_size=3968, num_hidden_layers=64, num_attention_heads=62`.

    Args:
        hidden_size (`int`, defaults to 512): Units of the residual stream; a multiple of `num_attention_heads`.
        num_hidden_layers (`int`, defaults to 8): Layers.
        num_attention_heads (`int`, defaults to 8): Heads of each layer.
        intermediate_size (`int`, *optional*): Units of the feed-forward layers; `4 * hidden_size` if not given.
        text_vocab_size (`int`, defaults to 16384): Text tokens, the pad token included.
        max_text_length (`int`, defaults to 256): Text positions T. Shorter texts are padded on the right.
        pad_token_id (`int`, defaults to 0): The text token that stands for "nothing here".
        image_vocab_size (`int`, defaults to 8192): Image tokens: the codebook size K of the image tokenizer.
        image_grid_size (`int`, defaults to 32): Rows, and columns, of the square grid of image tokens.
        attention_patterns (`list[str]`, *optional*): For each layer `"row"`, `"column"`, `"conv"`, `"full"`,
            `"window"` or `"torus"`; the rule of the paper if not given. See `mosaics.models.dalle.attention_patterns`.
        conv_kernel_size (`int`, defaults to 11): Side of the neighbourhood of `"conv"`, `"window"` and `"torus"`
            layers; odd.
        shifted_patterns (`bool`, defaults to `False`): The patterns take the last text token for the first token of
            the picture, so that an image token has the pattern of the position after its own, as in ruDALL-E 2.
        image_positions (`str`, defaults to `"axial"`): How a position of the grid is embedded: `"axial"`, the vector
            of its row plus that of its column, as in the paper, or `"learned"`, a vector of its own.
        qk_norm (`bool`, defaults to `True`): Normalise queries and keys per head (Henry et al. 2020), which bounds the
            attention scores in half precision. Weights converted from models without it set it to `False`.
        sandwich_norm (`bool`, defaults to `False`): Normalise also what each residual branch adds (CogView,
            https://arxiv.org/abs/2105.13290, section 2.4).
        head_norm (`bool`, defaults to `False`): A second norm between the final one and the heads, as in ruDALL-E.
        head_bias (`bool`, defaults to `False`): Biases of the heads.
        hidden_act (`str`, defaults to `"gelu"`): Activation of the feed-forward layers.
        hidden_dropout (`float`, defaults to 0.0): Dropout of the embeddings and of each residual branch.
        attention_dropout (`float`, defaults to 0.0): Dropout of the attention weights.
        text_loss_weight (`float`, defaults to 1/8): Weight of the text cross-entropy in the loss.
        image_loss_weight (`float`, defaults to 7/8): Weight of the image cross-entropy in the loss.
        layer_norm_eps (`float`, defaults to 1e-5): Added to the variance in every norm.
        initializer_range (`float`, defaults to 0.02): Standard deviation of the initial weights.
        codebook_id (`str`, *optional*): Identity of the image tokenizer whose codes the model was trained on.
    """

    model_type = "mosaics_dalle"

    hidden_size: int = 512
    num_hidden_layers: int = 8
    num_attention_heads: int = 8
    intermediate_size: int | None = None
    text_vocab_size: int = 16384
    max_text_length: int = 256
    pad_token_id: int = 0
    image_vocab_size: int = 8192
    image_grid_size: int = 32
    attention_patterns: list[str] | None = None
    conv_kernel_size: int = 11
    shifted_patterns: bool = False
    image_positions: str = "axial"
    qk_norm: bool = True
    sandwich_norm: bool = False
    head_norm: bool = False
    head_bias: bool = False
    hidden_act: str = "gelu"
    hidden_dropout: float | int = 0.0
    attention_dropout: float | int = 0.0
    text_loss_weight: float | int = 1 / 8
    image_loss_weight: float | int = 7 / 8
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    codebook_id: str | None = None

    @property
    def num_image_tokens(self) -> int:
        """Image positions of the stream."""
        return self.image_grid_size**2

    @property
    def text_length(self) -> int:
        """Positions before the image: the text."""
        return self.max_text_length

    @property
    def pattern_start(self) -> int:
        """The stream position that the attention patterns take for the first of the picture."""
        return self.max_text_length - int(self.shifted_patterns)

    @property
    def sequence_length(self) -> int:
        """Positions of the stream: text, then image."""
        return self.max_text_length + self.num_image_tokens

    @property
    def feed_forward_size(self) -> int:
        """Units of the feed-forward layers, the default resolved."""
        return 4 * self.hidden_size if self.intermediate_size is None else self.intermediate_size

    @property
    def head_size(self) -> int:
        """Units of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def layer_patterns(self) -> tuple[str, ...]:
        """The attention pattern of each layer, the default resolved."""
        if self.attention_patterns is None:
            return paper_patterns(self.num_hidden_layers)
        return tuple(self.attention_patterns)

    def validate_sizes(self):
        """Every size is positive and the heads divide the units."""
        for name in (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "text_vocab_size",
            "max_text_length",
            "image_vocab_size",
            "image_grid_size",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.intermediate_size is not None and self.intermediate_size < 1:
            raise ValueError(
                f"intermediate_size must be at least 1, or None for 4 * hidden_size, got {self.intermediate_size}."
            )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_attention_heads, got {self.hidden_size} and "
                f"{self.num_attention_heads}."
            )
        if self.image_grid_size > MAX_GRID_SIZE:
            raise ValueError(f"image_grid_size must be at most {MAX_GRID_SIZE}, got {self.image_grid_size}.")
        if not 0 <= self.pad_token_id < self.text_vocab_size:
            raise ValueError(
                f"pad_token_id must be a text token, 0 to text_vocab_size - 1 = {self.text_vocab_size - 1}, "
                f"got {self.pad_token_id}."
            )

    def validate_patterns(self):
        """One known pattern for each layer, and an odd convolution."""
        if self.conv_kernel_size < 1 or self.conv_kernel_size % 2 == 0:
            raise ValueError(f"conv_kernel_size must be odd and at least 1, got {self.conv_kernel_size}.")
        if self.shifted_patterns and self.max_text_length < 2:
            raise ValueError(
                "shifted_patterns takes the last of at least 2 text tokens for an image token, got "
                f"max_text_length={self.max_text_length}."
            )
        if self.attention_patterns is None:
            return
        for pattern in self.attention_patterns:
            if pattern not in ATTENTION_PATTERNS:
                raise ValueError(f"attention_patterns must be of {', '.join(ATTENTION_PATTERNS)}, got {pattern!r}.")
        if len(self.attention_patterns) != self.num_hidden_layers:
            raise ValueError(
                f"attention_patterns must name one pattern for each of the {self.num_hidden_layers} layers "
                f"(num_hidden_layers), got {len(self.attention_patterns)}."
            )

    def validate_positions(self):
        """The embedding of image positions is a known one."""
        if self.image_positions not in IMAGE_POSITIONS:
            raise ValueError(
                f"image_positions must be one of {', '.join(IMAGE_POSITIONS)}, got {self.image_positions!r}."
            )

    def validate_rates(self):
        """Dropout rates are below 1 and loss weights not negative."""
        for name in ("hidden_dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}.")
        for name in ("text_loss_weight", "image_loss_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a finite number of at least 0, got {getattr(self, name)}.")
