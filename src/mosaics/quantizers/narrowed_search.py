"""Exact search at the speed of bfloat16 products: they narrow the codes down, float32 decides among the few left.

A processor with bfloat16 instructions multiplies matrices in them two to ten times as fast as in float32. Their scores
are wrong by at most a known amount, so only codes within twice that amount of the smallest score can be the nearest;
those are scored again in float32. The result is the one of float32 throughout.
"""

import functools
import re
from pathlib import Path

import torch
import torch.nn.functional as F

SCORES_AT_A_TIME, MIN_SEARCH_ROWS = 1 << 20, 256  # scores held at a time: what the caches hold
ROUNDOFF = 2.0**-8  # largest relative error of a number rounded to bfloat16
FLOAT32_SLACK = 2.0**-20  # more than float32 itself errs, relative to the square of the lengths
CODES_PER_CANDIDATE = 64  # more than one candidate in so many codes, and scoring them all in float32 is faster


class NarrowedSearch:
    """The nearest of a codebook's entries, for chunks of vectors.

    Args:
        entries: `(K, D)` float32.
        offsets: `(K,)` float32, their squared lengths.
    """

    def __init__(self, entries: torch.Tensor, offsets: torch.Tensor) -> None:
        codes = len(entries)
        self.entries, self.offsets = entries, offsets
        self.slabs = 16 if codes < 4096 else 64  # so many codes, far apart, have their smallest score found together
        self.rows = max(MIN_SEARCH_ROWS, SCORES_AT_A_TIME // codes)
        self.longest = offsets.amax().sqrt()
        self.center = entries.mean(dim=0)  # distances do not depend on it, and their errors shrink with it
        centered = entries - self.center
        squares = centered.square().sum(dim=1)
        self.radius = squares.amax().sqrt()
        high = squares.bfloat16()
        low = (squares - high.float()).bfloat16()
        # Each row times (z - c, 1, 1) is ||e - c||^2 - 2 (z - c).(e - c); what is missing to whole slabs is far away.
        table = torch.cat([(-2 * centered).bfloat16(), high[:, None], low[:, None]], dim=1)
        self.table = F.pad(table, (0, 0, 0, -codes % self.slabs))
        self.table[codes:, -2] = torch.finfo(torch.bfloat16).max
        self.buffer = torch.empty(self.rows, len(self.table), dtype=torch.bfloat16, device=entries.device)

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor | None:
        """Indices `(N,)` for `vectors` `(N, D)`, N up to `rows`; `None` if too many codes are too close to tell apart.

        Vectors that are NaN or infinite get K, or make it `None`.
        """
        rows, codes = len(vectors), len(self.entries)
        centered = vectors - self.center
        query = F.pad(centered.bfloat16(), (0, 2), value=1.0)
        blocks = torch.mm(query, self.table.T, out=self.buffer[:rows]).view(rows, self.slabs, -1)
        least = blocks.amin(dim=1).float()
        limit = least.amin(dim=1) + 2 * self._largest_error(vectors, centered)
        row, block = (least <= limit[:, None]).nonzero().unbind(dim=1)
        if len(row) * CODES_PER_CANDIDATE > rows * codes:
            return None
        close = blocks[row, :, block]  # (blocks, slabs)
        pair, slab = (close.float() <= limit.take(row)[:, None]).nonzero().unbind(dim=1)
        if len(pair) * CODES_PER_CANDIDATE > rows * codes:
            return None
        row, code = row.take(pair), slab * blocks.shape[2] + block.take(pair)
        products = vectors.index_select(0, row).mul_(self.entries.index_select(0, code)).sum(dim=1)
        scores = torch.sub(self.offsets.take(code), products, alpha=2)
        best = scores.new_full((rows,), torch.inf).scatter_reduce_(0, row, scores, "amin")
        first = torch.where(scores == best.take(row), code, codes)  # of equals the lowest
        return code.new_full((rows,), codes).scatter_reduce_(0, row, first, "amin")

    def _largest_error(self, vectors: torch.Tensor, centered: torch.Tensor) -> torch.Tensor:
        """How far a score can be from the distance it stands for, `(N,)`.

        Both factors of a product are rounded, the squares almost not, and the sum once; a hundredth more covers the
        squares of these errors and the float32 additions.
        """
        lengths = centered.norm(dim=1)
        products = 2 * lengths * self.radius
        rounded = ROUNDOFF * (2 * products + (products + self.radius**2))
        return 1.01 * rounded + FLOAT32_SLACK * (vectors.norm(dim=1) + self.longest) ** 2


@functools.cache
def bfloat16_products_are_fast() -> bool:
    """Whether this processor has instructions for products in bfloat16, as far as Linux says; it does not change."""
    described = Path("/proc/cpuinfo")
    return described.exists() and re.search(r"\b(avx512_bf16|amx_bf16)\b", described.read_text()) is not None
