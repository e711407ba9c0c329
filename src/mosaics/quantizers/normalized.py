"""The factorised, l2-normalised codes of the ViT-VQGAN and LlamaGen."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

from mosaics.quantizers.gradient_estimators import find_estimator
from mosaics.quantizers.nearest import nearest_codes
from mosaics.quantizers.output import QuantizerOutput, check_codebook_size, from_vectors, indices_like, to_vectors
from mosaics.quantizers.usage import code_statistics


class NormalizedVectorQuantizer(nn.Module):
    r"""Looks codes up by direction in a space of few dimensions, which keeps large codebooks in use.

    Implements "factorized codes" and "l2-normalized codes" of *Vector-quantized Image Modeling with Improved VQGAN*
    (https://arxiv.org/abs/2110.04627, Section 3.2), the quantizer of LlamaGen (https://arxiv.org/abs/2406.06525) too.
    Features are projected from D to `code_dim` numbers; projection and codes are scaled to length one, so the nearest
    code is the one of the largest cosine; the code is projected back to D.

        codebook_loss   = || sg[z'] - e' ||^2     z' = A z / ||A z||,  e' = e / ||e||
        commitment_loss = || z' - sg[e'] ||^2

    Args:
        num_embeddings: Number of codes K.
        embedding_dim: Size D of the features.
        code_dim: Size of a code (papers: 32 and 8).
        gradient_estimator: `"straight_through"` or `"rotation"`.

    Shape:
        - Input: `(B, D, ...)`, any number of trailing axes and any floating dtype; computed in float32.
        - Output: [`QuantizerOutput`] with `quantized` `(B, D, ...)` and `indices` `(B, ...)`.

    Raises:
        ValueError: On another channel count; when not training, on features that are NaN or infinite.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        code_dim: int = 8,
        gradient_estimator: str = "straight_through",
    ):
        super().__init__()
        check_codebook_size(num_embeddings, min(embedding_dim, code_dim), type(self).__name__)
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self._estimator = find_estimator(gradient_estimator)
        self.codebook = nn.Parameter(torch.empty(num_embeddings, code_dim))
        self.project_in = nn.Linear(embedding_dim, code_dim)
        self.project_out = nn.Linear(code_dim, embedding_dim)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Codes in random directions; projections that keep the variance."""
        init.normal_(self.codebook)
        for projection in (self.project_in, self.project_out):
            init.normal_(projection.weight, std=projection.in_features**-0.5)
            init.zeros_(projection.bias)

    def forward(self, features: torch.Tensor) -> QuantizerOutput:
        """The codes of nearest direction of `features` `(B, D, ...)`; see the class."""
        vectors = to_vectors(features, self.embedding_dim, type(self).__name__)
        with torch.autocast(features.device.type, enabled=False):
            directions, codes = self._directions(vectors), self._codes()
            indices = nearest_codes(directions, codes, allow_nonfinite=self.training)
            entries = F.embedding(indices, codes)
            perplexity, usage = code_statistics(indices, self.num_embeddings)
            quantized = self._project_out(self._estimator(directions, entries))
        return QuantizerOutput(
            quantized=from_vectors(quantized, features).to(features.dtype),
            indices=indices_like(indices, features),
            codebook_loss=F.mse_loss(entries, directions.detach()),
            commitment_loss=F.mse_loss(directions, entries.detach()),
            perplexity=perplexity,
            codebook_usage=usage,
        )

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """The codes `(B, ...)` of `features` `(B, D, ...)`, which must be finite."""
        vectors = to_vectors(features, self.embedding_dim, type(self).__name__)
        with torch.autocast(features.device.type, enabled=False):
            return indices_like(nearest_codes(self._directions(vectors), self._codes()), features)

    def lookup(self, indices: torch.Tensor) -> torch.Tensor:
        """Projected code vectors `(B, D, ...)` of `indices` `(B, ...)`."""
        with torch.autocast(indices.device.type, enabled=False):
            quantized = self._project_out(F.embedding(indices, self._codes()))
        return quantized.to(self.codebook.dtype).movedim(-1, 1)

    def _directions(self, vectors: torch.Tensor) -> torch.Tensor:
        layer = self.project_in
        return F.normalize(F.linear(vectors, layer.weight.float(), layer.bias.float()), dim=1)  # (N, code_dim)

    def _codes(self) -> torch.Tensor:
        return F.normalize(self.codebook.float(), dim=1)  # (K, code_dim)

    def _project_out(self, codes: torch.Tensor) -> torch.Tensor:
        return F.linear(codes, self.project_out.weight.float(), self.project_out.bias.float())
