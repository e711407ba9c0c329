"""The search in bfloat16 finds the codes of float64 brute force, or says that it can't."""

import pytest
import torch

from mosaics.quantizers import nearest
from mosaics.quantizers.narrowed_search import NarrowedSearch, bfloat16_products_are_fast
from mosaics.quantizers.nearest import nearest_codes


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def search(vectors, codebook):
    return NarrowedSearch(codebook, codebook.square().sum(dim=1))(vectors)


def distances(vectors, codebook):
    return torch.cdist(vectors.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist")


@pytest.mark.parametrize("codes", [600, 1000, 4100])
@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-4, 0.0), (1e6, 0.0), (0.1, 3.0)])
def test_it_finds_the_nearest_of_all_codes(codes, scale, offset):
    vectors, codebook = scale * numbers(200, 48) + offset, scale * numbers(codes, 48, seed=1) + offset
    assert torch.equal(search(vectors, codebook), distances(vectors, codebook).argmin(dim=1))


def test_codes_that_bfloat16_takes_for_the_same_are_told_apart_and_equal_ones_give_the_first():
    codebook = numbers(600, 64)
    codebook[300:400] = codebook[:100] * (1 + 2.0**-10)  # the same in bfloat16
    codebook[500:] = codebook[100:200]
    vectors = torch.cat([codebook[300:400], codebook[:100], codebook[500:]]) + 1e-6 * numbers(300, 64, seed=2)
    expected = torch.cat([torch.arange(300, 400), torch.arange(100), torch.arange(100, 200)])
    assert torch.equal(search(vectors, codebook), expected)


def test_the_bound_of_the_error_holds_and_is_not_idle():
    vectors, codebook = numbers(256, 64), numbers(1024, 64, seed=1)
    narrowed = NarrowedSearch(codebook, codebook.square().sum(dim=1))
    narrowed(vectors)
    centered = vectors - narrowed.center
    exact = distances(vectors, codebook).square() - centered.double().square().sum(dim=1, keepdim=True)
    error = (narrowed.buffer[:256].double() - exact).abs().amax(dim=1)
    bound = narrowed._largest_error(vectors, centered)
    assert (error <= bound).all() and (error > bound / 20).all()


def test_too_many_codes_too_close_together_are_not_decided():
    codebook = numbers(1, 64) + 1e-6 * numbers(1024, 64, seed=1)
    assert search(numbers(100, 64, seed=2), codebook) is None
    vectors = numbers(5000, 64, seed=2)
    assert torch.equal(nearest_codes(vectors, codebook), nearest._search(vectors, codebook))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_vectors_that_are_not_finite_leave_the_others_alone(value):
    vectors, codebook = numbers(300, 64), numbers(2048, 64, seed=1)
    expected = distances(vectors, codebook).argmin(dim=1)
    vectors[7, 3] = value
    found = nearest_codes(vectors, codebook, allow_nonfinite=True)
    others = torch.arange(300) != 7
    assert torch.equal(found[others], expected[others]) and 0 <= found[7] < 2048


def test_a_large_search_takes_this_way_where_it_is_fast_and_goes_on_when_it_does_not_pay(monkeypatch):
    vectors, codebook = numbers(2000, 64), numbers(2048, 64, seed=1)
    vectors[1500:1600] = torch.nan  # no code is near: this chunk is searched
    close = numbers(1, 64, seed=3) + 1e-5 * numbers(400, 64, seed=4)
    vectors[1600:] = 1e9 * close  # so far away that all codes are alike
    monkeypatch.setattr(nearest, "bfloat16_products_are_fast", lambda: True)
    used = []
    original = NarrowedSearch.__call__
    monkeypatch.setattr(NarrowedSearch, "__call__", lambda self, chunk: used.append(original(self, chunk)) or used[-1])
    found = nearest_codes(vectors, codebook, allow_nonfinite=True)
    assert used[0] is not None and used[-1] is None
    finite = vectors.isfinite().all(dim=1)
    assert torch.equal(found[finite], nearest._search(vectors, codebook)[finite])


def test_whether_it_is_fast_is_a_property_of_the_processor(monkeypatch):
    for flags, fast in (("avx512f avx512_bf16 avx512_fp16", True), ("amx_bf16", True), ("avx512f bf16x", False)):
        monkeypatch.setattr("pathlib.Path.read_text", lambda self, flags=flags: f"flags : {flags}\n")
        bfloat16_products_are_fast.cache_clear()
        assert bfloat16_products_are_fast() is fast
    monkeypatch.setattr("pathlib.Path.exists", lambda self: False)
    bfloat16_products_are_fast.cache_clear()
    assert bfloat16_products_are_fast() is False
    bfloat16_products_are_fast.cache_clear()
