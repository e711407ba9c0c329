r"""The DALL-E transformer one image token at a time: what `generate` runs instead of `forward`."""

from typing import TYPE_CHECKING

import torch

from mosaics.models.dalle.attention_patterns import may_attend
from mosaics.models.dalle.prior_decoder import PriorDecoder, PriorDecoderLayer, packed

if TYPE_CHECKING:
    from mosaics.models.dalle.layers import DalleLayer
    from mosaics.models.dalle.modeling_dalle import DalleTransformer


class DecoderLayer(PriorDecoderLayer):
    """One layer, its keys and values of the text, and its cache.

    Args:
        layer: The layer.
        dtype: As of [`PriorDecoderLayer`].
        shift: As of [`PriorDecoderLayer`].
    """

    def __init__(self, layer: "DalleLayer", dtype: torch.dtype, shift: int):
        super().__init__(layer.attention.pattern, layer.attention.scaling, dtype, shift)
        self.layer = layer
        self.attention = layer.attention
        self.qkv = packed(layer.attention.qkv)
        self.output = packed(layer.attention.output)
        self.up = packed(layer.feed_forward.up)
        self.down = packed(layer.feed_forward.down)

    def _project(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(..., hidden_size) to queries, keys and values (..., heads, head_size)."""
        config = self.attention.config
        qkv = self.qkv(self.layer.attention_norm(hidden))
        qkv = qkv.view(*hidden.shape[:-1], 3, config.num_attention_heads, config.head_size)
        query, key, value = qkv.unbind(dim=-3)
        query, key = self.attention.query_norm(query), self.attention.key_norm(key)
        return query.to(self.dtype), key.to(self.dtype), value.to(self.dtype)

    def _finish(self, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """The residual branches after attention."""
        hidden = hidden + self.layer.attention_output_norm(self.output(attended.to(hidden.dtype)))
        inner = self.layer.feed_forward.activation(self.up(self.layer.feed_forward_norm(hidden)))
        return hidden + self.layer.feed_forward_output_norm(self.down(inner))

    def read_text(self, hidden: torch.Tensor) -> torch.Tensor:
        """(P, T, hidden_size): causal attention of whole texts; keeps their keys and values."""
        query, key, value = (part.transpose(1, 2) for part in self._project(hidden))
        return self._finish(hidden, self._attend_text(query, key, value))

    def read_rows(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(G, C or 1, n, hidden_size): the first n image tokens at once, under a mask (n, T + n)."""
        query, key, value = (part.transpose(2, 3) for part in self._project(hidden))
        return self._finish(hidden, self._attend_rows(query, key, value, mask))

    def step(self, hidden: torch.Tensor, position: int) -> torch.Tensor:
        """(G * C, hidden_size): the image token at `position` of every candidate."""
        return self._finish(hidden, self._attend_step(*self._project(hidden), position))


class Decoder(PriorDecoder):
    """The DALL-E transformer while it draws."""

    layers: list[DecoderLayer]

    def __init__(self, model: "DalleTransformer"):
        super().__init__(model)
        self.model = model
        shift = model.config.text_length - model.config.pattern_start
        self.layers = [DecoderLayer(layer, self.dtype, shift) for layer in model.layers]
        self.position_table = model.image_embedding.position_table()

    def _masks(self, query: torch.Tensor, key: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            pattern: may_attend(
                pattern,
                query,
                key,
                text_length=self.config.pattern_start,
                grid_size=self.config.image_grid_size,
                kernel_size=self.config.conv_kernel_size,
            )
            for pattern in set(self.config.layer_patterns)
        }

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(rows, hidden_size) to image logits (rows, image_vocab_size) in float32."""
        return self.image_head(self.model.head_norm(self.model.final_norm(hidden))).float()

    def read_text(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Computes texts (P, T) once. Returns the states (P, hidden_size) that predict the first image token."""
        hidden = self.model.text_embedding(input_ids)
        for layer in self.layers:
            hidden = layer.read_text(hidden)
        return hidden[:, -1]

    def read_rows(self, tokens: torch.Tensor) -> torch.Tensor:
        """Computes the given first image tokens (G, C or 1, n); returns the last states (G, C or 1, hidden_size)."""
        length = tokens.shape[2]
        masks = self._row_masks(length)
        hidden = self.model.image_embedding.tokens(tokens) + self.position_table[:length]
        for layer in self.layers:
            hidden = layer.read_rows(hidden, masks[layer.pattern])
        return hidden[:, :, -1]

    def step(self, tokens: torch.Tensor, position: int) -> torch.Tensor:
        """Computes the tokens (G * C,) drawn at `position`; returns the states (G * C, hidden_size) for the next."""
        hidden = self.model.image_embedding.tokens(tokens) + self.position_table[position]
        for layer in self.layers:
            hidden = layer.step(hidden, position)
        return hidden
