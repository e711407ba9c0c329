"""Configuration of the transformer of DALLE-pytorch."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from mosaics.models.dalle.dalle_pytorch.attention_types import ATTENTION_TYPES


@strict
class DallePytorchTransformerConfig(PreTrainedConfig):
    r"""Configuration of a [`DallePytorchTransformer`].

    The defaults are those of the project (https://github.com/lucidrains/DALLE-pytorch, versions 1.5 to 1.6).

    Args:
        hidden_size (`int`, defaults to 512): Units of the residual stream; a multiple of 4 if `shift_tokens`.
        num_hidden_layers (`int`, defaults to 2): Layers.
        num_attention_heads (`int`, defaults to 8): Heads of each layer.
        head_size (`int`, defaults to 64): Units of one head; heads times this need not be `hidden_size`.
        intermediate_size (`int`, *optional*): Units of the gated feed-forward layers; `4 * hidden_size` if not given.
        text_vocab_size (`int`, defaults to 10000): Text tokens, the pad token included. The model has
            `max_text_length` more, a pad of its own for each position.
        max_text_length (`int`, defaults to 256): Text positions T; a start token comes before them.
        pad_token_id (`int`, defaults to 0): The text token that stands for "nothing here".
        bos_token_id (`int`, defaults to 0): The text token whose vector is the start token's.
        image_vocab_size (`int`, defaults to 8192): Image tokens: the codebook size K of the image tokenizer.
        image_grid_size (`int`, defaults to 32): Rows, and columns, of the square grid of image tokens.
        attention_types (`list[str]`, *optional*): For each layer `"full"`, `"axial_row"`, `"axial_col"` or
            `"conv_like"`; `"full"` if not given. See `mosaics.models.dalle.dalle_pytorch.attention_types`.
        conv_kernel_size (`int`, defaults to 5): Side of the window of `"conv_like"` layers.
        rotary_size (`int`, *optional*): Channels of each head that are rotated by the position, in queries, keys and
            values: a third by the place in the text, a third by the row, a third by the column. Learned position
            vectors are added to the tokens if not given.
        shift_tokens (`bool`, defaults to `True`): Before each branch, take half of a text token's channels from the
            token before, and a quarter of an image token's from the one above and the one to the left.
        sandwich_norm (`bool`, defaults to `False`): Normalise also what each branch adds.
        reversible (`bool`, defaults to `False`): Two residual streams, one changed by attention and one by
            feed-forward; their mean is the result.
        stable (`bool`, defaults to `False`): Divide the last states by their largest channel, and let a tenth of the
            gradient reach the embeddings.
        attention_dropout (`float`, defaults to 0.0): Dropout of what attention adds.
        feed_forward_dropout (`float`, defaults to 0.0): Dropout inside of the feed-forward layers.
        image_loss_weight (`float`, defaults to 7): Weight of the image cross-entropy in the loss, that of the text
            being 1.
        layer_norm_eps (`float`, defaults to 1e-5): Added to the variance in every norm.
        initializer_range (`float`, defaults to 0.02): Standard deviation of the initial weights.
        codebook_id (`str`, *optional*): Identity of the image tokenizer whose codes the model was trained on.
    """

    model_type = "mosaics_dalle_pytorch"

    hidden_size: int = 512
    num_hidden_layers: int = 2
    num_attention_heads: int = 8
    head_size: int = 64
    intermediate_size: int | None = None
    text_vocab_size: int = 10000
    max_text_length: int = 256
    pad_token_id: int = 0
    bos_token_id: int = 0
    image_vocab_size: int = 8192
    image_grid_size: int = 32
    attention_types: list[str] | None = None
    conv_kernel_size: int = 5
    rotary_size: int | None = None
    shift_tokens: bool = True
    sandwich_norm: bool = False
    reversible: bool = False
    stable: bool = False
    attention_dropout: float | int = 0.0
    feed_forward_dropout: float | int = 0.0
    image_loss_weight: float | int = 7
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    codebook_id: str | None = None

    @property
    def num_image_tokens(self) -> int:
        """Image positions of the stream."""
        return self.image_grid_size**2

    @property
    def text_length(self) -> int:
        """Positions before the image: the start token and the text."""
        return self.max_text_length + 1

    @property
    def feed_forward_size(self) -> int:
        """Units of the feed-forward layers, the default resolved."""
        return 4 * self.hidden_size if self.intermediate_size is None else self.intermediate_size

    @property
    def layer_attention_types(self) -> tuple[str, ...]:
        """The attention type of each layer, the default resolved."""
        if self.attention_types is None:
            return ("full",) * self.num_hidden_layers
        return tuple(self.attention_types)

    @property
    def layer_patterns(self) -> tuple[str, ...]:
        """For each layer the cache of `mosaics.models.dalle.caches` that bounds the memory of its own."""
        return ("full",) * self.num_hidden_layers

    def validate_sizes(self):
        """Every size is positive, and special tokens are text tokens."""
        for name in (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "head_size",
            "text_vocab_size",
            "max_text_length",
            "image_vocab_size",
            "image_grid_size",
            "conv_kernel_size",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.intermediate_size is not None and self.intermediate_size < 1:
            raise ValueError(f"intermediate_size must be at least 1, or None, got {self.intermediate_size}.")
        for name in ("pad_token_id", "bos_token_id"):
            if not 0 <= getattr(self, name) < self.text_vocab_size:
                raise ValueError(
                    f"{name} must be a text token, 0 to text_vocab_size - 1 = {self.text_vocab_size - 1}, got "
                    f"{getattr(self, name)}."
                )
        if self.shift_tokens and self.hidden_size % 4:
            raise ValueError(f"hidden_size must be a multiple of 4 with shift_tokens, got {self.hidden_size}.")
        if self.rotary_size is not None and not (0 < self.rotary_size <= self.head_size and self.rotary_size % 6 == 0):
            raise ValueError(
                f"rotary_size must be a multiple of 6 and at most head_size={self.head_size}, got {self.rotary_size}."
            )

    def validate_types(self):
        """One known attention type for each layer."""
        for kind in self.layer_attention_types:
            if kind not in ATTENTION_TYPES:
                raise ValueError(f"attention_types must be of {', '.join(ATTENTION_TYPES)}, got {kind!r}.")
        if len(self.layer_attention_types) != self.num_hidden_layers:
            raise ValueError(
                f"attention_types must name one type for each of the {self.num_hidden_layers} layers, got "
                f"{len(self.layer_attention_types)}."
            )

    def validate_rates(self):
        """Dropout rates are below 1 and the loss weight is not negative."""
        for name in ("attention_dropout", "feed_forward_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}.")
        if not 0 <= self.image_loss_weight < float("inf"):
            raise ValueError(f"image_loss_weight must be finite and at least 0, got {self.image_loss_weight}.")


__all__ = ["DallePytorchTransformerConfig"]
