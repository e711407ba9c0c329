"""Refusing the steps that would fill the weights with NaN."""

from dataclasses import dataclass
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


@dataclass
class _Verdict:
    """What all processes found about one step, on its way from the device."""

    found: torch.Tensor  # (3,): processes with a loss, with a gradient that is not finite; processes told to stop
    arrived: Any  # an event to wait for, or None
    step: int
    keys: list[torch.Tensor]


class FiniteGuard:
    """Takes an optimizer step only if loss and gradient are finite on every process.

    A refused step leaves parameters, optimizer state and the model's buffers (such as the statistics of a codebook,
    which change in the forward pass) as they were before it; only the step counter moves on, so the next step reads
    other data.

    On a CUDA device nothing waits for the decision: the fused optimizer takes it on the device (`found_inf`), and
    the host reads it one step later, before the next update. Elsewhere the host decides at once.

    Args:
        config: `nonfinite` and `max_nonfinite_steps` are read.
        accelerator: The run's accelerator.
        model: The model without wrappers; its buffers are guarded.
        deferred: Whether the host reads decisions one step later.
    """

    def __init__(
        self, config: TrainingConfig, accelerator: Accelerator, model: torch.nn.Module, deferred: bool | None = None
    ):
        self.config, self.accelerator = config, accelerator
        self.buffers = [buffer for buffer in model.buffers() if buffer.numel()]
        self.deferred = accelerator.device.type == "cuda" if deferred is None else deferred
        self.refused = self._in_a_row = 0
        self.stop_agreed = False
        self._before: list[torch.Tensor] = []
        self._losses_finite: list[torch.Tensor] = []
        self._pending: _Verdict | None = None

    @torch.no_grad()
    def begin_step(self) -> None:
        """Remembers the buffers as they are before the forward passes of a step."""
        self._before = [buffer.clone() for buffer in self.buffers]
        self._losses_finite = []

    @torch.no_grad()
    def watch(self, loss: torch.Tensor) -> None:
        """Notes whether the loss of a micro-batch is finite."""
        self._losses_finite.append(torch.isfinite(loss.detach()).reshape(()))

    @torch.no_grad()
    def step(
        self, optimizer: Any, gradient_norm: torch.Tensor, step: int, keys: list[torch.Tensor], stop: bool = False
    ) -> torch.Tensor:
        """Steps the optimizer if all is finite on all processes.

        Args:
            optimizer: The prepared optimizer, its gradients unscaled and clipped.
            gradient_norm: Norm of the gradient before clipping.
            step: Number of the step, for messages.
            keys: Epoch and index (B, 2) of the samples of each micro-batch read here, for messages.
            stop: Whether this process has been told to stop; all learn of it with the same message.

        Returns:
            1 if the step was taken and 0 if it was refused, on the device.

        Raises:
            NonFiniteError: As the policy says; nothing has been changed then.
        """
        self.settle()
        losses_finite = torch.stack(self._losses_finite).all()
        finite = torch.stack([losses_finite, torch.isfinite(gradient_norm).reshape(())])
        found = torch.cat([(~finite).float(), torch.full((1,), float(stop), device=finite.device)])
        found = sum_over_processes(self.accelerator, found)
        refused = (found[:2].sum() > 0).float()
        inner = getattr(optimizer, "optimizer", optimizer)
        if self.accelerator.scaler is not None:
            optimizer.step()  # the scaler itself skips a step with infinite gradients, and lowers its scale
        elif self.deferred and inner.defaults.get("fused"):
            inner.grad_scale, inner.found_inf = None, refused
            optimizer.step()
            del inner.grad_scale, inner.found_inf
        elif refused.item() == 0:
            optimizer.step()
        for buffer, before in zip(self.buffers, self._before, strict=True):
            buffer.copy_(torch.where(refused > 0, before, buffer))
        self._pending = self._send(found, step, keys)
        if not self.deferred:
            self.settle()
        return 1 - refused

    def _send(self, found: torch.Tensor, step: int, keys: list[torch.Tensor]) -> _Verdict:
        if found.device.type != "cuda":
            return _Verdict(found, None, step, keys)
        host = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
        host.copy_(found, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return _Verdict(host, arrived, step, keys)

    def settle(self) -> None:
        """Waits for the decision about the last step and acts on it.

        Raises:
            NonFiniteError: As the policy says.
        """
        verdict, self._pending = self._pending, None
        if verdict is None:
            return
        if verdict.arrived is not None:
            verdict.arrived.synchronize()
        bad_losses, bad_gradients, stops = verdict.found.tolist()
        self.stop_agreed = stops > 0
        if bad_losses + bad_gradients == 0:
            self._in_a_row = 0
        elif self.accelerator.scaler is not None and bad_losses == 0 and self.accelerator.scaler.get_scale() >= 1:
            self.refused += 1  # float16 overflows now and then; the scaler has lowered its scale
        else:
            self._refuse(verdict.step, verdict.keys, int(bad_losses), int(bad_gradients))

    def _refuse(self, step: int, keys: list[torch.Tensor], bad_losses: int, bad_gradients: int) -> None:
        """Counts a refused step, and stops if the policy says so."""
        self.refused += 1
        self._in_a_row += 1
        samples = [tuple(key) for part in keys for key in part.tolist()]
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        problem = (
            f"Step {step} was refused: the loss was not finite on {bad_losses} and the gradient on {bad_gradients} "
            f"of {processes} processes. Samples of process {rank}, as (epoch, index): {samples}."
        )
        if self.config.nonfinite == "skip" and self._in_a_row <= self.config.max_nonfinite_steps:
            logger.warning(f"{problem} Weights, optimizer and buffers are as before.")
            return
        in_a_row = f" That is the {self._in_a_row}th in a row." if self.config.nonfinite == "skip" else ""
        raise NonFiniteError(
            f"{problem}{in_a_row} The weights and the checkpoints are still finite. Look at these samples, or lower "
            "learning_rate or max_grad_norm; nonfinite=skip passes over single bad batches."
        )

    def state(self) -> list[int]:
        """Refused steps, in all and in a row."""
        return [self.refused, self._in_a_row]

    def load_state(self, state: list[int]) -> None:
        """Puts back what [`state`] returned."""
        self.refused, self._in_a_row = state
