r"""What the decoders of DALL-E's transformers have in common: attention to a text and to caches of image tokens.

The text is computed once a prompt, and its keys and values are held once for all candidates of the prompt, which read
them in one matrix product. The image tokens' are kept in caches of the size each attention pattern needs. Both parts
are joined in one softmax, so that the logits are those of `forward`, up to rounding.

On the CPU in float32 the results of a candidate do not depend, to the last bit, on the candidates beside it: matrix
products run through kernels that treat every row alike whatever their number, once there are at least [`MIN_ROWS`].
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from mosaics.layers.inference import MIN_ROWS, InferenceLinear
from mosaics.models.dalle.caches import CACHES, PatternCache

if TYPE_CHECKING:
    from mosaics.models.dalle.prior import TextToImagePrior


def packed(linear: nn.Linear) -> InferenceLinear:
    """A linear layer made ready for inference."""
    return InferenceLinear(linear.weight, linear.bias)


class PriorDecoderLayer:
    """The keys and values of the text that a layer reads, and its cache of those of the image tokens.

    Args:
        pattern: Which earlier image tokens the layer reads.
        scaling: What the products of queries and keys are multiplied by.
        dtype: What keys and values are kept in.
        shift: How many text tokens, the last ones, its pattern takes for the first of the picture. They are cached
            like image tokens, so that an image token is cached that many positions later.
    """

    # Set when texts are read:
    text_keys: torch.Tensor  # (G, heads, T - shift, head_size)
    text_values: torch.Tensor
    shifted_keys: torch.Tensor  # (G, heads, shift, head_size), only with a shift
    shifted_values: torch.Tensor
    # Set by `allocate`:
    cache: PatternCache

    def __init__(self, pattern: str, scaling: float, dtype: torch.dtype, shift: int = 0):
        self.pattern = pattern
        self.scaling = scaling
        self.dtype = dtype
        self.shift = shift

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

    def _attend_text(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Causal attention of whole texts (P, heads, T, head_size) to (P, T, inner size); keeps keys and values."""
        patterned = key.shape[2] - self.shift
        self.text_keys, self.text_values = (part[:, :, :patterned].contiguous() for part in (key, value))
        if self.shift:
            self.shifted_keys, self.shifted_values = key[:, :, patterned:], value[:, :, patterned:]
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=self.scaling)
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
            scale=self.scaling,
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
        attended = self._attend((query * self.scaling).contiguous(), *visible)
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


class PriorDecoder(ABC):
    """A transformer while it draws: weights made ready once, then any number of texts and batches of candidates."""

    caches: Mapping[str, type[PatternCache]] = CACHES
    layers: Sequence[PriorDecoderLayer]

    def __init__(self, model: "TextToImagePrior"):
        self.config = model.config
        weight = model.image_head.weight
        self.device = weight.device
        # Attention in half precision is slower than in float32 on CPUs, and the caches are small.
        self.dtype = torch.float32 if weight.device.type == "cpu" else weight.dtype
        self.image_head = packed(model.image_head)

    @abstractmethod
    def read_text(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Computes texts (P, T) once. Returns the states (P, hidden_size) that predict the first image token."""

    @abstractmethod
    def read_rows(self, tokens: torch.Tensor) -> torch.Tensor:
        """Computes the given first image tokens (G, C or 1, n); returns the last states (G, C or 1, hidden_size)."""

    @abstractmethod
    def step(self, tokens: torch.Tensor, position: int) -> torch.Tensor:
        """Computes the tokens (G * C,) drawn at `position`; returns the states (G * C, hidden_size) for the next."""

    @abstractmethod
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """States (rows, hidden_size) to image logits (rows, image_vocab_size) in float32."""

    @abstractmethod
    def _masks(self, query: torch.Tensor, key: torch.Tensor) -> dict[str, torch.Tensor]:
        """For each pattern, whether the tokens at stream positions `query` see those at `key`."""

    def _row_masks(self, length: int) -> dict[str, torch.Tensor]:
        """Masks (length, text_length + length) of the first image tokens."""
        text_length = self.config.text_length
        stream = torch.arange(text_length + length, device=self.device)
        return self._masks(stream[text_length:, None], stream[None, :])

    def select_texts(self, texts: torch.Tensor) -> None:
        """Makes group g read the text `texts[g]` of those computed, so that groups may share one."""
        for layer in self.layers:
            layer.select_texts(texts)

    def allocate(self, candidates: int) -> None:
        """Empty caches for `candidates` candidates of each group."""
        for layer in self.layers:
            cache = self.caches[layer.pattern]
            layer.allocate(cache(self.config, len(layer.text_keys), candidates, dtype=self.dtype, device=self.device))
