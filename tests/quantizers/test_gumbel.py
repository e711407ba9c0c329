"""The Gumbel-softmax bottleneck, against sampling, brute force and finite differences."""

import math

import pytest
import torch

from mosaics.quantizers import GumbelQuantizer, code_statistics, gumbel_softmax, kl_to_uniform


def quantizer(num_embeddings=5, embedding_dim=3):
    module = GumbelQuantizer(num_embeddings, embedding_dim)
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    return module


def test_a_cold_gumbel_softmax_samples_the_categorical_distribution():
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0]).view(1, 4, 1, 1).expand(1, 4, 200, 200)
    sample = gumbel_softmax(logits, 0.01, generator=torch.Generator().manual_seed(0))
    frequencies = torch.bincount(sample.argmax(1).flatten(), minlength=4) / 40_000
    expected = logits[0, :, 0, 0].softmax(0)
    # Four standard deviations of a frequency over 40,000 draws.
    assert ((frequencies - expected).abs() < 4 * (expected * (1 - expected) / 40_000).sqrt()).all()
    assert (sample.max(1).values > 0.99).float().mean() > 0.95


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_the_gumbel_gradient_is_the_derivative_of_the_relaxed_sample(temperature):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, 1, 1, generator=generator, dtype=torch.float32)
    weights = torch.randn(2, 6, 1, 1, generator=generator)

    def objective(values):
        return (gumbel_softmax(values, temperature, generator=torch.Generator().manual_seed(7)) * weights).sum()

    variable = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(variable), variable)
    step = 1e-2
    for index in range(6):
        shift = torch.zeros_like(logits)
        shift[0, index] = step
        numeric = (objective(logits + shift) - objective(logits - shift)) / (2 * step)
        assert gradient[0, index].item() == pytest.approx(numeric.item(), abs=2e-3)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_not_positive_and_finite_is_refused(temperature):
    with pytest.raises(ValueError, match="gumbel_temperature"):
        gumbel_softmax(torch.zeros(1, 2, 1, 1), temperature)


def test_the_kl_equals_the_sum_over_codes():
    logits = torch.randn(2, 7, 3, 3)
    q = logits.softmax(1)
    expected = (q * (q * 7).log()).sum(1)
    torch.testing.assert_close(kl_to_uniform(logits), expected)
    assert kl_to_uniform(torch.zeros(1, 7, 1, 1)).item() == pytest.approx(0, abs=1e-6)


def test_training_decodes_mixtures_and_evaluation_decodes_single_codes():
    module, logits = quantizer(), torch.randn(2, 5, 4, 4)
    expected = (module.codebook[logits.argmax(1)] + module.bias).permute(0, 3, 1, 2)
    torch.testing.assert_close(module.eval()(logits).quantized, expected)
    assert not torch.allclose(module.train()(logits).quantized, expected)


def test_straight_through_has_the_value_of_one_code_and_the_gradient_of_the_mixture():
    module = quantizer().train()
    logits = torch.randn(1, 5, 2, 2)

    def run(straight_through):
        torch.manual_seed(3)
        variable = logits.clone().requires_grad_()
        module.zero_grad()
        quantized = module(variable, 0.7, straight_through).quantized
        (quantized * torch.arange(quantized.numel()).view_as(quantized)).sum().backward()
        return quantized.detach(), variable.grad, module.codebook.grad.clone()

    hard, hard_grad, hard_codebook_grad = run(True)
    _, soft_grad, soft_codebook_grad = run(False)
    torch.testing.assert_close(hard_grad, soft_grad)
    torch.testing.assert_close(hard_codebook_grad, soft_codebook_grad)
    codes = (module.codebook + module.bias).detach()
    distance = (hard.permute(0, 2, 3, 1)[..., None, :] - codes).norm(dim=-1).min(-1).values
    assert distance.max() < 1e-5


def test_perplexity_and_usage_of_known_frequencies():
    perplexity, usage = code_statistics(torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]), 16)
    assert perplexity.item() == pytest.approx(4.0, rel=1e-5) and usage.item() == pytest.approx(0.25)
    perplexity, usage = code_statistics(torch.zeros(5, dtype=torch.long), 16)
    assert perplexity.item() == pytest.approx(1.0) and usage.item() == pytest.approx(1 / 16)
