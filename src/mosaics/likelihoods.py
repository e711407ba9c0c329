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
