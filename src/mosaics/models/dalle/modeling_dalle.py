r"""The transformer of DALL-E: one autoregressive model over a stream of text tokens and then image tokens.

*Zero-Shot Text-to-Image Generation*, Ramesh et al. 2021 (https://arxiv.org/abs/2102.12092), section 2.2 and appendix
B. The stream has T = `max_text_length` text positions, padded on the right, and W x W image positions in raster order.
There is no start token: the hidden state at the last text position predicts the first image token. Text and image have
embeddings and heads of their own, so that no logits are ever computed for tokens that cannot occur.
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.utils.output_capturing import capture_outputs

from mosaics.models.dalle.attention_patterns import PatternMasks
from mosaics.models.dalle.configuration_dalle import DalleTransformerConfig
from mosaics.models.dalle.decoder import Decoder
from mosaics.models.dalle.layers import DalleAttention, DalleLayer, ImageEmbedding, ResidualProjection, TextEmbedding
from mosaics.models.dalle.prior import DalleTransformerOutput, TextToImagePrior


class DalleTransformer(TextToImagePrior):
    r"""The DALL-E prior: p(text) p(image tokens | text), trained with `forward` and sampled with `generate`.

    Example:
    ```python
    >>> import torch
    >>> from mosaics.models.dalle import DalleTransformer, DalleTransformerConfig

    >>> config = DalleTransformerConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, text_vocab_size=50,
    ...     max_text_length=8, image_vocab_size=16, image_grid_size=4)
    >>> model = DalleTransformer(config).eval()
    >>> model.generate(torch.tensor([[5, 7, 3, 0, 0, 0, 0, 0]]), num_candidates=3, seed=0).shape
    torch.Size([3, 4, 4])

    ```
    """

    config: DalleTransformerConfig
    config_class = DalleTransformerConfig
    input_modalities = ["text", "image"]  # noqa: RUF012 (the form transformers expects)
    decoder_class = Decoder
    _no_split_modules = ["DalleLayer"]  # noqa: RUF012 (the form transformers expects)
    _supports_sdpa = True
    _supports_flex_attn = True
    _can_record_outputs = {"hidden_states": DalleLayer, "attentions": DalleAttention}  # noqa: RUF012 (as above)

    def __init__(self, config: DalleTransformerConfig):
        super().__init__(config)
        self.text_embedding = TextEmbedding(config)
        self.image_embedding = ImageEmbedding(config)
        self.embedding_dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList([DalleLayer(config, index) for index in range(config.num_hidden_layers)])
        self.final_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        head_norm = nn.LayerNorm if config.head_norm else nn.Identity
        self.head_norm = head_norm(config.hidden_size, eps=config.layer_norm_eps)
        self.text_head = nn.Linear(config.hidden_size, config.text_vocab_size, bias=config.head_bias)
        self.image_head = nn.Linear(config.hidden_size, config.image_vocab_size, bias=config.head_bias)
        self.masks = PatternMasks(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ResidualProjection):
            std = self.config.initializer_range / (2 * self.config.num_hidden_layers) ** 0.5
            init.normal_(module.weight, mean=0.0, std=std)
        elif isinstance(module, PatternMasks):
            for pattern, table in module.named_buffers():
                init.copy_(table, module.table(pattern))

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of the text tokens."""
        return self.text_embedding.tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the embedding of the text tokens."""
        self.text_embedding.tokens = value

    def attention_masks(self, length: int, device: torch.device) -> dict:
        """For each pattern the mask of the first `length` positions, as the attention implementation takes it."""
        implementation = self.config._attn_implementation
        if implementation == "flex_attention":
            from torch.nn.attention.flex_attention import create_block_mask

            return {
                pattern: create_block_mask(
                    self.masks.mask_function(pattern), None, None, length, length, device=str(device)
                )
                for pattern in self.masks.patterns
            }
        masks = {pattern: self.masks(pattern, length) for pattern in self.masks.patterns}
        if implementation != "eager":
            return masks
        causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        return {
            pattern: torch.zeros(length, length, device=device).masked_fill(
                ~(causal if mask is None else mask), float("-inf")
            )
            for pattern, mask in masks.items()
        }

    def hidden_states(self, input_ids: torch.Tensor, image_tokens: torch.Tensor) -> torch.Tensor:
        """(B, T) text and (B, N) image tokens to the (B, T + N, hidden_size) states before the heads."""
        hidden_states = torch.cat([self.text_embedding(input_ids), self.image_embedding(image_tokens)], dim=1)
        hidden_states = self.embedding_dropout(hidden_states)
        masks = self.attention_masks(hidden_states.shape[1], hidden_states.device)
        for layer in self.layers:
            hidden_states = layer(hidden_states, masks[layer.attention.pattern])
        return self.head_norm(self.final_norm(hidden_states))

    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor,
        indices: torch.Tensor,
        num_text_targets: torch.Tensor | float | None = None,
        *,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> DalleTransformerOutput:
        r"""The loss of a batch of captioned images, all positions at once.

        Args:
            input_ids: Text tokens (B, T), padded on the right with `config.pad_token_id` to T =
                `config.max_text_length`.
            indices: Codes of the image tokenizer (B, W, W).
            num_text_targets: What the summed text cross-entropy is divided by; the text tokens to predict in this
                batch if not given. With several processes or accumulation steps, their mean number makes the average
                of the losses equal to the loss of the whole batch.
            output_hidden_states: Return the hidden states too; `capture_outputs` collects them.
            output_attentions: Return the attention weights too, which only eager attention has.

        Returns:
            [`DalleTransformerOutput`].
        """
        self._check_text(input_ids)
        self._check_indices(indices, len(input_ids))
        text_length = self.config.max_text_length
        image_tokens = indices.flatten(start_dim=1)
        states = self.hidden_states(input_ids, image_tokens[:, :-1])  # the last image token has nothing to predict

        text_logits = self.text_head(states[:, : text_length - 1])
        image_logits = self.image_head(states[:, text_length - 1 :])
        text_targets = input_ids[:, 1:].masked_fill(input_ids[:, 1:] == self.config.pad_token_id, -100)
        text_loss = F.cross_entropy(text_logits.float().flatten(end_dim=1), text_targets.flatten(), reduction="sum")
        if num_text_targets is None:
            num_text_targets = (text_targets != -100).sum().clamp(min=1)
        text_loss = text_loss / num_text_targets
        image_loss = F.cross_entropy(image_logits.float().flatten(end_dim=1), image_tokens.flatten())
        return DalleTransformerOutput(
            loss=self.config.text_loss_weight * text_loss + self.config.image_loss_weight * image_loss,
            text_loss=text_loss,
            image_loss=image_loss,
            text_logits=text_logits,
            image_logits=image_logits,
        )
