"""Averages that stay on the device between logging steps, and the file they are written to."""

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

__all__ = ["MetricAverages", "MetricsFile", "Throughput"]


class MetricAverages:
    """Sums of metrics on their device; nothing waits for the device until [`result`] is called.

    Numbers and tensors are both welcome. Values of refused steps (weight 0) are left out even when they are NaN.
    """

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._weights: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def add(
        self, values: Mapping[str, float | torch.Tensor], device: torch.device, weight: float | torch.Tensor = 1.0
    ) -> None:
        """Adds one observation of each metric.

        Raises:
            ValueError: If a value is neither a number nor a tensor with one element.
        """
        weight = torch.as_tensor(weight, dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.numel() != 1:
                raise ValueError(f"Metric {name!r} must be one number, got a tensor of shape {tuple(value.shape)}.")
            number = torch.as_tensor(value, device=device).detach().reshape(()).to(weight.dtype)
            counted = torch.where(weight > 0, number * weight, 0.0)
            self._sums[name] = self._sums[name] + counted if name in self._sums else counted
            self._weights[name] = self._weights[name] + weight if name in self._weights else weight

    def result(self, reduce: Callable[[torch.Tensor], torch.Tensor] | None = None) -> dict[str, float]:
        """The averages, over all processes if `reduce` sums a tensor over them; metrics without weight are absent."""
        if not self._sums:
            return {}
        names = sorted(self._sums)
        table = torch.stack(
            [torch.stack([self._sums[n] for n in names]), torch.stack([self._weights[n] for n in names])]
        )
        sums, weights = (reduce(table) if reduce is not None else table).tolist()
        return {name: s / w for name, s, w in zip(names, sums, weights, strict=True) if w > 0}

    def clear(self) -> None:
        """Starts new averages."""
        self._sums, self._weights = {}, {}

    def state(self) -> dict[str, list[float]]:
        """What has been added since the last [`clear`], as JSON values."""
        return {name: [self._sums[name].item(), self._weights[name].item()] for name in self._sums}

    def load_state(self, state: Mapping[str, list[float]], device: torch.device) -> None:
        """Puts back what [`state`] returned."""
        dtype = torch.float64 if device.type == "cpu" else torch.float32
        for name, (total, weight) in state.items():
            self._sums[name] = torch.tensor(total, dtype=dtype, device=device)
            self._weights[name] = torch.tensor(weight, dtype=dtype, device=device)


class Throughput:
    """Samples per second between two readings."""

    def __init__(self) -> None:
        self._since, self._samples = time.perf_counter(), 0

    def add(self, samples: int) -> None:
        """Counts samples."""
        self._samples += samples

    def read(self) -> float:
        """Samples per second since the last reading; starts a new count."""
        now = time.perf_counter()
        rate = self._samples / max(now - self._since, 1e-9)
        self._since, self._samples = now, 0
        return rate


class MetricsFile:
    """`metrics.jsonl`: one JSON object a line, each with its `step`.

    Args:
        path: The file.
        resumed_step: Lines of later steps are dropped: those steps are about to be taken again.
    """

    def __init__(self, path: Path, resumed_step: int):
        self.path = path
        if path.exists():
            kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= resumed_step]
            temporary = path.with_name(f".tmp-{path.name}")
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
            os.replace(temporary, path)

    def write(self, step: int, values: Mapping[str, float | str]) -> None:
        """Appends one line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line cut short by a crash
