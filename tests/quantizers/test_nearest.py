"""Nearest codes: exact, ties to the lowest index, never the whole matrix of distances."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mosaics.quantizers import nearest, nearest_codes


class LargestTensor(TorchDispatchMode):
    """Remembers how many elements the largest tensor made inside has."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


@pytest.mark.parametrize("num_codes", [2, 64, 65, 128, 1000])
def test_ties_go_to_the_lowest_index(num_codes):
    generator = torch.Generator().manual_seed(0)
    different = torch.randn(max(2, num_codes // 3), 4, generator=generator)
    codebook = different[torch.randint(len(different), (num_codes,), generator=generator)]
    indices = nearest_codes(torch.randn(500, 4, generator=generator), codebook)
    for index in indices.tolist():
        equal = (codebook == codebook[index]).all(dim=1).nonzero()[:, 0]
        assert index == equal[0]


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_search_is_that_of_float32_under_every_matmul_precision_and_leaves_it_alone(precision):
    generator = torch.Generator().manual_seed(0)
    vectors, codebook = torch.randn(3000, 16, generator=generator), torch.randn(512, 16, generator=generator)
    expected = torch.cdist(vectors.double(), codebook.double()).argmin(1)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        indices = nearest_codes(vectors, codebook)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(indices, expected)


def test_the_probe_of_the_cpu_tells_float32_from_bfloat16(monkeypatch):
    mm = torch.mm
    nearest._medium_is_float32.cache_clear()
    monkeypatch.setattr(torch, "mm", lambda a, b: mm(a.bfloat16(), b.bfloat16()).float())
    assert not nearest._medium_is_float32()
    nearest._medium_is_float32.cache_clear()
    monkeypatch.setattr(torch, "mm", mm)
    nearest._medium_is_float32()


def test_the_matrix_of_distances_is_never_held():
    vectors, codebook = torch.randn(20_000, 4), torch.randn(1000, 4)
    with LargestTensor() as watched:
        nearest_codes(vectors, codebook)
    assert watched.largest <= nearest.CPU_CHUNK_ELEMENTS + 24 * 512  # one chunk, with its codes padded to 1024


@pytest.mark.parametrize("num_codes", [3, 65, 200])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_vectors_that_are_not_finite_get_some_valid_code_if_allowed(num_codes, value):
    codebook = torch.randn(num_codes, 3, generator=torch.Generator().manual_seed(0))
    vectors = torch.cat([codebook, torch.full((1, 3), value), torch.tensor([[value, 0.0, 0.0]])])
    indices = nearest_codes(vectors, codebook, allow_nonfinite=True)
    assert torch.equal(indices[:num_codes], torch.arange(num_codes))
    assert 0 <= indices.min() and indices.max() < num_codes
    with pytest.raises(ValueError, match="NaN"):
        nearest_codes(vectors, codebook)
