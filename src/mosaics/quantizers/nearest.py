"""The nearest codebook entry of each vector, without a matrix of all distances."""

import torch

CHUNK_ELEMENTS = 1 << 20  # distances held at a time: 4 MiB in float32


@torch.no_grad()
def nearest_codes(vectors: torch.Tensor, codebook: torch.Tensor) -> torch.LongTensor:
    """Indices of the nearest codebook entries in Euclidean distance; ties go to the lowest index.

    Args:
        vectors: `(N, D)`, any floating dtype; distances are computed in float32, also under autocast.
        codebook: `(K, D)`.

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
    with torch.autocast(vectors.device.type, enabled=False):
        entries = codebook.float()
        # ||z - e||^2 = ||z||^2 - 2 z.e + ||e||^2, and ||z||^2 is the same for every code: leave it out.
        offsets = entries.square().sum(dim=1)
        rows = max(1, CHUNK_ELEMENTS // len(entries))
        indices = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
        for chunk, result in zip(vectors.split(rows), indices.split(rows), strict=True):
            scores = torch.addmm(offsets, chunk.float(), entries.T, alpha=-2)
            torch.argmin(scores, dim=1, out=result)
    if not torch.isfinite(vectors).all():
        raise ValueError("nearest_codes got vectors that are NaN or infinite: no code is nearest to them.")
    return indices
