r"""Keys and values of the image tokens, as many as the attention pattern of a layer needs.

Once a key lies outside the pattern of every later query it is never read again, so dropping it changes nothing. With W
columns, and a convolution that reaches h = (k - 1) / 2 rows back, a candidate keeps

    row     W + 1 entries: a ring
    column  W * W, stored column by column, so that the at most W entries a query reads are adjacent
    conv    h W + h + 1: a ring, of which a query reads the offsets of the pattern
    window  the same ring; a query reads those offsets that lie in the picture
    torus   W * W, of which a query reads its neighbourhood
    full    W * W

All memory is allocated at once, nothing grows, and what is read at a position is known without looking at the device.
Entries are (G, heads, C, slots, head_size): G texts, each with C candidates.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right

import torch
from transformers import PreTrainedConfig

from mosaics.models.dalle.attention_patterns import conv_offsets, torus_cells, window_offsets


class PatternCache(ABC):
    """Keys and values of one layer. Subclasses say where a position is stored and which slots a query reads."""

    def __init__(self, config: PreTrainedConfig, groups: int, candidates: int, *, dtype, device):
        self.grid_size = config.image_grid_size
        shape = (groups, config.num_attention_heads, candidates, self.num_slots(config), config.head_size)
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)

    @staticmethod
    @abstractmethod
    def num_slots(config: PreTrainedConfig) -> int:
        """Entries kept for each candidate."""

    @abstractmethod
    def slot(self, position: int) -> int:
        """Where the raster position is stored."""

    @abstractmethod
    def visible(self, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (G, heads, C, n, head_size) that the query at `position` sees, itself included."""

    def append(self, position: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Stores the entries (G, heads, C, head_size) of one position."""
        slot = self.slot(position)
        self.keys[:, :, :, slot] = key
        self.values[:, :, :, slot] = value

    def fill(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Stores what is still needed of the first n positions: (G, heads, C or 1, n, head_size)."""
        length = keys.shape[3]
        kept = range(max(0, length - self.keys.shape[3]), length)
        slots = [self.slot(position) for position in kept]
        self.keys[:, :, :, slots] = keys[:, :, :, kept.start :]
        self.values[:, :, :, slots] = values[:, :, :, kept.start :]


class FullCache(PatternCache):
    """Every position, in raster order."""

    @staticmethod
    def num_slots(config: PreTrainedConfig) -> int:
        """W * W."""
        return config.num_image_tokens

    def slot(self, position: int) -> int:
        """The raster position."""
        return position

    def visible(self, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        """All positions so far."""
        return self.keys[:, :, :, : position + 1], self.values[:, :, :, : position + 1]


class RowCache(PatternCache):
    """A ring of the last W + 1 positions. Softmax does not care for the order, so it is never rotated."""

    @staticmethod
    def num_slots(config: PreTrainedConfig) -> int:
        """W + 1."""
        return config.image_grid_size + 1

    def slot(self, position: int) -> int:
        """The slot of the position that has just left the window."""
        return position % (self.grid_size + 1)

    def visible(self, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The ring, as far as it is filled."""
        filled = min(position, self.grid_size) + 1
        return self.keys[:, :, :, :filled], self.values[:, :, :, :filled]


class ColumnCache(PatternCache):
    """Every position, column by column: slot c W + r for row r and column c."""

    @staticmethod
    def num_slots(config: PreTrainedConfig) -> int:
        """W * W."""
        return config.num_image_tokens

    def slot(self, position: int) -> int:
        """The transposed raster position."""
        row, column = divmod(position, self.grid_size)
        return column * self.grid_size + row

    def visible(self, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The column down to the position: adjacent slots."""
        last = self.slot(position)
        first = last - position // self.grid_size
        return self.keys[:, :, :, first : last + 1], self.values[:, :, :, first : last + 1]


class ConvCache(PatternCache):
    """A ring that reaches back to the furthest offset of the neighbourhood."""

    def __init__(self, config: PreTrainedConfig, groups: int, candidates: int, *, dtype, device):
        super().__init__(config, groups, candidates, dtype=dtype, device=device)
        self.offsets = conv_offsets(config.image_grid_size, config.conv_kernel_size)
        # Row p: the slots of p - offset, for every offset in ascending order.
        positions = torch.arange(config.num_image_tokens, device=device)
        offsets = torch.tensor(self.offsets, device=device)
        self.slots = (positions[:, None] - offsets[None, :]) % self.num_slots(config)

    @staticmethod
    def num_slots(config: PreTrainedConfig) -> int:
        """The largest offset h W + h, and itself."""
        return min(conv_offsets(config.image_grid_size, config.conv_kernel_size)[-1] + 1, config.num_image_tokens)

    def slot(self, position: int) -> int:
        """The slot of the position that has just left the neighbourhood."""
        return position % self.keys.shape[3]

    def visible(self, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The neighbourhood, gathered from the ring; offsets that lead before the first position do not exist."""
        slots = self.slots[position, : bisect_right(self.offsets, position)]
        return self.keys.index_select(3, slots), self.values.index_select(3, slots)


class WindowCache(PatternCache):
    """A ring that reaches back to the furthest offset of any column's neighbourhood."""

    def __init__(self, config: PreTrainedConfig, groups: int, candidates: int, *, dtype, device):
        super().__init__(config, groups, candidates, dtype=dtype, device=device)
        self.offsets = [
            window_offsets(config.image_grid_size, config.conv_kernel_size, column)
            for column in range(config.image_grid_size)
        ]
        self.offset_tables = [torch.tensor(offsets, device=device) for offsets in self.offsets]

    @staticmethod
    def num_slots(config: PreTrainedConfig) -> int:
        """The largest offset of any column, and itself."""
        grid = config.image_grid_size
        furthest = max(window_offsets(grid, config.conv_kernel_size, column)[-1] for column in range(grid))
        return min(furthest + 1, config.num_image_tokens)

    def slot(self, position: int) -> int:
        """The slot of the position that has just left every neighbourhood."""
        return position % self.keys.shape[3]

    def visible(self, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The neighbourhood, gathered from the ring; offsets that lead before the first position do not exist."""
        column = position % self.grid_size
        existing = bisect_right(self.offsets[column], position)
        slots = (position - self.offset_tables[column][:existing]) % self.keys.shape[3]
        return self.keys.index_select(3, slots), self.values.index_select(3, slots)


class TorusCache(FullCache):
    """Every position, of which the neighbourhood is read, across the edges of the picture too."""

    def __init__(self, config: PreTrainedConfig, groups: int, candidates: int, *, dtype, device):
        super().__init__(config, groups, candidates, dtype=dtype, device=device)
        self.cells = [
            torus_cells(config.image_grid_size, config.conv_kernel_size, position)
            for position in range(config.num_image_tokens)
        ]
        self.slots = torch.tensor(self.cells, device=device)

    def visible(self, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The part of the neighbourhood that comes no later than the position."""
        slots = self.slots[position, : bisect_right(self.cells[position], position)]
        return self.keys.index_select(3, slots), self.values.index_select(3, slots)


CACHES: dict[str, type[PatternCache]] = {
    "row": RowCache,
    "column": ColumnCache,
    "conv": ConvCache,
    "full": FullCache,
    "window": WindowCache,
    "torus": TorusCache,
}


def bytes_per_candidate(config: PreTrainedConfig, element_size: int) -> int:
    """Memory of the image keys and values of one candidate in all layers."""
    slots = sum(CACHES[pattern].num_slots(config) for pattern in config.layer_patterns)
    return 2 * slots * config.num_attention_heads * config.head_size * element_size
