"""How a gradient passes through the lookup of a code, which has none of its own."""

from collections.abc import Callable

import torch

from mosaics.quantizers.rotation import rotation_trick


def straight_through(vectors: torch.Tensor, entries: torch.Tensor) -> torch.Tensor:
    """The values of `entries`, exactly, with the gradient of the identity to `vectors`.

    The straight-through estimator, Section 3.2 of *Neural Discrete Representation Learning*
    (https://arxiv.org/abs/1711.00937). No gradient goes to `entries`; vectors that are NaN stay visible.
    """
    return entries.detach() + (vectors - vectors.detach())


GRADIENT_ESTIMATORS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "straight_through": straight_through,
    "rotation": rotation_trick,
}


def find_estimator(name: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The estimator of a name: from vectors `(N, D)` and their codes `(N, D)` to the codes with a gradient.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in GRADIENT_ESTIMATORS:
        raise ValueError(f"gradient_estimator must be one of {', '.join(GRADIENT_ESTIMATORS)}, got {name!r}.")
    return GRADIENT_ESTIMATORS[name]
