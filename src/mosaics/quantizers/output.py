"""What quantizers return, and the way between feature maps and rows of vectors."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput

from mosaics.outputs import always_set


@dataclass
class QuantizerOutput(ModelOutput):
    """What a quantizer of feature vectors returns; the losses are unscaled, the model weights them.

    Args:
        quantized: `(B, D, ...)` the code vectors, in the dtype of the features; the gradient goes to the features.
        indices: `(B, ...)` the codes, int64 in [0, K).
        codebook_loss: Scalar, mean of (sg[z] - e)^2 over all elements, which moves the codes; 0 where nothing does.
        commitment_loss: Scalar, mean of (z - sg[e])^2 over all elements, which moves the encoder.
        perplexity: Scalar, exp of the entropy of the codes' frequencies in this batch, 1 to K.
        codebook_usage: Scalar, share of the K codes that occur in this batch, 0 to 1.
    """

    quantized: torch.Tensor = always_set()
    indices: torch.Tensor = always_set()
    codebook_loss: torch.Tensor = always_set()
    commitment_loss: torch.Tensor = always_set()
    perplexity: torch.Tensor = always_set()
    codebook_usage: torch.Tensor = always_set()


def to_vectors(features: torch.Tensor, embedding_dim: int, owner: str) -> torch.Tensor:
    """The vectors `(N, D)` of features `(B, D, ...)`, in float32.

    Args:
        features: `(B, D, ...)` with any number of trailing axes, floating point.
        embedding_dim: Size D of a vector.
        owner: Class name for the message.

    Raises:
        ValueError: On another shape or dtype, or if there is no vector.
    """
    if features.ndim < 2 or features.shape[1] != embedding_dim or features.numel() == 0:
        raise ValueError(
            f"{owner} expects features of shape (batch, {embedding_dim}, ...) with at least one vector, got "
            f"{tuple(features.shape)}. If the encoder is wider than the codebook, project it with a 1x1 convolution."
        )
    if not features.is_floating_point():
        raise ValueError(f"{owner} expects floating point features, got {features.dtype}.")
    return features.movedim(1, -1).reshape(-1, embedding_dim).float()


def from_vectors(vectors: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Vectors `(N, D)` as a feature map `(B, D, ...)` with the batch and trailing axes of `features`, a view."""
    shape = (features.shape[0], *features.shape[2:], vectors.shape[1])
    return vectors.view(shape).movedim(-1, 1)


def indices_like(indices: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Indices `(N,)` with the batch and trailing axes of `features`, `(B, ...)`."""
    return indices.view(features.shape[0], *features.shape[2:])


def check_codebook_size(num_embeddings: int, embedding_dim: int, owner: str) -> None:
    """Raises a `ValueError` unless there are at least two codes of at least one number."""
    if num_embeddings < 2 or embedding_dim < 1:
        raise ValueError(
            f"{owner} needs num_embeddings of at least 2 and embedding_dim of at least 1, got {num_embeddings} and "
            f"{embedding_dim}."
        )
