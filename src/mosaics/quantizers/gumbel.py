"""The Gumbel-softmax relaxation of a categorical latent, and its KL divergence to the uniform prior."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers.utils import ModelOutput

from mosaics.outputs import always_set
from mosaics.quantizers.usage import code_statistics


@dataclass
class GumbelQuantizerOutput(ModelOutput):
    """What a [`GumbelQuantizer`] returns.

    Args:
        quantized: `(B, D, h, w)` mixtures of code vectors (one code vector each when not training).
        indices: `(B, h, w)` the most probable code of each position.
        kl: Scalar, KL(q(z|x) || Uniform(K)) in nats per position, averaged over positions and batch.
        perplexity: Scalar, exp of the entropy of the codes' frequencies in this batch, 1 to K.
        codebook_usage: Scalar, share of the K codes that occur in this batch, 0 to 1.
    """

    quantized: torch.Tensor = always_set()
    indices: torch.Tensor = always_set()
    kl: torch.Tensor = always_set()
    perplexity: torch.Tensor = always_set()
    codebook_usage: torch.Tensor = always_set()


def kl_to_uniform(logits: torch.Tensor, dim: int = 1) -> torch.Tensor:
    """KL(Cat(softmax(logits)) || Uniform(K)) = ln K - entropy, in nats, element by element over the other axes."""
    log_probabilities = logits.float().log_softmax(dim)
    return (log_probabilities.exp() * log_probabilities).sum(dim) + math.log(logits.shape[dim])


def gumbel_softmax(
    logits: torch.Tensor, temperature: float, dim: int = 1, generator: torch.Generator | None = None
) -> torch.Tensor:
    """A sample of the relaxed categorical distribution: softmax((logits + Gumbel noise) / temperature).

    Implements *Categorical Reparameterization with Gumbel-Softmax* (https://arxiv.org/abs/1611.01144), Eq. 2, in
    float32. As the temperature goes to 0 the sample becomes one-hot with the probabilities softmax(logits).

    Raises:
        ValueError: If `temperature` is not a positive finite number.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"gumbel_temperature must be a positive finite number, got {temperature!r}.")
    noise = torch.empty_like(logits, dtype=torch.float32).exponential_(generator=generator).log_().neg_()
    return ((logits.float() + noise) / temperature).softmax(dim)


class GumbelQuantizer(nn.Module):
    r"""Turns logits over K codes into code vectors through the Gumbel-softmax relaxation.

    The bottleneck of the discrete VAE of *Zero-Shot Text-to-Image Generation* (https://arxiv.org/abs/2102.12092).
    In training a position becomes the mixture sum_k y_k e_k of code vectors, y a Gumbel-softmax sample; otherwise the
    most probable code is looked up. With `straight_through` the training value, too, is a single sampled code, and
    the gradient is the mixture's.

    Args:
        num_embeddings: Number of codes K.
        embedding_dim: Size D of a code vector.

    Shape:
        - Input: logits `(B, K, h, w)`; computed in float32 under autocast.
        - Output: [`GumbelQuantizerOutput`].
    """

    def __init__(self, num_embeddings: int, embedding_dim: int):
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.codebook = nn.Parameter(torch.empty(num_embeddings, embedding_dim))
        self.bias = nn.Parameter(torch.empty(embedding_dim))

    def forward(
        self, logits: torch.Tensor, temperature: float = 1.0, straight_through: bool = False
    ) -> GumbelQuantizerOutput:
        """Relaxed codes when training, the most probable codes otherwise; see the class."""
        indices = logits.argmax(dim=1)
        perplexity, usage = code_statistics(indices, self.num_embeddings)
        quantized = self._relax(logits, temperature, straight_through) if self.training else self.lookup(indices)
        return GumbelQuantizerOutput(
            quantized=quantized,
            indices=indices,
            kl=kl_to_uniform(logits).mean(),
            perplexity=perplexity,
            codebook_usage=usage,
        )

    def lookup(self, indices: torch.Tensor) -> torch.Tensor:
        """Code vectors `(B, D, h, w)` of `indices` `(B, h, w)`."""
        return (F.embedding(indices, self.codebook) + self.bias).permute(0, 3, 1, 2)

    def select(self, indices: torch.Tensor) -> GumbelQuantizerOutput:
        """The output for certain codes `(B, h, w)`: a distribution on one code has a KL of ln K to the uniform one."""
        perplexity, usage = code_statistics(indices, self.num_embeddings)
        return GumbelQuantizerOutput(
            quantized=self.lookup(indices),
            indices=indices,
            kl=torch.full_like(perplexity, math.log(self.num_embeddings)),
            perplexity=perplexity,
            codebook_usage=usage,
        )

    def _relax(self, logits: torch.Tensor, temperature: float, straight_through: bool) -> torch.Tensor:
        weights = gumbel_softmax(logits, temperature)  # (B, K, h, w)
        mixture = torch.einsum("bkhw,kd->bdhw", weights, self.codebook) + self.bias[:, None, None]
        if not straight_through:
            return mixture
        sampled = self.lookup(weights.argmax(dim=1))
        # The value is the sampled code's vector, the gradient the mixture's.
        return mixture + (sampled - mixture).detach()
