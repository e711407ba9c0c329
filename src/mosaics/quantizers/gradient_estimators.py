"""How a gradient passes through the lookup of a code, which has none of its own."""

from collections.abc import Callable
from typing import Any

import torch

from mosaics.quantizers.rotation import rotation_trick


class _StraightThrough(torch.autograd.Function):
    """Forward the second argument, backward to the first: no arithmetic, no copy."""

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, entries: torch.Tensor) -> torch.Tensor:
        return entries.view_as(entries)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[torch.Tensor, None]:
        return gradients[0], None


def straight_through(features: torch.Tensor, entries: torch.Tensor) -> torch.Tensor:
    """The values of `entries`, exactly, with the gradient of the identity to `features`, of the same shape.

    The straight-through estimator, Section 3.2 of *Neural Discrete Representation Learning*
    (https://arxiv.org/abs/1711.00937). No gradient goes to `entries`.
    """
    return _StraightThrough.apply(features, entries.detach())


GRADIENT_ESTIMATORS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "straight_through": straight_through,
    "rotation": rotation_trick,
}


def find_estimator(name: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The estimator of a name: from features `(B, D, ...)` and their codes, alike, to the codes with a gradient.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in GRADIENT_ESTIMATORS:
        raise ValueError(f"gradient_estimator must be one of {', '.join(GRADIENT_ESTIMATORS)}, got {name!r}.")
    return GRADIENT_ESTIMATORS[name]
