"""Averages that stay on the device between logging steps."""

import time
from collections.abc import Callable, Mapping

import torch

__all__ = ["MetricAverages", "Throughput"]


class MetricAverages:
    """Weighted means of metrics; nothing waits for the device until [`result`] is called.

    Tensors are summed where they are; one with weight 0 is left out even if it is NaN. Plain numbers (a schedule's
    value) are averaged on the host, each with weight 1.
    """

    def __init__(self) -> None:
        self._tensors: dict[str, torch.Tensor] = {}  # (2,): sum and weight
        self._numbers: dict[str, tuple[float, float]] = {}

    @torch.no_grad()
    def add(self, values: Mapping[str, float | torch.Tensor], weight: float | torch.Tensor = 1.0) -> None:
        """Adds one observation of each metric.

        Raises:
            TypeError: If a value is neither a number nor a tensor.
            ValueError: If a tensor has not exactly one element.
        """
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                self._add_tensor(name, value.detach(), weight)
            elif isinstance(value, (int, float)) and name in self._tensors:  # after a resume
                self._add_tensor(name, self._tensors[name].new_tensor(value), 1.0)
            elif isinstance(value, (int, float)):
                total, count = self._numbers.get(name, (0.0, 0.0))
                self._numbers[name] = (total + value, count + 1.0)
            else:
                raise TypeError(f"Metric {name!r} must be a number or a tensor, got a {type(value).__name__}.")

    def _add_tensor(self, name: str, value: torch.Tensor, weight: float | torch.Tensor) -> None:
        if value.numel() != 1:
            raise ValueError(
                f"Metric {name!r} must be one number, got a tensor of shape {tuple(value.shape)}; take its mean."
            )
        dtype = torch.float64 if value.device.type == "cpu" else torch.float32
        if isinstance(weight, torch.Tensor):
            weight = weight.reshape(()).to(dtype)
        else:
            weight = torch.full((), weight, dtype=dtype, device=value.device)
        counted = torch.where(weight > 0, value.reshape(()).to(dtype) * weight, 0.0)
        pair = torch.stack([counted, weight])
        self._tensors[name] = self._tensors[name] + pair if name in self._tensors else pair

    def result(self, reduce: Callable[[torch.Tensor], torch.Tensor] | None = None) -> dict[str, float]:
        """The means by name, of tensors over all processes if `reduce` sums a tensor over them.

        Metrics whose weights are all 0 are absent. Numbers are taken to be the same on all processes.
        """
        means = {name: total / weight for name, (total, weight) in self._numbers.items() if weight > 0}
        if self._tensors:
            names = sorted(self._tensors)
            table = torch.stack([self._tensors[name] for name in names])
            rows = (table if reduce is None else reduce(table)).tolist()
            means |= {name: total / weight for name, (total, weight) in zip(names, rows, strict=True) if weight > 0}
        return means

    def clear(self) -> None:
        """Starts new means."""
        self._tensors, self._numbers = {}, {}

    def state(self) -> dict[str, list[float]]:
        """Sum and weight of each metric since the last [`clear`]."""
        tensors = {name: pair.tolist() for name, pair in self._tensors.items()}
        return tensors | {name: list(pair) for name, pair in self._numbers.items()}

    def load_state(self, state: Mapping[str, list[float]], device: torch.device) -> None:
        """Puts back what [`state`] returned."""
        dtype = torch.float64 if device.type == "cpu" else torch.float32
        self._tensors = {name: torch.tensor(pair, dtype=dtype, device=device) for name, pair in state.items()}
        self._numbers = {}


class Throughput:
    """Samples per second between two readings."""

    def __init__(self) -> None:
        self._since, self._samples = time.perf_counter(), 0

    def restart(self) -> None:
        """Starts a new count."""
        self._since, self._samples = time.perf_counter(), 0

    def add(self, samples: int) -> None:
        """Counts samples."""
        self._samples += samples

    def read(self) -> float:
        """Samples per second since the last reading; starts a new count."""
        rate = self._samples / max(time.perf_counter() - self._since, 1e-9)
        self.restart()
        return rate
