"""The average of the weights over the iterates of training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

__all__ = ["IterateAverage"]


class IterateAverage:
    r"""An exponential moving average of a model's trained parameters, in float32.

    DALL-E (https://arxiv.org/abs/2102.12092, appendix A.2 and B.2) evaluates and publishes such averages, with decay
    0.999. After optimizer step number `t` (from 1):

        average <- d_t * average + (1 - d_t) * parameters,    d_t = min(decay, (1 + t) / (10 + t))

    The smaller decay at the start forgets the random initialisation quickly.

    Args:
        model: The model that is trained; its parameters are read, and written by [`applied`].
        decay: Limit of the decay, in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad and p.is_floating_point()}
        self.averages = {name: p.detach().to(torch.float32, copy=True) for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int, accepted: torch.Tensor | None = None) -> None:
        """Takes the parameters after optimizer step `step` (from 1) into the average.

        Args:
            step: Optimizer steps taken, this one included.
            accepted: One number on the device, 1 if the step was taken and 0 if it was refused; a refused step
                leaves the average alone.
        """
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        averages = list(self.averages.values())
        current = [parameter.detach().float() for parameter in self.parameters.values()]
        if accepted is None:
            torch._foreach_lerp_(averages, current, weight)
        else:
            difference = torch._foreach_sub(current, averages)
            torch._foreach_mul_(difference, weight * accepted)
            torch._foreach_add_(averages, difference)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the averaged weights; after, its own again."""
        with torch.no_grad():
            own = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
            for name, parameter in self.parameters.items():
                parameter.copy_(self.averages[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(own[name])

    def state(self) -> dict[str, torch.Tensor]:
        """The averages by parameter name, whole tensors also when the model is sharded."""
        return {n: a.full_tensor() if isinstance(a, DTensor) else a for n, a in self.averages.items()}

    @torch.no_grad()
    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Puts back what [`state`] returned."""
        for name, average in self.averages.items():
            if isinstance(average, DTensor):
                whole = state[name].to(average.device)
                average.copy_(distribute_tensor(whole, average.device_mesh, average.placements))
            else:
                average.copy_(state[name])
