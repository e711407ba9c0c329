"""Configuration of WaveNet."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class WaveNetConfig(PreTrainedConfig):
    r"""Configuration of a [`WaveNet`], the prior of VQ-VAE over sequences of codes, such as those of audio.

    By default three stacks of dilations 1, 2, 4, ..., 512 with two taps: the arrangement of van den Oord et al.
    (https://arxiv.org/abs/1609.03499), Section 2.1. The paper gives no numbers of channels.

    Args:
        num_embeddings (`int`, defaults to 512): Size K of the codebook; 256 for mu-law samples of sound.
        hidden_size (`int`, defaults to 256): Channels of the residual path.
        skip_size (`int`, defaults to 256): Channels of the skip path.
        num_stacks (`int`, defaults to 3): Times that the dilations are repeated.
        layers_per_stack (`int`, defaults to 10): Layers with the dilations 1, 2, 4, ..., `2**(layers_per_stack - 1)`.
        kernel_size (`int`, defaults to 2): Taps of each dilated convolution, at least 2.
        num_classes (`int`, *optional*): Classes or speakers to condition on; none if not given.
        condition_num_embeddings (`int`, *optional*): Codebook size of a slower sequence of codes to condition on; none
            if not given.
        condition_factor (`int`, *optional*): Codes of this model for one code of the slower sequence.
        dropout (`float`, defaults to 0.0): Dropout after each gate.
        initializer_range (`float`, defaults to 0.02): Standard deviation of the initial weights of the class
            embeddings and of the logits; all others keep the variance of what passes.
        codebook_id (`str`, *optional*): Identity of the tokenizer whose codes the model was trained on.
    """

    model_type = "mosaics_wavenet"

    num_embeddings: int = 512
    hidden_size: int = 256
    skip_size: int = 256
    num_stacks: int = 3
    layers_per_stack: int = 10
    kernel_size: int = 2
    num_classes: int | None = None
    condition_num_embeddings: int | None = None
    condition_factor: int | None = None
    dropout: float | int = 0.0
    initializer_range: float = 0.02
    codebook_id: str | None = None

    @property
    def dilations(self) -> tuple[int, ...]:
        """The dilation of each layer."""
        return tuple(2**layer for _ in range(self.num_stacks) for layer in range(self.layers_per_stack))

    @property
    def receptive_field(self) -> int:
        """How many of the codes before it a code is predicted from."""
        return 1 + (self.kernel_size - 1) * sum(self.dilations)

    def validate_sizes(self):
        """Every size is in its range."""
        for name in ("num_embeddings", "hidden_size", "skip_size", "num_stacks", "layers_per_stack"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.kernel_size < 2:
            raise ValueError(f"kernel_size must be at least 2, got {self.kernel_size}.")
        if self.num_classes is not None and self.num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, or None for no classes, got {self.num_classes}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}.")

    def validate_condition(self):
        """The slower sequence has a codebook and a factor."""
        size, factor = self.condition_num_embeddings, self.condition_factor
        if (size is None) != (factor is None):
            raise ValueError(
                f"condition_num_embeddings and condition_factor belong together, got {size} and {factor}."
            )
        if size is not None and factor is not None and min(size, factor) < 1:
            raise ValueError(
                f"condition_num_embeddings and condition_factor must be at least 1, got {size} and {factor}."
            )
