"""A codebook for each of several vectors at a position."""

from collections.abc import Callable

import torch
from torch import nn

from mosaics.quantizers.output import QuantizerOutput


class ProductQuantizer(nn.Module):
    r"""Quantizes each of the L vectors of a position with a codebook of its own.

    *Product Quantization for Nearest Neighbor Search* (Jégou et al. 2011), Section II-B: the codes of a position
    say which of K^L combinations is meant, at the cost of L searches among K.

    Args:
        build: Makes the quantizer of one part; called L times.
        num_parts: Number of vectors at a position L, at least 1.

    Shape:
        - Input: `(B, D, ..., L)`.
        - Output: [`QuantizerOutput`] with `quantized` `(B, D, ..., L)` and `indices` `(B, ..., L)`, each in [0, K).
          Losses, perplexity and usage are the means over the parts.

    Raises:
        ValueError: If the last axis has another size than L, and what the quantizers raise.
    """

    def __init__(self, build: Callable[[], nn.Module], num_parts: int):
        super().__init__()
        if num_parts < 1:
            raise ValueError(f"ProductQuantizer needs num_parts of at least 1, got {num_parts}.")
        self.parts = nn.ModuleList(build() for _ in range(num_parts))

    def forward(self, features: torch.Tensor) -> QuantizerOutput:
        """The nearest codes of `features` `(B, D, ..., L)`, part by part."""
        outputs = [part(vectors) for part, vectors in self._pairs(features)]

        def mean(name: str) -> torch.Tensor:
            return torch.stack([output[name] for output in outputs]).mean()

        return QuantizerOutput(
            quantized=torch.stack([output.quantized for output in outputs], dim=-1),
            indices=torch.stack([output.indices for output in outputs], dim=-1),
            codebook_loss=mean("codebook_loss"),
            commitment_loss=mean("commitment_loss"),
            perplexity=mean("perplexity"),
            codebook_usage=mean("codebook_usage"),
        )

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """The nearest codes `(B, ..., L)` of `features` `(B, D, ..., L)`, which must be finite."""
        return torch.stack([part.encode(vectors) for part, vectors in self._pairs(features)], dim=-1)

    def lookup(self, indices: torch.Tensor) -> torch.Tensor:
        """Code vectors `(B, D, ..., L)` of `indices` `(B, ..., L)`."""
        return torch.stack([part.lookup(codes) for part, codes in self._pairs(indices)], dim=-1)

    def _pairs(self, tensor: torch.Tensor) -> list[tuple]:
        if tensor.shape[-1] != len(self.parts):
            raise ValueError(
                f"ProductQuantizer has {len(self.parts)} parts, the last axis of the input has {tensor.shape[-1]}."
            )
        return list(zip(self.parts, tensor.unbind(dim=-1), strict=True))
