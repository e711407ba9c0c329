"""The likelihoods are densities, and their parts are what the paper writes."""

import math

import pytest
import torch

from mosaics.likelihoods import (
    gaussian_nll,
    logit_laplace_bits_per_dim,
    logit_laplace_log_prob,
    logit_laplace_nll,
    map_pixels,
    unmap_pixels,
)


@pytest.mark.parametrize(("mean", "log_scale"), [(0.0, 0.0), (1.3, -0.7), (-2.0, 0.4), (0.2, -2.5)])
def test_the_logit_laplace_density_integrates_to_one(mean, log_scale):
    # Substitute x = sigmoid(t): the grid is fine where the density is.
    t = torch.linspace(-40, 40, 400_001, dtype=torch.float64)
    x = torch.sigmoid(t)
    log_density = logit_laplace_log_prob(x, torch.tensor(mean).double(), torch.tensor(log_scale).double())
    inside = (x > 0) & (x < 1)
    integrand = torch.where(inside, log_density.exp() * x * (1 - x), 0.0)
    assert torch.trapezoid(integrand, t).item() == pytest.approx(1.0, abs=1e-5)


def test_the_logit_laplace_density_is_the_papers_formula():
    x, mean, scale = 0.37, -0.6, 0.45
    logit = math.log(x / (1 - x))
    expected = 1 / (2 * scale * x * (1 - x)) * math.exp(-abs(logit - mean) / scale)
    got = logit_laplace_log_prob(torch.tensor(x), torch.tensor(mean), torch.tensor(math.log(scale))).exp()
    assert got.item() == pytest.approx(expected, rel=1e-5)


def test_the_pixel_map_has_an_inverse_and_stays_off_the_ends():
    pixels = torch.linspace(0, 1, 256)
    mapped = map_pixels(pixels)
    assert mapped.min() == pytest.approx(0.1) and mapped.max() == pytest.approx(0.9)
    torch.testing.assert_close(unmap_pixels(mapped), pixels, atol=1e-6, rtol=0)


def test_bits_per_dim_of_a_sharp_likelihood_match_the_summed_probabilities_of_8_bit_values():
    # P(v) is the integral of the density over one 8-bit step; the midpoint rule is the approximation that is used.
    mean, log_scale = torch.tensor(0.3), torch.tensor(-1.0)
    values = torch.arange(256, dtype=torch.float64) / 255
    step = 0.8 / 255
    edges = torch.linspace(-0.5, 0.5, 101, dtype=torch.float64) * step
    fine = map_pixels(values)[:, None] + edges
    density = logit_laplace_log_prob(fine, mean.double(), log_scale.double()).exp()
    exact = -torch.log2(torch.trapezoid(density, fine, dim=1))[30:226]
    nll = torch.stack([logit_laplace_nll(v.float().view(1, 1, 1, 1), mean, log_scale) for v in values])
    torch.testing.assert_close(logit_laplace_bits_per_dim(nll)[30:226].double(), exact, atol=2e-2, rtol=0)


def test_the_gaussian_likelihood_matches_torch():
    pixels, mean = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    expected = -torch.distributions.Normal(mean, 0.2).log_prob(pixels).mean()
    torch.testing.assert_close(gaussian_nll(pixels, mean, 0.2), expected)
