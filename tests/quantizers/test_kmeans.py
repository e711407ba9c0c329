"""Nearest codes against brute force in float64; k-means against what it promises."""

import pytest
import torch

from mosaics.quantizers import kmeans, nearest_codes


@pytest.mark.parametrize(("count", "size", "num_codes"), [(1, 3, 2), (700, 8, 33), (3000, 4, 4096)])
def test_the_nearest_code_is_that_of_brute_force(count, size, num_codes):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(count, size, generator=generator)
    codebook = torch.randn(num_codes, size, generator=generator)
    expected = torch.cdist(vectors.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    assert torch.equal(nearest_codes(vectors, codebook), expected)


def test_distances_stay_in_float32_under_autocast():
    # In bfloat16 both codes round to the same number.
    codebook = torch.tensor([[100.0], [100.1]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nearest_codes(torch.tensor([[100.02], [100.09]]), codebook).tolist() == [0, 1]


def test_vectors_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        nearest_codes(torch.tensor([[float("nan")]]), torch.zeros(2, 1))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(K, D\)"):
        nearest_codes(torch.zeros(2, 3), torch.zeros(4, 2))


def test_kmeans_finds_clusters_that_are_far_apart():
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    vectors = (centres[:, None] + torch.randn(3, 200, 2, generator=generator)).flatten(end_dim=1)
    found = kmeans(vectors, 3, generator=torch.Generator().manual_seed(1))
    assert torch.cdist(centres, found).min(dim=1).values.max() < 0.5


def test_another_round_of_kmeans_never_raises_the_error():
    vectors = torch.rand(500, 4, generator=torch.Generator().manual_seed(0))

    def error(rounds):
        centroids = kmeans(vectors, 16, rounds, torch.Generator().manual_seed(2))
        return (vectors - centroids[nearest_codes(vectors, centroids)]).square().sum().item()

    errors = [error(rounds) for rounds in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0]


def test_kmeans_needs_as_many_vectors_as_clusters():
    with pytest.raises(ValueError, match="at least 5"):
        kmeans(torch.zeros(4, 2), 5)
