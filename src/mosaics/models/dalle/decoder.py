r"""The DALL-E transformer one image token at a time: what `generate` runs instead of `forward`.

The text is computed once a prompt, and its keys and values are held once for all candidates of the prompt, which read
them in one matrix product. The image tokens' are kept in caches of the size each attention pattern needs. Both parts
are joined in one softmax, so that the logits are those of `forward`, up to rounding.

On the CPU in float32 the results of a candidate do not depend, to the last bit, on the candidates beside it: matrix
products run through kernels that treat every row alike whatever their number, once there are at least [`MIN_ROWS`].
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from mosaics.layers.inference import MIN_ROWS, InferenceLinear
from mosaics.models.dalle.attention_patterns import may_attend
from mosaics.models.dalle.caches import CACHES, PatternCache

if TYPE_CHECKING:
    from mosaics.models.dalle.prior import TextToImagePrior


def packed(linear: nn.Linear) -> InferenceLinear:
    """A linear layer made ready for inference."""
    return InferenceLinear(linear.weight, linear.bias)


class DecoderLayer:
    """One layer, its keys and values of the text, and its cache.

    Args:
        layer: The layer.
        dtype: What keys and values are kept in.
        shift: How many text tokens, the last ones, its pattern takes for the first of the picture. They are cached
            like image tokens, so that an image token is cached that many positions later.
    """

    def __init__(self, layer: nn.Module, dtype: torch.dtype, shift: int = 0):
        self.layer = layer
        self.attention = layer.attention
        self.dtype = dtype
        self.shift = shift
        self.qkv = packed(layer.attention.qkv)
        self.output = packed(layer.attention.output)
        self.up = packed(layer.feed_forward.up)
        self.down = packed(layer.feed_forward.down)
        self.text_keys: torch.Tensor | None = None  # (G, heads, T - shift, head_size)
        self.text_values: torch.Tensor | None = None
        self.shifted_keys: torch.Tensor | None = None  # (G, heads, shift, head_size), None without a shift
        self.shifted_values: torch.Tensor | None = None
        self.cache: PatternCache | None = None

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

    def allocate(self, cache: PatternCache) -> None:
        """Takes an empty cache, and puts the text tokens into it that count as image tokens."""
        self.cache = cache
        if self.shift:
            cache.fill(self.shifted_keys[:, :, None], self.shifted_values[:, :, None])

    def select_texts(self, texts: torch.Tensor) -> None:
        """Makes group g read the text `texts[g]` of those computed."""
        self.text_keys, self.text_values = self.text_keys[texts], self.text_values[texts]
        if self.shift:
            self.shifted_keys, self.shifted_values = self.shifted_keys[texts], self.shifted_values[texts]

    def read_text(self, hidden: torch.Tensor) -> torch.Tensor:
        """(P, T, hidden_size): causal attention of whole texts; keeps their keys and values."""
        return self._finish(hidden, self._attend_text(*(part.transpose(1, 2) for part in self._project(hidden))))

    def read_rows(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(G, C or 1, n, hidden_size): the first n image tokens at once, under a mask (n, T + n)."""
        heads = (part.transpose(2, 3) for part in self._project(hidden))
        return self._finish(hidden, self._attend_rows(*heads, mask))

    def step(self, hidden: torch.Tensor, position: int) -> torch.Tensor:
        """(G * C, hidden_size): the image token at `position` of every candidate."""
        return self._finish(hidden, self._attend_step(*self._project(hidden), position))

    def _attend_text(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Causal attention of whole texts (P, heads, T, head_size) to (P, T, inner size); keeps keys and values."""
        patterned = key.shape[2] - self.shift
        self.text_keys, self.text_values = (part[:, :, :patterned].contiguous() for part in (key, value))
        if self.shift:
            self.shifted_keys, self.shifted_values = key[:, :, patterned:], value[:, :, patterned:]
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=self.attention.scaling)
        return attended.transpose(1, 2).flatten(start_dim=2)

    def _attend_rows(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Attention of the first n image tokens (G, C or 1, heads, n, head_size) to (G, C or 1, n, inner size)."""
        groups, candidates, _, length, _ = query.shape
        if self.shift:
            key = torch.cat([self.shifted_keys[:, None].expand(-1, candidates, -1, -1, -1), key], dim=3)
            value = torch.cat([self.shifted_values[:, None].expand(-1, candidates, -1, -1, -1), value], dim=3)
        keys = torch.cat([self.text_keys[:, None].expand(-1, candidates, -1, -1, -1), key], dim=3)
        values = torch.cat([self.text_values[:, None].expand(-1, candidates, -1, -1, -1), value], dim=3)
        attended = F.scaled_dot_product_attention(
            query.flatten(end_dim=1),
            keys.flatten(end_dim=1),
            values.flatten(end_dim=1),
            attn_mask=mask,
            scale=self.attention.scaling,
        )
        self.cache.fill(key.transpose(1, 2), value.transpose(1, 2))
        return attended.transpose(1, 2).reshape(groups, candidates, length, -1)

    def _attend_step(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, position: int) -> torch.Tensor:
        """Attention of the image tokens at a position (G * C, heads, head_size) to (G * C, inner size)."""
        groups, heads, candidates, _, head_size = self.cache.keys.shape
        query, key, value = (
            part.view(groups, candidates, heads, head_size).transpose(1, 2) for part in (query, key, value)
        )
        self.cache.append(position + self.shift, key, value)
        visible = self.cache.visible(position + self.shift)
        attended = self._attend((query * self.attention.scaling).contiguous(), *visible)
        return attended.transpose(1, 2).reshape(groups * candidates, heads * head_size)

    def _attend(self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """One softmax over text and image scores: (G, heads, C, head_size) queries to attended values."""
        groups, heads, candidates, head_size = query.shape
        text_length = self.text_keys.shape[2]
        text_query = query
        if candidates < MIN_ROWS:
            text_query = F.pad(query, (0, 0, 0, MIN_ROWS - candidates))
        text_scores = (text_query @ self.text_keys.transpose(-1, -2))[:, :, :candidates]
        rows = query.view(-1, 1, head_size)
        image_scores = torch.bmm(rows, keys.flatten(end_dim=2).transpose(1, 2)).view(groups, heads, candidates, -1)
        scores = torch.cat([text_scores, image_scores], dim=-1)
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(self.dtype)
        text_weights = weights[..., :text_length]
        if candidates < MIN_ROWS:
            text_weights = F.pad(text_weights, (0, 0, 0, MIN_ROWS - candidates))
        attended = (text_weights @ self.text_values)[:, :, :candidates]
        image_weights = weights[..., text_length:].flatten(end_dim=2)[:, None]
        return attended + torch.bmm(image_weights, values.flatten(end_dim=2)).view(query.shape)


class Decoder:
    """The transformer while it draws: weights made ready once, then any number of texts and batches of candidates."""

    caches: Mapping[str, type[PatternCache]] = CACHES

    def __init__(self, model: "TextToImagePrior"):
        self.model = model
        self.config = model.config
        weight = model.image_head.weight
        self.device = weight.device
        # Attention in half precision is slower than in float32 on CPUs, and the caches are small.
        self.dtype = torch.float32 if weight.device.type == "cpu" else weight.dtype
        self.layers = self._make_layers()
        self.image_head = packed(model.image_head)
        self.position_table = self._position_table()

    def _make_layers(self) -> list[DecoderLayer]:
        shift = self.config.text_length - self.config.pattern_start
        return [DecoderLayer(layer, self.dtype, shift) for layer in self.model.layers]

    def _position_table(self) -> torch.Tensor | None:
        return self.model.image_embedding.position_table()

    def _masks(self, query: torch.Tensor, key: torch.Tensor) -> dict[str, torch.Tensor]:
        """For each pattern, whether the tokens at stream positions `query` see those at `key`."""
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

    def _row_masks(self, length: int) -> dict[str, torch.Tensor]:
        """Masks (length, text_length + length) of the first image tokens."""
        text_length = self.config.text_length
        stream = torch.arange(text_length + length, device=self.device)
        return self._masks(stream[text_length:, None], stream[None, :])

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(rows, hidden_size) to image logits (rows, image_vocab_size) in float32."""
        return self.image_head(self.model.head_norm(self.model.final_norm(hidden))).float()

    def read_text(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Computes texts (P, T) once. Returns the states (P, hidden_size) that predict the first image token."""
        hidden = self.model.text_embedding(input_ids)
        for layer in self.layers:
            hidden = layer.read_text(hidden)
        return hidden[:, -1]

    def select_texts(self, texts: torch.Tensor) -> None:
        """Makes group g read the text `texts[g]` of those computed, so that groups may share one."""
        for layer in self.layers:
            layer.select_texts(texts)

    def allocate(self, candidates: int) -> None:
        """Empty caches for `candidates` candidates of each group."""
        for layer in self.layers:
            cache = self.caches[layer.attention.pattern]
            layer.allocate(cache(self.config, len(layer.text_keys), candidates, dtype=self.dtype, device=self.device))

    def read_rows(self, tokens: torch.Tensor) -> torch.Tensor:
        """Computes the given first image tokens (G, C or 1, n); returns the last states (G, C or 1, hidden_size)."""
        length = tokens.shape[2]
        masks = self._row_masks(length)
        hidden = self.model.image_embedding.tokens(tokens) + self.position_table[:length]
        for layer in self.layers:
            hidden = layer.read_rows(hidden, masks[layer.attention.pattern])
        return hidden[:, :, -1]

    def step(self, tokens: torch.Tensor, position: int) -> torch.Tensor:
        """Computes the tokens (G * C,) drawn at `position`; returns the states (G * C, hidden_size) for the next."""
        hidden = self.model.image_embedding.tokens(tokens) + self.position_table[position]
        for layer in self.layers:
            hidden = layer.step(hidden, position)
        return hidden
