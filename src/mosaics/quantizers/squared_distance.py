"""The distance between features and codes, as the losses have it."""

from typing import Any

import torch
from torch.autograd.function import once_differentiable


class _MeanSquaredDistance(torch.autograd.Function):
    """The mean square of a difference, which is kept: so both ways pass over memory once."""

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, entries: torch.Tensor) -> torch.Tensor:
        difference = features - entries
        ctx.save_for_backward(difference)
        return torch.linalg.vector_norm(difference).square() / difference.numel()

    @staticmethod
    @once_differentiable  # which is not typed
    def backward(ctx: Any, *gradients: Any) -> tuple[torch.Tensor | None, torch.Tensor | None]:  # pyrefly: ignore[bad-override]
        (difference,) = ctx.saved_tensors
        to_features = difference * (gradients[0] * 2 / difference.numel())
        return (
            to_features if ctx.needs_input_grad[0] else None,
            -to_features if ctx.needs_input_grad[1] else None,
        )


def mean_squared_distance(features: torch.Tensor, entries: torch.Tensor) -> torch.Tensor:
    """The mean of (features - entries)^2 over all elements, in float32, a scalar.

    Args:
        features: Any floating dtype and shape.
        entries: Of the same shape.
    """
    return _MeanSquaredDistance.apply(features.float(), entries.float())
