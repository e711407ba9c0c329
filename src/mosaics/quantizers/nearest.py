"""The nearest codebook entry of each vector, without a matrix of all distances."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from mosaics.quantizers.narrowed_search import NarrowedSearch, bfloat16_products_are_fast

BLOCK = 64  # codes whose smallest score is found together
# Scores held at a time: on the CPU what its caches hold (2 MiB in float32), elsewhere what keeps the device busy.
CPU_CHUNK_ELEMENTS, MIN_CPU_ROWS = 1 << 19, 128
CHUNK_ELEMENTS = 1 << 25
NARROWED_CODES, NARROWED_DIM = 2048, 32  # at least so many and so long, and products are most of the work


@torch.no_grad()
def nearest_codes(vectors: torch.Tensor, codebook: torch.Tensor, allow_nonfinite: bool = False) -> torch.Tensor:
    """Indices of the nearest codebook entries in Euclidean distance; ties go to the lowest index.

    Args:
        vectors: `(N, D)`, any floating dtype; distances are computed in float32, also under autocast and whatever
            `torch.set_float32_matmul_precision` says.
        codebook: `(K, D)`.
        allow_nonfinite: Give some valid index to vectors that are NaN or infinite, instead of an error. Training does
            so, because the decision about a bad step belongs to all processes together.

    Returns:
        `(N,)` int64.

    Raises:
        ValueError: On shapes that do not fit, or vectors that are NaN or infinite.
    """
    if vectors.ndim != 2 or codebook.ndim != 2 or vectors.shape[1] != codebook.shape[1]:
        raise ValueError(
            f"nearest_codes expects vectors (N, D) and a codebook (K, D), got {tuple(vectors.shape)} and "
            f"{tuple(codebook.shape)}."
        )
    with torch.autocast(vectors.device.type, enabled=False), _float32_products(vectors.device):
        indices = _search_narrowed(vectors, codebook.float())
    if not allow_nonfinite and not torch.isfinite(vectors).all():
        raise ValueError("nearest_codes got vectors that are NaN or infinite: no code is nearest to them.")
    return indices


def _search_narrowed(vectors: torch.Tensor, entries: torch.Tensor) -> torch.Tensor:
    """[`_search`], with most of its work in bfloat16 where that is faster and tells the codes apart."""
    is_large = len(entries) >= NARROWED_CODES and entries.shape[1] >= NARROWED_DIM
    if vectors.device.type != "cpu" or not is_large or not bfloat16_products_are_fast():
        return _search(vectors, entries)
    search = NarrowedSearch(entries, entries.square().sum(dim=1))
    found, searched = [], 0
    while searched < len(vectors):
        indices = search(vectors[searched : searched + search.rows].float().contiguous())
        found.append(_search(vectors[searched:], entries) if indices is None else indices)
        searched += len(found[-1])
    return torch.cat(found).clamp_(max=len(entries) - 1)


def _search(vectors: torch.Tensor, entries: torch.Tensor) -> torch.Tensor:
    """Chunk by chunk, the smallest of ||z - e||^2 - ||z||^2 = ||e||^2 - 2 z.e; ||z||^2 is the same for every code."""
    num_codes, on_cpu = len(entries), vectors.device.type == "cpu"
    offsets = entries.square().sum(dim=1)
    by_blocks = on_cpu and num_codes > BLOCK
    if by_blocks and num_codes % BLOCK:
        missing = BLOCK - num_codes % BLOCK
        entries = F.pad(entries, (0, 0, 0, missing))
        offsets = F.pad(offsets, (0, missing), value=torch.inf)
    rows = max(MIN_CPU_ROWS, CPU_CHUNK_ELEMENTS // len(entries)) if on_cpu else CHUNK_ELEMENTS // len(entries)
    rows = max(1, min(rows, len(vectors)))
    buffer = torch.empty(rows, len(entries), dtype=torch.float32, device=vectors.device)
    indices = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
    for chunk, result in zip(vectors.split(rows), indices.split(rows), strict=True):
        scores = torch.addmm(offsets, chunk.float(), entries.T, alpha=-2, out=buffer[: len(chunk)])
        if by_blocks:
            result.copy_(_argmin_by_blocks(scores))
        else:
            torch.argmin(scores, dim=1, out=result)
    return indices.clamp_(max=num_codes - 1)  # infinite vectors may have found the padding


def _argmin_by_blocks(scores: torch.Tensor) -> torch.Tensor:
    """The first smallest score of each row. `amin` is vectorised on CPUs and `argmin` is not: so it sees little."""
    blocks = scores.view(len(scores), -1, BLOCK)  # (rows, K / BLOCK, BLOCK)
    first = blocks.amin(dim=2).argmin(dim=1)  # blocks are runs of codes: the first block has the lowest index
    within = blocks[torch.arange(len(scores)), first].argmin(dim=1)
    return first * BLOCK + within


@contextmanager
def _float32_products(device: torch.device) -> Iterator[None]:
    """Matrix products in float32, by the fastest library that gives it: bfloat16 would change a code in a hundred."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if device.type == "cpu" and _medium_is_float32() else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)


@functools.cache
def _medium_is_float32() -> bool:
    """Whether precision "medium" computes in float32 on this CPU: oneDNN does without matrix units for bfloat16.

    It is then up to twice as fast on AMD processors as the library that PyTorch takes for "highest".
    """
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        # Numbers with one bit more than bfloat16 has, times the identity.
        table = 1 + torch.arange(128 * 128, dtype=torch.float32).view(128, 128) / 2**15
        return bool(torch.equal(torch.mm(table, torch.eye(128)), table))
    finally:
        torch.set_float32_matmul_precision(precision)
