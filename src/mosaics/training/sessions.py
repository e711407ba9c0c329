"""How a run came about, beside its metrics: commands, machines and hours, for the model card."""

import builtins
import dataclasses
import json
import os
import platform
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch

from mosaics.cards.run_folder import SESSIONS, TrainingSession, read_sessions
from mosaics.hub.errors import without_tokens

__all__ = ["SessionRecord"]


class SessionRecord:
    """`sessions.json` of a run: one entry for each time the command was run, brought up to date at each checkpoint.

    Args:
        folder: The run's folder.
        device: Where the model computes.
        num_processes: How many processes share the batches.
    """

    def __init__(self, folder: Path, device: torch.device, num_processes: int):
        self.path = folder / SESSIONS
        self._earlier = read_sessions(folder)
        self._session = TrainingSession(
            command=current_command(),
            hardware=describe_hardware(device, num_processes),
            software=describe_software(),
            num_processes=num_processes,
            first_step=0,
            last_step=0,
            seconds=0.0,
        )
        self._since = time.perf_counter()

    def begin(self, step: int) -> None:
        """Starts the clock at `step`; what earlier sessions did after it is done again and not counted."""
        self._earlier = tuple(session for session in self._earlier if session.last_step <= step)
        self._session = dataclasses.replace(self._session, first_step=step, last_step=step)
        self._since = time.perf_counter()

    def write(self, step: int) -> None:
        """Records that `step` is reached."""
        seconds = round(time.perf_counter() - self._since, 1)
        self._session = dataclasses.replace(self._session, last_step=step, seconds=seconds)
        if step == self._session.first_step:
            return  # a finished run that was started again
        rows = [dataclasses.asdict(session) for session in (*self._earlier, self._session)]
        temporary = self.path.with_name(f".tmp-{self.path.name}")
        temporary.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, self.path)


def current_command() -> str | None:
    """The script and its arguments, any token blacked out; `None` if Python was not started with a script."""
    script = Path(sys.argv[0])
    if script.suffix != ".py" or not script.is_file() or hasattr(builtins, "__IPYTHON__"):
        return None
    shown = script.resolve()
    shown = shown.relative_to(Path.cwd()) if shown.is_relative_to(Path.cwd()) else Path(shown.name)
    launcher = "accelerate launch" if "ACCELERATE_MIXED_PRECISION" in os.environ else "python"
    return without_tokens(f"{launcher} {shlex.join([shown.as_posix(), *sys.argv[1:]])}")


def describe_hardware(device: torch.device, num_processes: int) -> str:
    """Such as `"2 x NVIDIA H100 80GB HBM3"`, or the processor and its number of cores."""
    if device.type == "cuda":
        return f"{num_processes} x {torch.cuda.get_device_name(device)}"
    if device.type != "cpu":
        return f"{num_processes} x {device.type}"
    return f"{_processor()}, {os.cpu_count()} logical cores"


def describe_software() -> str:
    """Versions of Python and of the libraries that compute."""
    packages = ("mosaics", "torch", "transformers", "accelerate")
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
