"""Where the numbers and pictures of a run go: `metrics.jsonl`, trackers, the progress bar."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from tqdm.auto import tqdm
from transformers.utils import logging

from mosaics.training.config import TrainingConfig
from mosaics.training.curves import draw_curves
from mosaics.training.image_grid import image_grid
from mosaics.training.sessions import SessionRecord

__all__ = ["MetricsFile", "Reporter"]

logger = logging.get_logger(__name__)
_NOT_IN_BAR = ("epoch", "learning_rate", "refused_steps")


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

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one line; NaN and infinity, which JSON does not have, become null."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **finite}) + "\n")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line cut short by a crash


class Reporter:
    """Writes what a run reports, on the main process.

    Args:
        config: The run's configuration.
        accelerator: Its trackers are used.
        step: Step at which the run begins or resumes.
        settings: Settings to show in the trackers.
    """

    def __init__(self, config: TrainingConfig, accelerator: Accelerator, step: int, settings: Mapping[str, Any]):
        self.config, self.accelerator = config, accelerator
        self.output_dir = Path(config.output_dir)
        self._bar: tqdm | None = None
        self._file: MetricsFile | None = None
        self._sessions: SessionRecord | None = None
        if accelerator.is_main_process:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            self._file = MetricsFile(self.output_dir / "metrics.jsonl", step)
            self._sessions = SessionRecord(self.output_dir, accelerator.device, accelerator.num_processes)
        if accelerator.log_with:
            flat = {k: v if isinstance(v, (int, float, str, bool)) else json.dumps(v) for k, v in settings.items()}
            accelerator.init_trackers(config.run_name or self.output_dir.name, config=flat)

    def say(self, message: str) -> None:
        """Tells whoever watches the terminal."""
        if self.accelerator.is_main_process and self.config.progress_bar:
            tqdm.write(message)
        elif self.accelerator.is_main_process:
            logger.info(message)

    def begin(self, step: int) -> None:
        """Starts the clock and the progress bar at `step`."""
        if self._sessions is not None:
            self._sessions.begin(step)
        if self.config.progress_bar and self.accelerator.is_main_process:
            self._bar = tqdm(total=self.config.max_steps, initial=step, unit="step", dynamic_ncols=True)

    def checkpointed(self, step: int) -> None:
        """Records the time it took to come to the checkpoint of `step`."""
        if self._sessions is not None:
            self._sessions.write(step)

    def advance_bar(self) -> None:
        """Moves the progress bar by one step."""
        if self._bar is not None:
            self._bar.update(1)

    def show(self, values: Mapping[str, float]) -> None:
        """Shows the latest averages beside the progress bar."""
        if self._bar is not None:
            shown = {name: f"{value:.4g}" for name, value in values.items() if name not in _NOT_IN_BAR}
            self._bar.set_postfix(shown, refresh=False)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Writes numbers to `metrics.jsonl` and the trackers."""
        if self._file is not None:
            self._file.write(step, values)
        if self.accelerator.log_with:
            self.accelerator.log(dict(values), step=step)

    def log_images(self, step: int, name: str, images: torch.Tensor, columns: int | None) -> Path | None:
        """Saves images as one grid in `output_dir/images` and in the trackers that take images."""
        if not self.accelerator.is_main_process:
            return None
        grid = image_grid(images, columns)
        path = self.output_dir / "images" / f"{name}-{step:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        grid.save(path)
        for tracker in self.accelerator.trackers:
            if tracker.name == "tensorboard":
                tracker.log_images({name: np.asarray(grid)[None]}, step=step, dataformats="NHWC")
            elif hasattr(tracker, "log_images"):
                tracker.log_images({name: [grid]}, step=step)
        return path

    def close_bar(self) -> None:
        """Leaves the progress bar as it stands."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def draw_curves(self) -> None:
        """Draws all numbers as `output_dir/curves.png`, if matplotlib is installed."""
        if self._file is not None and draw_curves(self._file.path, self.output_dir / "curves.png"):
            self.say(f"Curves: {self.output_dir / 'curves.png'}")

    def close(self) -> None:
        """Closes the progress bar and the trackers."""
        self.close_bar()
        if self.accelerator.log_with:
            self.accelerator.end_training()
