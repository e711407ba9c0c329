"""How much of a codebook is in use: the two numbers that make a collapse visible."""

import torch


@torch.no_grad()
def code_statistics(indices: torch.Tensor, num_embeddings: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Perplexity and usage of the codes in a batch.

    Args:
        indices: Codes in [0, num_embeddings), any shape.
        num_embeddings: Number of codes K.

    Returns:
        `(perplexity, usage)`: exp of the entropy of the code frequencies (1 to K; K means all codes equally often),
        and the share of codes that occur at all (0 to 1). Both are scalars on the device of `indices`.
    """
    counts = torch.zeros(num_embeddings, dtype=torch.float32, device=indices.device)
    counts.index_add_(0, indices.flatten(), torch.ones_like(indices.flatten(), dtype=torch.float32))
    frequencies = counts / counts.sum()
    perplexity = torch.exp(-torch.xlogy(frequencies, frequencies).sum())
    return perplexity, (counts > 0).float().mean()
