"""The quantizer of the VQ-VAE, its codebook learned by gradient."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

from mosaics.quantizers.gradient_estimators import find_estimator
from mosaics.quantizers.nearest import nearest_codes
from mosaics.quantizers.output import QuantizerOutput, check_codebook_size, from_vectors, indices_like, to_vectors
from mosaics.quantizers.usage import code_statistics


class VectorQuantizer(nn.Module):
    r"""Replaces each feature vector by its nearest codebook entry.

    Implements Eqs. 1-3 of *Neural Discrete Representation Learning* (https://arxiv.org/abs/1711.00937). The backward
    pass treats the lookup as the identity (straight-through estimator), or as a rotation. The losses come back
    unscaled: the model weights them. Both are means over all elements, as in the published implementation.

        codebook_loss   = || sg[z] - e ||^2      moves the codes      (weight 1 in the paper)
        commitment_loss = || z - sg[e] ||^2      moves the encoder    (weight beta in the paper)

    Args:
        num_embeddings: Number of codes K.
        embedding_dim: Size D of one code. Must equal the channel count of the input.
        gradient_estimator: `"straight_through"` or `"rotation"`.

    Shape:
        - Input: `(B, D, ...)`, any number of trailing axes and any floating dtype; distances are computed in float32.
        - Output: [`QuantizerOutput`] with `quantized` `(B, D, ...)` and `indices` `(B, ...)`.

    Raises:
        ValueError: On another channel count; when not training, on features that are NaN or infinite. In training
            those pass into the losses, so that all processes can refuse the step together.

    Example:
    ```python
    >>> import torch
    >>> from mosaics.quantizers import VectorQuantizer
    >>> output = VectorQuantizer(num_embeddings=512, embedding_dim=64)(torch.randn(2, 64, 8, 8))
    >>> output.quantized.shape, output.indices.shape
    (torch.Size([2, 64, 8, 8]), torch.Size([2, 8, 8]))

    ```
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, gradient_estimator: str = "straight_through"):
        super().__init__()
        check_codebook_size(num_embeddings, embedding_dim, type(self).__name__)
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self._estimator = find_estimator(gradient_estimator)
        self.codebook = nn.Parameter(torch.empty(num_embeddings, embedding_dim))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Codes uniform in [-1/K, 1/K]."""
        init.uniform_(self.codebook, -1 / self.num_embeddings, 1 / self.num_embeddings)

    @torch.no_grad()
    def start_at(self, centroids: torch.Tensor, counts: torch.Tensor) -> None:
        """Sets the codes to centroids `(K, D)`; how many vectors each is of, `counts` `(K,)`, does not matter here."""
        self.codebook.copy_(centroids)

    def forward(self, features: torch.Tensor) -> QuantizerOutput:
        """The nearest codes of `features` `(B, D, ...)`; see the class."""
        vectors = to_vectors(features.detach(), self.embedding_dim, type(self).__name__)  # (N, D)
        indices = nearest_codes(vectors, self.codebook, allow_nonfinite=self.training)
        entries = from_vectors(F.embedding(indices, self.codebook).float(), features)
        perplexity, usage = code_statistics(indices, self.num_embeddings)
        return QuantizerOutput(
            quantized=self._estimator(features.float(), entries).to(features.dtype),
            indices=indices_like(indices, features),
            codebook_loss=F.mse_loss(entries, features.detach().float()),
            commitment_loss=F.mse_loss(features.float(), entries.detach()),
            perplexity=perplexity,
            codebook_usage=usage,
        )

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """The nearest codes `(B, ...)` of `features` `(B, D, ...)`, which must be finite."""
        vectors = to_vectors(features, self.embedding_dim, type(self).__name__)
        return indices_like(nearest_codes(vectors, self.codebook), features)

    def lookup(self, indices: torch.Tensor) -> torch.Tensor:
        """Code vectors `(B, D, ...)` of `indices` `(B, ...)`."""
        return F.embedding(indices, self.codebook).movedim(-1, 1)
