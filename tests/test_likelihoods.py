"""The likelihoods are densities, and their parts are what the paper writes."""

import math

import pytest
import torch

from mosaics.likelihoods import (
    discretized_logistic_mixture_log_prob,
    discretized_logistic_mixture_mean,
    gaussian_nll,
    logistic_mixture_size,
    logit_laplace_bits_per_dim,
    logit_laplace_log_prob,
    logit_laplace_nll,
    map_pixels,
    mu_law_decode,
    mu_law_encode,
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


def mixture_parameters(count, channels, mixtures, seed=0):
    """One set of random parameters, broad and sharp components among them, for `count` pixels."""
    generator = torch.Generator().manual_seed(seed)
    parameters = torch.randn(1, logistic_mixture_size(channels, mixtures), 1, 1, generator=generator)
    parameters[:, mixtures * (1 + channels) : mixtures * (1 + 2 * channels)] *= 4  # log-scales from about -10 to 10
    return parameters.expand(count, -1, 1, 1)


@pytest.mark.parametrize("seed", range(4))
def test_the_probabilities_of_all_256_values_sum_to_one(seed):
    values = torch.arange(256).view(256, 1, 1, 1) / 255
    log_prob = discretized_logistic_mixture_log_prob(values, mixture_parameters(256, 1, 5, seed), 5)
    assert log_prob.shape == (256, 1, 1)
    assert log_prob.double().exp().sum().item() == pytest.approx(1, abs=1e-4)


def test_the_probabilities_of_all_values_of_two_channels_sum_to_one():
    grid = torch.cartesian_prod(torch.arange(256), torch.arange(256)).view(-1, 2, 1, 1) / 255
    log_prob = discretized_logistic_mixture_log_prob(grid, mixture_parameters(len(grid), 2, 3), 3)
    assert log_prob.double().exp().sum().item() == pytest.approx(1, abs=1e-4)


def test_the_mixture_is_the_papers_formula_and_blue_depends_on_red_and_green():
    parameters = mixture_parameters(1, 3, 2, seed=5).clone()
    parameters[:, 8:14] = torch.tensor([-2.0, -1.5, -1.0, -2.5, -1.2, -8.0]).view(1, 6, 1, 1)
    # The second component is near the pixel, its blue near enough for the smallest scale, exp(-7).
    parameters[:, 5:8] = torch.tensor([-0.6, 0.3, 0.565]).view(1, 3, 1, 1)
    parameters[:, 17:20] = torch.tensor([0.2, 0.0, 0.0]).view(1, 3, 1, 1)
    values = [40, 180, 200]
    x = [2 * v / 255 - 1 for v in values]
    flat = parameters.flatten().tolist()
    weights = torch.tensor(flat[:2]).softmax(0).tolist()
    expected = 0.0
    for m in range(2):
        means, log_scales = flat[2 + 3 * m : 5 + 3 * m], flat[8 + 3 * m : 11 + 3 * m]
        a, b, c = (math.tanh(value) for value in flat[14 + 3 * m : 17 + 3 * m])
        means = [means[0], means[1] + a * x[0], means[2] + b * x[0] + c * x[1]]
        product = 1.0
        for value, mean, log_scale in zip(x, means, log_scales, strict=True):
            scale = math.exp(max(log_scale, -7))
            edges = [1 / (1 + math.exp(-(value - mean + side / 255) / scale)) for side in (1, -1)]
            product *= edges[0] - edges[1]
        expected += weights[m] * product
    pixel = torch.tensor(values).view(1, 3, 1, 1) / 255
    got = discretized_logistic_mixture_log_prob(pixel, parameters, 2).item()
    assert got == pytest.approx(math.log(expected), rel=1e-3)


def test_pixels_between_8_bit_values_count_as_the_nearest():
    parameters = mixture_parameters(1, 1, 3)
    exact, between = torch.full((1, 1, 1, 1), 77 / 255), torch.full((1, 1, 1, 1), 77.3 / 255)
    assert torch.equal(
        discretized_logistic_mixture_log_prob(exact, parameters, 3),
        discretized_logistic_mixture_log_prob(between, parameters, 3),
    )


def test_improbable_pixels_have_finite_losses_and_gradients():
    parameters = mixture_parameters(2, 3, 2).clone()
    parameters[:, 2:8] = torch.tensor([1e4, -1e4]).view(2, 1, 1, 1)
    parameters.requires_grad_()
    loss = -discretized_logistic_mixture_log_prob(torch.full((2, 3, 1, 1), 0.5), parameters, 2).sum()
    loss.backward()
    assert loss.isfinite() and parameters.grad.isfinite().all()


def test_the_mean_of_a_sharp_mixture_is_what_its_probabilities_say():
    parameters = mixture_parameters(1, 2, 2).clone()
    parameters[:, 2:6] = torch.tensor([0.5, -0.2, -0.4, 0.1]).view(1, 4, 1, 1)
    parameters[:, 6:10] = -5.0
    parameters[:, 10:12] = torch.tensor([0.8, -0.6]).view(1, 2, 1, 1)
    grid = torch.cartesian_prod(torch.arange(256), torch.arange(256)).view(-1, 2, 1, 1) / 255
    probability = discretized_logistic_mixture_log_prob(grid, parameters.expand(len(grid), -1, 1, 1), 2).double().exp()
    expected = (probability.view(-1, 1) * grid.view(-1, 2)).sum(0)
    got = discretized_logistic_mixture_mean(parameters, 2, 2).view(2)
    torch.testing.assert_close(got.double(), expected, atol=2e-3, rtol=0)


def test_a_wrong_number_of_parameters_is_refused():
    with pytest.raises(ValueError, match="have 100 parameters a pixel, got 99"):
        discretized_logistic_mixture_log_prob(torch.zeros(1, 3, 2, 2), torch.zeros(1, 99, 2, 2), 10)


@pytest.mark.parametrize("num_values", [256, 64])
def test_the_mu_law_has_an_inverse_is_fine_around_silence_and_follows_its_formula(num_values):
    values = torch.arange(num_values)
    waveform = mu_law_decode(values, num_values)
    assert torch.equal(mu_law_encode(waveform, num_values), values)
    assert waveform[0] == -1 and waveform[-1] == pytest.approx(1) and (waveform.diff() > 0).all()
    torch.testing.assert_close(waveform, -waveform.flip(0))
    mu, x = num_values - 1, 0.3
    expected = round((math.log(1 + mu * x) / math.log(1 + mu) + 1) / 2 * mu)
    assert mu_law_encode(torch.tensor([x, -x]), num_values).tolist() == [expected, mu - expected]
    middle = num_values // 2
    assert waveform[middle + 1] - waveform[middle] < (waveform[-1] - waveform[-2]) / 20
