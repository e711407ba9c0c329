r"""Which earlier tokens a token sees: the sparse attention patterns of DALL-E.

*Zero-Shot Text-to-Image Generation* (https://arxiv.org/abs/2102.12092), section 2.2 and appendix B.1. The stream is T
text tokens followed by a grid of image tokens, W columns wide, in raster order. In every pattern text is causal to
text, and an image token sees all of the text and itself. They differ in the earlier image tokens that an image token
at raster position q sees:

    full    all of them
    row     the W previous ones: q-1, ..., q-W. The furthest is the token above; the window runs across the row edge
    column  those above it in its column: q-W, q-2W, ...
    conv    the causal half of a k x k neighbourhood: q - (W a + b) with a = 0 and b = 1..h, or a = 1..h and
            b = -h..h, h = (k-1)/2. The offset is taken in raster order, so that a column that leaves the row goes on
            in the neighbouring row
    window  the same neighbourhood cut at the edges of the picture; not in the paper, but in ruDALL-E
    torus   the same neighbourhood on a picture whose opposite edges meet, of which a token sees what comes before it;
            not in the paper, but in ruDALL-E 2
"""

import torch
from torch import nn
from transformers import PreTrainedConfig

ATTENTION_PATTERNS = ("row", "column", "conv", "full", "window", "torus")


def paper_patterns(num_layers: int) -> tuple[str, ...]:
    """The paper's rule, layers counted from 1: column where (i - 2) mod 4 = 0, conv in the last one, row elsewhere."""
    patterns = ["column" if (layer - 2) % 4 == 0 else "row" for layer in range(1, num_layers + 1)]
    patterns[-1] = "conv"
    return tuple(patterns)


def conv_offsets(grid_size: int, kernel_size: int) -> tuple[int, ...]:
    """The distances in raster order at which a `conv` layer looks back, 0 (itself) included; ascending."""
    reach = (kernel_size - 1) // 2
    offsets = {
        grid_size * rows + columns for rows in range(reach + 1) for columns in range(-reach if rows else 0, reach + 1)
    }
    return tuple(sorted(offset for offset in offsets if offset >= 0))


def window_offsets(grid_size: int, kernel_size: int, column: int) -> tuple[int, ...]:
    """The distances in raster order at which a `window` layer looks back from a column; ascending."""
    reach = (kernel_size - 1) // 2
    columns = range(max(0, column - reach), min(grid_size, column + reach + 1))
    offsets = (grid_size * rows + column - other for rows in range(reach + 1) for other in columns)
    return tuple(sorted(offset for offset in offsets if offset >= 0))


def torus_cells(grid_size: int, kernel_size: int, position: int) -> tuple[int, ...]:
    """The raster positions of the neighbourhood of a `torus` layer, later ones too; ascending."""
    reach = (kernel_size - 1) // 2
    row, column = divmod(position, grid_size)
    rows, columns = ({(place + step) % grid_size for step in range(-reach, reach + 1)} for place in (row, column))
    return tuple(sorted(grid_size * r + c for r in rows for c in columns))


def may_attend(
    pattern: str,
    query: torch.Tensor,
    key: torch.Tensor,
    *,
    text_length: int,
    grid_size: int,
    kernel_size: int,
) -> torch.Tensor:
    """Whether the token at stream position `query` sees the one at `key`: arithmetic on indices, so it broadcasts.

    The same function fills the mask tables of `eager` and `sdpa` and is the `mask_mod` of flex attention.
    """
    distance = query - key
    if pattern == "full":
        near = distance >= 0
    elif pattern == "row":
        near = distance <= grid_size
    elif pattern == "column":
        near = distance % grid_size == 0
    elif pattern in ("window", "torus"):
        reach = (kernel_size - 1) // 2
        query_position, key_position = query - text_length, key - text_length
        rows = query_position // grid_size - key_position // grid_size
        columns = query_position % grid_size - key_position % grid_size
        if pattern == "window":
            near = (rows <= reach) & (columns.abs() <= reach)
        else:
            near = (_around(rows, grid_size) <= reach) & (_around(columns, grid_size) <= reach)
    else:
        reach = (kernel_size - 1) // 2
        near = distance <= reach
        for rows in range(1, reach + 1):
            near = near | ((distance - grid_size * rows).abs() <= reach)
    return (distance >= 0) & (near | (key < text_length))


def _around(steps: torch.Tensor, grid_size: int) -> torch.Tensor:
    """How far apart two rows or columns are that are `steps` apart, the shorter way around."""
    steps = steps % grid_size
    return torch.minimum(steps, grid_size - steps)


class PatternMasks(nn.Module):
    """The masks of the patterns that a model uses, one boolean (S, S) table a pattern; `full` needs none.

    The tables are non-persistent buffers: they are not saved, and `DalleTransformer._init_weights` fills them again
    after loading.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.text_length = config.pattern_start
        self.grid_size = config.image_grid_size
        self.kernel_size = config.conv_kernel_size
        self.sequence_length = config.sequence_length
        self.patterns = tuple(name for name in ATTENTION_PATTERNS if name in config.layer_patterns)
        for name in self.patterns:
            if name != "full":
                self.register_buffer(name, self.table(name), persistent=False)

    def mask_function(self, pattern: str):
        """`mask_mod` for flex attention."""

        def mask_mod(batch, head, query, key):
            return self._may_attend(pattern, query, key)

        return mask_mod

    def _may_attend(self, pattern: str, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return may_attend(
            pattern,
            query,
            key,
            text_length=self.text_length,
            grid_size=self.grid_size,
            kernel_size=self.kernel_size,
        )

    def table(self, pattern: str) -> torch.Tensor:
        """The (S, S) mask of a pattern, computed on the CPU; rows are queries."""
        position = torch.arange(self.sequence_length, device="cpu")
        return self._may_attend(pattern, position[:, None], position[None, :])

    def forward(self, pattern: str, length: int) -> torch.Tensor | None:
        """The mask of the first `length` positions; `None` for `full`, which is plain causal attention."""
        return None if pattern == "full" else getattr(self, pattern)[:length, :length]
