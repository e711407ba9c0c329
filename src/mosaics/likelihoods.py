"""Likelihoods of pixels: the term -log p(x | z) of an ELBO, and its value in bits per dimension."""

import math

import torch
import torch.nn.functional as F

LOGIT_LAPLACE_EPSILON = 0.1  # Ramesh et al. 2021, Appendix A.3


def map_pixels(pixel_values: torch.Tensor, epsilon: float = LOGIT_LAPLACE_EPSILON) -> torch.Tensor:
    """Maps pixels from [0, 1] into [epsilon, 1 - epsilon], where the logit-Laplace density is finite.

    The map phi of *Zero-Shot Text-to-Image Generation* (https://arxiv.org/abs/2102.12092), Appendix A.3.
    """
    return (1 - 2 * epsilon) * pixel_values + epsilon


def unmap_pixels(mapped: torch.Tensor, epsilon: float = LOGIT_LAPLACE_EPSILON) -> torch.Tensor:
    """The inverse of [`map_pixels`], clamped to [0, 1]."""
    return ((mapped - epsilon) / (1 - 2 * epsilon)).clamp(0, 1)


def logit_laplace_log_prob(mapped: torch.Tensor, mean: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    r"""Log-density of the logit-Laplace distribution, element by element.

    A variable whose logit is Laplace distributed; Eq. 2 of *Zero-Shot Text-to-Image Generation*
    (https://arxiv.org/abs/2102.12092):

        f(x | mu, b) = 1 / (2 b x (1 - x)) * exp(-|logit(x) - mu| / b),   logit(x) = ln(x / (1 - x))

    Args:
        mapped: Values x in the open interval (0, 1): pixels after [`map_pixels`].
        mean: Location mu, in logits, broadcastable to `mapped`.
        log_scale: ln b.

    Returns:
        The log-density in nats with respect to `mapped`; it can be positive.
    """
    logit = torch.log(mapped) - torch.log1p(-mapped)
    log_jacobian = torch.log(mapped) + torch.log1p(-mapped)
    return -math.log(2) - log_scale - log_jacobian - (logit - mean).abs() * torch.exp(-log_scale)


def logit_laplace_nll(
    pixel_values: torch.Tensor, mean: torch.Tensor, log_scale: torch.Tensor, epsilon: float = LOGIT_LAPLACE_EPSILON
) -> torch.Tensor:
    """Negative log-likelihood of pixels under the logit-Laplace distribution, averaged over every dimension.

    Args:
        pixel_values: `(B, C, H, W)` in [0, 1].
        mean: `(B, C, H, W)`, in logits.
        log_scale: `(B, C, H, W)`, ln b.
        epsilon: Margin of [`map_pixels`].

    Returns:
        A scalar, nats per dimension, of the density of the mapped pixels.
    """
    mapped = map_pixels(pixel_values.float(), epsilon)
    return -logit_laplace_log_prob(mapped, mean.float(), log_scale.float()).mean()


def logit_laplace_bits_per_dim(nll: torch.Tensor, epsilon: float = LOGIT_LAPLACE_EPSILON) -> torch.Tensor:
    """Bits per 8-bit pixel channel from the mean [`logit_laplace_nll`].

    The density of the mapped pixel times the width of one of the 255 steps between 8-bit values,
    (1 - 2 epsilon) / 255, approximates the probability of the value.
    """
    return (nll - math.log((1 - 2 * epsilon) / 255)) / math.log(2)


def gaussian_nll(pixel_values: torch.Tensor, mean: torch.Tensor, scale: float) -> torch.Tensor:
    """Negative log-likelihood under a Gaussian of fixed scale, in nats per dimension (pixels in [0, 1])."""
    return F.mse_loss(mean, pixel_values) / (2 * scale**2) + math.log(scale * math.sqrt(2 * math.pi))


MIN_LOG_LOGISTIC_SCALE = -7.0  # Salimans et al. 2017, the published implementation


def logistic_mixture_size(num_channels: int, num_mixtures: int) -> int:
    """Parameters of one pixel of [`discretized_logistic_mixture_log_prob`]: 100 for RGB and 10 components."""
    return num_mixtures * (1 + 2 * num_channels + num_channels * (num_channels - 1) // 2)


def discretized_logistic_mixture_log_prob(
    pixel_values: torch.Tensor, parameters: torch.Tensor, num_mixtures: int
) -> torch.Tensor:
    r"""Log-probability of 8-bit pixels under a mixture of discretised logistic distributions, pixel by pixel.

    Implements Section 2.1-2.2 of *PixelCNN++* (https://arxiv.org/abs/1701.05517). On the scale from -1 to 1, where
    values are 2/255 apart, component m of a channel gives the value x the probability

        sigmoid((x - mu_m + 1/255) / s_m) - sigmoid((x - mu_m - 1/255) / s_m)

    with -infinity below the value 0 and +infinity above 255: over the 256 values it sums to 1. The channels of a pixel
    share the component, and the mean of a channel is linear in the channels before it (green in red; blue in both).

    Args:
        pixel_values: `(B, C, H, W)` in [0, 1], rounded here to multiples of 1/255.
        parameters: `(B, logistic_mixture_size(C, M), H, W)`: M logits, then M of C means, M of C log-scales (bounded
            below by -7), and M of C (C - 1) / 2 coefficients before a tanh.
        num_mixtures: Number of components M.

    Returns:
        `(B, H, W)`, nats of all channels of a pixel together.
    """
    x = (pixel_values.float() * 255).round() * (2 / 255) - 1
    logits, means, log_scales, coefficients = _split_mixture(parameters, x.shape[1], num_mixtures)
    values = x[:, None].expand_as(means)
    centred = values - _channel_means(means, coefficients, values)
    inverse_scales = torch.exp(-log_scales)
    upper, lower = (centred + 1 / 255) * inverse_scales, (centred - 1 / 255) * inverse_scales
    log_below, log_above = F.logsigmoid(upper), F.logsigmoid(-lower)  # of what lies below and above the two edges
    # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), which does not cancel.
    log_inside = log_below + log_above + torch.log(-torch.expm1(-(2 / 255) * inverse_scales))
    log_probability = torch.where(values < -0.999, log_below, torch.where(values > 0.999, log_above, log_inside))
    return torch.logsumexp(logits.log_softmax(dim=1) + log_probability.sum(dim=2), dim=1)


def discretized_logistic_mixture_mean(parameters: torch.Tensor, num_channels: int, num_mixtures: int) -> torch.Tensor:
    """The mean picture `(B, C, H, W)` in [0, 1] of the mixture; arguments as for the log-probability.

    Within a component the means are linear in each other, so each channel takes the means of those before it.
    """
    logits, means, _, coefficients = _split_mixture(parameters, num_channels, num_mixtures)
    component_means: list[torch.Tensor] = []
    for channel in range(num_channels):
        known = torch.stack([*component_means, *means.unbind(2)[channel:]], dim=2)
        component_means.append(_channel_means(means, coefficients, known)[:, :, channel])
    mean = (logits.softmax(dim=1)[:, :, None] * torch.stack(component_means, dim=2)).sum(dim=1)
    return ((mean + 1) / 2).clamp(0, 1)


def logistic_mixture_of_residuals(
    mean: torch.Tensor, residuals: torch.Tensor, num_mixtures: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Parameters, linear in a pixel's prediction, of the mixture around predictions with such residuals.

    The components share the prediction and differ in their scales, an eighth to three times that of the residuals;
    each channel's coefficients are the regression of its residual on those of the channels before it.

    Args:
        mean: `(C,)` added to the predictions, which lie in [-1, 1].
        residuals: `(N, C)` pixels less predictions, in the same units.
        num_mixtures: Number of components M.

    Returns:
        A matrix `(logistic_mixture_size(C, M), C)` and a bias: `matrix @ prediction + bias` are the parameters.
    """
    channels = len(mean)
    covariance = (residuals.double().T @ residuals.double()) / len(residuals)
    regression = torch.zeros(channels, channels, dtype=torch.float64)
    for channel in range(1, channels):
        earlier = covariance[:channel, :channel] + 1e-12 * torch.eye(channel)
        regression[channel, :channel] = torch.linalg.solve(earlier, covariance[:channel, channel])
    regression = regression.clamp(-0.95, 0.95).float()
    to_means = torch.eye(channels) - regression  # the mixture adds the coefficients times the earlier channels' values
    unexplained = (residuals.float() @ to_means.T).square().mean(dim=0).clamp(min=1e-8).sqrt()
    scales = unexplained.log() - math.log(math.pi / math.sqrt(3))  # a logistic's deviation is pi / sqrt(3) scales
    spread = torch.linspace(-math.log(8), math.log(3), num_mixtures) if num_mixtures > 1 else torch.zeros(1)
    lower = torch.tril_indices(channels, channels, offset=-1)
    matrix = torch.zeros(logistic_mixture_size(channels, num_mixtures), channels)
    matrix[num_mixtures : num_mixtures * (1 + channels)] = to_means.repeat(num_mixtures, 1)
    bias = torch.cat(
        [
            torch.zeros(num_mixtures),
            (to_means @ mean.float()).repeat(num_mixtures),
            (scales + spread[:, None]).flatten(),
            regression[lower[0], lower[1]].atanh().repeat(num_mixtures),
        ]
    )
    return matrix, bias


def _split_mixture(parameters: torch.Tensor, num_channels: int, num_mixtures: int) -> tuple[torch.Tensor, ...]:
    """Logits (B, M, H, W); means, log-scales (B, M, C, H, W) and coefficients (B, M, C (C - 1) / 2, H, W)."""
    expected = logistic_mixture_size(num_channels, num_mixtures)
    if parameters.shape[1] != expected:
        raise ValueError(
            f"{num_mixtures} components of {num_channels} channels have {expected} parameters a pixel, got "
            f"{parameters.shape[1]}."
        )
    per_channel = num_mixtures * num_channels
    sizes = [num_mixtures, per_channel, per_channel, expected - num_mixtures - 2 * per_channel]
    logits, means, log_scales, coefficients = parameters.float().split(sizes, dim=1)
    means, log_scales, coefficients = (
        part.unflatten(1, (num_mixtures, part.shape[1] // num_mixtures)) for part in (means, log_scales, coefficients)
    )
    return logits, means, log_scales.clamp(min=MIN_LOG_LOGISTIC_SCALE), torch.tanh(coefficients)


def _channel_means(means: torch.Tensor, coefficients: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Means (B, M, C, H, W) of the channels, given the values (B, M, C, H, W) of the channels before each."""
    shifted, used = [], 0
    for channel in range(means.shape[2]):
        mean = means[:, :, channel]
        for earlier in range(channel):
            mean = mean + coefficients[:, :, used + earlier] * values[:, :, earlier]
        used += channel
        shifted.append(mean)
    return torch.stack(shifted, dim=2)


def mu_law_encode(waveform: torch.Tensor, num_values: int = 256) -> torch.Tensor:
    r"""Sound to integers, finely spaced around silence.

    The mu-law of ITU-T G.711, as in *WaveNet* (https://arxiv.org/abs/1609.03499), Section 2.2, with mu + 1 values:

        f(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu),   rounded from [-1, 1] to 0, ..., mu

    Args:
        waveform: Samples in [-1, 1], any shape.
        num_values: Number of integers mu + 1.
    """
    mu = num_values - 1
    compressed = waveform.sign() * torch.log1p(mu * waveform.abs()) / math.log1p(mu)
    # Samples that are NaN become some value: it is for the caller to look.
    return ((compressed + 1) / 2 * mu).round().nan_to_num().long().clamp(0, mu)


def mu_law_decode(values: torch.Tensor, num_values: int = 256) -> torch.Tensor:
    """Samples in [-1, 1] of the integers of [`mu_law_encode`]: the inverse of f."""
    mu = num_values - 1
    compressed = 2 * values / mu - 1
    return compressed.sign() * torch.expm1(compressed.abs() * math.log1p(mu)) / mu
