"""The transformer of DALLE-pytorch one image token at a time, for the decode loop of `mosaics.models.dalle.decoding`.

As in `mosaics.models.dalle.prior_decoder`, the text is computed once a prompt. Besides keys and values, a layer
remembers of the last row what the token below and the token to the right take over ([`ShiftMemory`]).
"""

from typing import TYPE_CHECKING

import torch

from mosaics.models.dalle.caches import ColumnCache, FullCache, PatternCache
from mosaics.models.dalle.dalle_pytorch.attention_types import stream_masks
from mosaics.models.dalle.dalle_pytorch.layers import (
    DallePytorchLayer,
    Streams,
    add_branches,
    rotate,
    shift_image,
    shift_text,
)
from mosaics.models.dalle.prior_decoder import PriorDecoder, PriorDecoderLayer, packed

if TYPE_CHECKING:
    from mosaics.models.dalle.dalle_pytorch.modeling_dalle_pytorch import DallePytorchTransformer


class OwnRowCache(PatternCache):
    """The row of the position."""

    @staticmethod
    def num_slots(config) -> int:
        """W."""
        return config.image_grid_size

    def slot(self, position: int) -> int:
        """The column."""
        return position % self.grid_size

    def visible(self, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The row up to the position."""
        filled = self.slot(position) + 1
        return self.keys[:, :, :, :filled], self.values[:, :, :, :filled]


class CornerWindowCache(FullCache):
    """Every position, of which a window above and to the left is read."""

    def __init__(self, config, groups: int, candidates: int, *, dtype, device):
        super().__init__(config, groups, candidates, dtype=dtype, device=device)
        self.kernel_size = config.conv_kernel_size

    def visible(self, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The window."""
        row, column = divmod(position, self.grid_size)
        rows = slice(max(0, row - self.kernel_size + 1), row + 1)
        columns = slice(max(0, column - self.kernel_size + 1), column + 1)
        keys, values = (
            part.unflatten(3, (self.grid_size, self.grid_size))[:, :, :, rows, columns].flatten(3, 4)
            for part in (self.keys, self.values)
        )
        return keys, values


CACHES_BY_TYPE: dict[str, type[PatternCache]] = {
    "full": FullCache,
    "axial_row": OwnRowCache,
    "axial_col": ColumnCache,
    "conv_like": CornerWindowCache,
}


class ShiftMemory:
    """The first half of the channels of the last W image tokens, of which shifted tokens take their part.

    Args:
        groups: Texts G.
        candidates: Candidates C of each.
        like: A vector of the stream, for its size and dtype.
        grid_size: Columns W.
    """

    def __init__(self, groups: int, candidates: int, like: torch.Tensor, grid_size: int):
        self.quarter = like.shape[-1] // 4
        self.grid_size = grid_size
        self.past = like.new_zeros(groups, candidates, grid_size, 2 * self.quarter)

    def fill(self, states: torch.Tensor) -> None:
        """Remembers the last row of whole rows (G, C or 1, n, hidden_size)."""
        self.past[:] = states[:, :, -self.grid_size :, : 2 * self.quarter]

    def shift(self, states: torch.Tensor, position: int) -> torch.Tensor:
        """Shifts the vectors (G * C, hidden_size) at a raster position, and remembers them."""
        row, column = divmod(position, self.grid_size)
        past = self.past.flatten(end_dim=1)
        nothing = torch.zeros_like(states[:, : self.quarter])
        above = past[:, column, : self.quarter] if row else nothing
        left = past[:, column - 1, self.quarter :] if column else nothing
        shifted = torch.cat([above, left, states[:, 2 * self.quarter :]], dim=-1)
        past[:, column] = states[:, : 2 * self.quarter]
        return shifted


class DallePytorchDecoderLayer(PriorDecoderLayer):
    """One layer, its keys and values of the text, its cache and its memories."""

    attention_memory: ShiftMemory | None = None
    feed_forward_memory: ShiftMemory | None = None

    def __init__(self, layer: DallePytorchLayer, dtype: torch.dtype, angles: torch.Tensor | None):
        super().__init__(layer.attention.pattern, layer.attention.scaling, dtype)
        self.layer = layer
        self.qkv = packed(layer.attention.qkv)
        self.output = packed(layer.attention.output)
        self.up = packed(layer.feed_forward.up)
        self.down = packed(layer.feed_forward.down)
        text_length = layer.config.text_length
        self.text_angles = None if angles is None else angles[:text_length]
        self.image_angles = None if angles is None else angles[text_length:]

    def _heads(
        self, states: torch.Tensor, angles: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(..., S, hidden_size) to rotated queries, keys and values (..., heads, S, head_size)."""
        parts = self.layer.attention.split_heads(self.qkv(states))
        query, key, value = (rotate(part, angles).to(self.dtype) for part in parts)
        return query, key, value

    def _add_attended(self, attended: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return self.layer.attention_scale(self.layer.attention_output_norm(self.output(attended.to(dtype))))

    def _feed(self, states: torch.Tensor) -> torch.Tensor:
        inner = self.down(self.layer.feed_forward.gate(self.up(states)))
        return self.layer.feed_forward_scale(self.layer.feed_forward_output_norm(inner))

    def read_text(self, streams: Streams) -> Streams:
        """The streams (P, 1 + T, hidden_size) of whole texts; keeps their keys and values."""
        shift = shift_text if self.layer.config.shift_tokens else lambda states: states

        def attend(hidden: torch.Tensor) -> torch.Tensor:
            heads = self._heads(shift(self.layer.attention_norm(hidden)), self.text_angles)
            return self._add_attended(self._attend_text(*heads), hidden.dtype)

        return add_branches(streams, attend, lambda hidden: self._feed(shift(self.layer.feed_forward_norm(hidden))))

    def read_rows(self, streams: Streams, mask: torch.Tensor) -> Streams:
        """The streams (G, C or 1, n, hidden_size) of the first n image tokens, under a mask (n, 1 + T + n)."""

        def shift(states: torch.Tensor, memory: ShiftMemory | None) -> torch.Tensor:
            if memory is None:
                return states
            memory.fill(states)
            return shift_image(states, self.layer.config.image_grid_size)

        def attend(hidden: torch.Tensor) -> torch.Tensor:
            states = shift(self.layer.attention_norm(hidden), self.attention_memory)
            angles = None if self.image_angles is None else self.image_angles[: states.shape[2]]
            return self._add_attended(self._attend_rows(*self._heads(states, angles), mask), hidden.dtype)

        def feed(hidden: torch.Tensor) -> torch.Tensor:
            return self._feed(shift(self.layer.feed_forward_norm(hidden), self.feed_forward_memory))

        return add_branches(streams, attend, feed)

    def step(self, streams: Streams, position: int) -> Streams:
        """The streams (G * C, hidden_size) of the image token at `position` of every candidate."""

        def shift(states: torch.Tensor, memory: ShiftMemory | None) -> torch.Tensor:
            return states if memory is None else memory.shift(states, position)

        def attend(hidden: torch.Tensor) -> torch.Tensor:
            qkv = self.qkv(shift(self.layer.attention_norm(hidden), self.attention_memory))
            angles = None if self.image_angles is None else self.image_angles[position]
            parts = qkv.unflatten(1, (3, self.layer.config.num_attention_heads, -1)).unbind(dim=1)
            query, key, value = (rotate(part, angles).to(self.dtype) for part in parts)
            return self._add_attended(self._attend_step(query, key, value, position), hidden.dtype)

        def feed(hidden: torch.Tensor) -> torch.Tensor:
            return self._feed(shift(self.layer.feed_forward_norm(hidden), self.feed_forward_memory))

        return add_branches(streams, attend, feed)


class DallePytorchDecoder(PriorDecoder):
    """The transformer of DALLE-pytorch while it draws."""

    caches = CACHES_BY_TYPE
    layers: list[DallePytorchDecoderLayer]

    def __init__(self, model: "DallePytorchTransformer"):
        super().__init__(model)
        self.model = model
        angles = None if model.rotary is None else model.rotary()
        self.layers = [DallePytorchDecoderLayer(layer, self.dtype, angles) for layer in model.layers]
        self.position_table = model.embedding.image_positions()

    def _masks(self, query: torch.Tensor, key: torch.Tensor) -> dict[str, torch.Tensor]:
        return stream_masks(self.model.config, query, key)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """States that the heads read (rows, hidden_size) to image logits (rows, image_vocab_size) in float32."""
        return self.image_head(hidden).float()

    def read_text(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Computes texts (P, T) once. Returns the states (P, hidden_size) that predict the first image token."""
        streams = self.model.start_streams(self.model.embedding.text(input_ids))
        for layer in self.layers:
            streams = layer.read_text(streams)
        return self.model.normalize(streams)[:, -1]

    def allocate(self, candidates: int) -> None:
        """Empty caches and memories for `candidates` candidates of each group."""
        super().allocate(candidates)
        if not self.config.shift_tokens:
            return
        like = self.model.image_head.weight
        for layer in self.layers:
            groups = len(layer.text_keys)
            layer.attention_memory = ShiftMemory(groups, candidates, like, self.config.image_grid_size)
            layer.feed_forward_memory = ShiftMemory(groups, candidates, like, self.config.image_grid_size)

    def read_rows(self, tokens: torch.Tensor) -> torch.Tensor:
        """Computes the given first image tokens (G, C or 1, n); returns the last states (G, C or 1, hidden_size)."""
        masks = self._row_masks(tokens.shape[2])
        streams = self.model.start_streams(self.model.embedding.image(tokens))
        for layer in self.layers:
            streams = layer.read_rows(streams, masks[layer.pattern])
        return self.model.normalize(streams)[:, :, -1]

    def step(self, tokens: torch.Tensor, position: int) -> torch.Tensor:
        """Computes the tokens (G * C,) drawn at `position`; returns the states (G * C, hidden_size) for the next."""
        hidden = self.model.embedding.image_tokens(tokens)
        if self.position_table is not None:
            hidden = hidden + self.position_table[position]
        streams = self.model.start_streams(hidden)
        for layer in self.layers:
            streams = layer.step(streams, position)
        return self.model.normalize(streams)
