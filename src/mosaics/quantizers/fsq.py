"""Finite scalar quantization: codes without a codebook."""

import math

import torch
from torch import nn

from mosaics.quantizers.output import QuantizerOutput, from_vectors, indices_like, to_vectors
from mosaics.quantizers.usage import code_statistics

BOUND_MARGIN = 1e-3  # keeps the outermost values inside the last cells
MAX_CODES = 2**24  # their frequencies are counted in every batch


class FiniteScalarQuantizer(nn.Module):
    r"""Rounds each of a few channels to a fixed number of levels; the code is the tuple of levels.

    Implements *Finite Scalar Quantization: VQ-VAE Made Simple* (https://arxiv.org/abs/2309.15505), Section 3.1 and
    Appendix A. Channel i is bounded by a tanh so that rounding gives `levels[i]` integers, and divided by
    half their number, to lie in [-1, 1]. Rounding passes the gradient on unchanged. There is nothing to learn, so
    nothing collapses: both losses are 0. An even number of levels is not symmetric about 0: 4 levels are
    -1, -1/2, 0, 1/2.

    Args:
        levels: Levels of each channel, at least 2 (paper: at least 5), such as `[8, 5, 5, 5]` for K = 1000 codes.

    Shape:
        - Input: `(B, len(levels), ...)`, any number of trailing axes and any floating dtype; computed in float32.
        - Output: [`QuantizerOutput`] with `quantized` `(B, len(levels), ...)` and `indices` `(B, ...)`.

    Raises:
        ValueError: On another channel count; when not training, on features that are NaN.

    Example:
    ```python
    >>> import torch
    >>> from mosaics.quantizers import FiniteScalarQuantizer
    >>> quantizer = FiniteScalarQuantizer([8, 5, 5, 5])
    >>> quantizer.num_embeddings
    1000
    >>> quantizer.lookup(torch.tensor([[0, 999]]))[0, :, 1]
    tensor([0.7500, 1.0000, 1.0000, 1.0000])

    ```
    """

    def __init__(self, levels: list[int] | tuple[int, ...]):
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError(f"levels must be integers of at least 2, one for each channel, got {list(levels)}.")
        self.levels = tuple(levels)
        self.num_embeddings = math.prod(self.levels)
        self.embedding_dim = len(self.levels)
        if self.num_embeddings > MAX_CODES:
            raise ValueError(
                f"levels {list(levels)} make {self.num_embeddings:,} codes, expected at most {MAX_CODES:,}."
            )

    def forward(self, features: torch.Tensor) -> QuantizerOutput:
        """Rounded `features` `(B, len(levels), ...)`; see the class."""
        vectors = to_vectors(features, self.embedding_dim, type(self).__name__)
        if not self.training:
            _refuse_nan(vectors)
        bounded, half_widths = self._bound(vectors), self._levels(vectors) // 2
        rounded = bounded.detach().round()
        indices = self._join(rounded)
        perplexity, usage = code_statistics(indices, self.num_embeddings)
        quantized = (rounded + (bounded - bounded.detach())) / half_widths
        return QuantizerOutput(
            quantized=from_vectors(quantized, features).to(features.dtype),
            indices=indices_like(indices, features),
            codebook_loss=vectors.new_zeros(()),
            commitment_loss=vectors.new_zeros(()),
            perplexity=perplexity,
            codebook_usage=usage,
        )

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """The codes `(B, ...)` of `features` `(B, len(levels), ...)`, none of which may be NaN."""
        vectors = to_vectors(features, self.embedding_dim, type(self).__name__)
        _refuse_nan(vectors)
        return indices_like(self._join(self._bound(vectors).round()), features)

    def lookup(self, indices: torch.Tensor) -> torch.Tensor:
        """Code vectors `(B, len(levels), ...)` of `indices` `(B, ...)`."""
        levels, places = self._levels(indices), self._places(indices)
        digits = indices[..., None] // places % levels  # (B, ..., D)
        half_widths = levels // 2
        return ((digits - half_widths) / half_widths).movedim(-1, 1)

    def _bound(self, vectors: torch.Tensor) -> torch.Tensor:
        """Into the open interval whose integers are the levels: (-L/2, L/2), lower by a half for even L."""
        levels = self._levels(vectors)
        half_lengths = (levels - 1) * (1 - BOUND_MARGIN) / 2
        offsets = 0.5 * (levels % 2 == 0)
        shifts = torch.tan(offsets / half_lengths)  # as published; 0 then comes close to 0
        return torch.tanh(vectors + shifts) * half_lengths - offsets

    def _join(self, rounded: torch.Tensor) -> torch.Tensor:
        """The number whose digits are the levels, the first channel's digit the last."""
        levels = self._levels(rounded)
        digits = (rounded.nan_to_num() + levels // 2).long()  # in training NaN gets this far
        return (digits * self._places(rounded)).sum(dim=1)

    def _levels(self, like: torch.Tensor) -> torch.Tensor:
        return torch.tensor(self.levels, device=like.device)

    def _places(self, like: torch.Tensor) -> torch.Tensor:
        return torch.tensor([math.prod(self.levels[:i]) for i in range(len(self.levels))], device=like.device)


def _refuse_nan(vectors: torch.Tensor) -> None:
    if torch.isnan(vectors).any():
        raise ValueError("FiniteScalarQuantizer got features that are NaN: no code is nearest to them.")
