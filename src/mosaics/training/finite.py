"""Refusing the steps that would fill the weights with NaN."""

from typing import Any

import torch
from accelerate import Accelerator
from transformers.utils import logging

from mosaics.training.config import TrainingConfig
from mosaics.training.processes import sum_over_processes

logger = logging.get_logger(__name__)

__all__ = ["FiniteGuard", "NonFiniteError"]


class NonFiniteError(FloatingPointError):
    """The loss or the gradient was NaN or infinite; the message names the step and the samples."""


class FiniteGuard:
    """Takes an optimizer step only if loss and gradient are finite on every process.

    A refused step leaves parameters, optimizer state and the model's buffers (such as the statistics of a codebook,
    which change in the forward pass) as they were before it; only the step counter moves on, so the next step reads
    other data.
    """

    def __init__(self, config: TrainingConfig, accelerator: Accelerator, model: torch.nn.Module):
        self.config, self.accelerator = config, accelerator
        self.buffers = [buffer for buffer in model.buffers() if buffer.numel()]
        self._before: list[torch.Tensor] = []
        self._watched: torch.Tensor | None = None
        self.refused = self._in_a_row = 0

    @torch.no_grad()
    def begin_step(self) -> None:
        """Remembers the buffers as they are before the forward passes of a step."""
        self._before = [buffer.clone() for buffer in self.buffers]
        self._watched = None

    @torch.no_grad()
    def watch(self, loss: torch.Tensor) -> None:
        """Notes whether the loss of a micro-batch is finite."""
        finite = torch.isfinite(loss.detach()).reshape(())
        self._watched = finite if self._watched is None else self._watched & finite

    @torch.no_grad()
    def step(
        self, optimizer: Any, gradient_norm: torch.Tensor, step: int, keys: list[torch.Tensor]
    ) -> torch.Tensor | None:
        """Steps the optimizer if all is finite on all processes.

        Returns:
            `None` if the step was taken, a zero if it was refused.
        """
        finite = self._watched & torch.isfinite(gradient_norm).reshape(())
        refusals = sum_over_processes(self.accelerator, (~finite).to(torch.float32))
        if refusals.item() == 0:
            optimizer.step()
            self._in_a_row = 0
            return None
        for buffer, before in zip(self.buffers, self._before, strict=True):
            buffer.copy_(before)
        self._refuse(step, gradient_norm, keys)
        return torch.zeros((), device=self.accelerator.device)

    def _refuse(self, step: int, gradient_norm: torch.Tensor, keys: list[torch.Tensor]) -> None:
        """Counts a refused step, and stops if the policy says so."""
        self.refused += 1
        self._in_a_row += 1
        samples = [tuple(key) for part in keys for key in part.tolist()]
        problem = (
            f"The loss or the gradient of step {step} is not finite (gradient norm here: {gradient_norm.item()}). "
            f"Samples read here, as (epoch, index): {samples}."
        )
        if self.config.nonfinite == "skip" and self._in_a_row <= self.config.max_nonfinite_steps:
            logger.warning(f"{problem} The step was skipped: nothing was changed.")
            return
        skipped = f" {self._in_a_row} steps in a row were refused." if self.config.nonfinite == "skip" else ""
        raise NonFiniteError(
            f"{problem}{skipped} The weights are still finite. Look at these samples, or lower learning_rate or "
            "max_grad_norm; --nonfinite skip passes over single bad batches."
        )

    def agree(self, stop: bool) -> bool:
        """Whether any process wants to stop."""
        if self.accelerator.num_processes == 1:
            return stop
        return (
            sum_over_processes(self.accelerator, torch.tensor(float(stop), device=self.accelerator.device)).item() > 0
        )

    def settle(self) -> None:
        """Waits for decisions that are still on the device."""

    def state(self) -> list[int]:
        """Refused steps, in all and in a row."""
        return [self.refused, self._in_a_row]

    def load_state(self, state: list[int]) -> None:
        """Puts back what [`state`] returned."""
        self.refused, self._in_a_row = state
