"""Finite scalar quantization: every code can be reached, and codes and indices are one to one."""

import itertools

import pytest
import torch

from mosaics.quantizers import FiniteScalarQuantizer

LEVELS = [[2], [3, 2], [8, 5, 5], [4, 7, 6], [2, 2, 2, 2]]


@pytest.mark.parametrize("levels", LEVELS)
def test_indices_and_codes_are_one_to_one(levels):
    quantizer = FiniteScalarQuantizer(levels)
    indices = torch.arange(quantizer.num_embeddings).view(1, -1)
    codes = quantizer.lookup(indices)  # (1, D, K)
    steps = [[(digit - level // 2) / (level // 2) for digit in range(level)] for level in levels]
    expected = {tuple(code) for code in itertools.product(*steps)}
    assert {tuple(code) for code in codes[0].T.tolist()} == {tuple(torch.tensor(c).tolist()) for c in expected}
    assert codes.abs().max() <= 1


@pytest.mark.parametrize("levels", LEVELS)
def test_every_code_is_reached_and_looked_up_again(levels):
    quantizer = FiniteScalarQuantizer(levels)
    z = 4 * torch.rand(4, len(levels), 3000, generator=torch.Generator().manual_seed(0)) - 2
    z[0, :, 0], z[0, :, 1] = 100.0, -100.0
    output = quantizer(z)
    assert output.indices.shape == (4, 3000) and output.indices.dtype == torch.int64
    assert torch.equal(output.indices.unique(), torch.arange(quantizer.num_embeddings))
    torch.testing.assert_close(output.quantized, quantizer.lookup(output.indices), atol=0, rtol=0)
    assert torch.equal(quantizer.encode(z), output.indices)
    # The first channel varies fastest.
    assert output.indices[0, 0] == quantizer.num_embeddings - 1 and output.indices[0, 1] == 0


def test_a_channel_keeps_its_order_and_zero_is_the_middle():
    quantizer = FiniteScalarQuantizer([8, 5])
    z = torch.linspace(-4, 4, 200).view(1, 1, -1).expand(1, 2, -1)
    quantized = quantizer(z).quantized
    assert (quantized.diff(dim=2) >= 0).all()
    assert quantizer(torch.zeros(1, 2, 1)).quantized.tolist() == [[[0.0], [0.0]]]
    assert quantized[0, 0].unique().tolist() == [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75]
    assert quantized[0, 1].unique().tolist() == [-1, -0.5, 0, 0.5, 1]


def test_the_gradient_is_that_of_the_bounded_value_without_the_rounding():
    quantizer = FiniteScalarQuantizer([8, 5])
    z = torch.randn(2, 2, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    quantizer(z).quantized.sum().backward()
    half = torch.tensor([7, 4]) * 0.999 / 2
    shift = torch.tensor([torch.tan(0.5 / half[0]), 0.0])
    expected = (1 - torch.tanh(z + shift[:, None]).square()) * (half / torch.tensor([4.0, 2.0]))[:, None]
    torch.testing.assert_close(z.grad, expected.detach())


def test_nothing_is_learned_and_nothing_is_lost():
    quantizer = FiniteScalarQuantizer([5, 5])
    output = quantizer(torch.zeros(2, 2, 3))
    assert output.codebook_loss == output.commitment_loss == 0 and not quantizer.state_dict()
    assert output.perplexity.item() == pytest.approx(1) and output.codebook_usage.item() == pytest.approx(1 / 25)


def test_nan_is_an_error_but_in_training_it_stays_visible():
    quantizer, z = FiniteScalarQuantizer([5, 4]), torch.zeros(2, 2, 3)
    z[0, 1, 2] = torch.nan
    output = quantizer.train()(z)
    assert output.quantized.isnan().any() and 0 <= output.indices.min() and output.indices.max() < 20
    with pytest.raises(ValueError, match="NaN"):
        quantizer.eval()(z)


@pytest.mark.parametrize("levels", [[], [1, 5], [256, 256, 256, 256]])
def test_impossible_levels_are_refused(levels):
    with pytest.raises(ValueError, match="levels"):
        FiniteScalarQuantizer(levels)
