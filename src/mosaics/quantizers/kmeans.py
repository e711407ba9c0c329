"""K-means: codebook entries that start where the data is."""

import torch

from mosaics.quantizers.nearest import nearest_codes


@torch.no_grad()
def kmeans(
    vectors: torch.Tensor, num_clusters: int, num_iterations: int = 10, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Centroids of Lloyd's algorithm, started from random vectors; empty clusters restart at random vectors.

    Args:
        vectors: `(N, D)`, N at least `num_clusters`.
        num_clusters: Number of centroids K.
        num_iterations: Rounds of assignment and averaging.
        generator: Source of the random choices, on the CPU.

    Returns:
        `(K, D)` float32.

    Raises:
        ValueError: If there are fewer vectors than clusters.
    """
    if len(vectors) < num_clusters:
        raise ValueError(f"kmeans needs at least {num_clusters} vectors (num_clusters), got {len(vectors)}.")
    vectors = vectors.float()

    def random_vectors(count: int) -> torch.Tensor:
        chosen = torch.randperm(len(vectors), generator=generator)[:count]
        return vectors[chosen.to(vectors.device)]

    centroids = random_vectors(num_clusters)
    for _ in range(num_iterations):
        indices = nearest_codes(vectors, centroids)
        counts = torch.bincount(indices, minlength=num_clusters)
        sums = torch.zeros_like(centroids).index_add_(0, indices, vectors)
        empty = counts == 0
        means = sums / counts.clamp(min=1)[:, None]
        centroids = torch.where(empty[:, None], random_vectors(num_clusters), means)
    return centroids
