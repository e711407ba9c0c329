"""How long the device works on something."""

import time
from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


class Stopwatch:
    """Adds up the seconds of calls. The first call, which warms up, counts only if it is the only one.

    Args:
        device: Waited for before and after each call.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.laps: list[tuple[float, int]] = []

    def time(self, function: Callable[[], Result], count: int) -> Result:
        """Calls `function`, which makes `count` things."""
        self._wait()
        started = time.perf_counter()
        result = function()
        self._wait()
        self.laps.append((time.perf_counter() - started, count))
        return result

    @property
    def per_second(self) -> float:
        """Things made in a second."""
        laps = self.laps[1:] or self.laps
        return sum(count for _, count in laps) / max(sum(seconds for seconds, _ in laps), 1e-9)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
