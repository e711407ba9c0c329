"""What the folder of a training run says about the model it ends with."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"
SESSIONS = "sessions.json"
LEVELS = 3  # a model lies in the run's folder, in a checkpoint, or in the part of a pipeline that was saved there


@dataclass(frozen=True)
class TrainingSession:
    """A stretch of a run without a break: a run that was stopped and resumed has several.

    Args:
        command: The command, as far as it can be told; `None` in a notebook.
        hardware: What it ran on.
        software: Versions of the libraries.
        num_processes: How many processes shared the batches.
        first_step: Step at which it began.
        last_step: Step of its last checkpoint.
        seconds: Time from its beginning to that checkpoint.
    """

    command: str | None
    hardware: str
    software: str
    num_processes: int
    first_step: int
    last_step: int
    seconds: float


@dataclass(frozen=True)
class TrainingRunFacts:
    """What is known of a run.

    Args:
        folder: Its folder.
        step: Optimizer steps of its newest checkpoint.
        settings: Its settings by name: those of the model begin with `model.`, those of the script with `script.`.
        sessions: How it came about.
        metrics: The numbers of its last evaluation.
        metrics_step: The step of that evaluation.
    """

    folder: Path
    step: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    sessions: tuple[TrainingSession, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    metrics_step: int | None = None

    @property
    def model_type(self) -> str | None:
        """`model_type` of the model that was trained."""
        return self.settings.get("model.model_type")

    @property
    def dataset(self) -> str | None:
        """The data set as it was named to the script."""
        name = self.settings.get("script.dataset")
        return name if isinstance(name, str) and not self.settings.get("script.codes") else None

    @property
    def command(self) -> str | None:
        """The command of the last session that knows its own."""
        return next((session.command for session in reversed(self.sessions) if session.command), None)

    def differs_from(self, config: Mapping[str, Any]) -> str | None:
        """The first field in which a model's configuration is not that of the trained model; `None` if none is."""
        for name, value in self.settings.items():
            field_name = name.removeprefix("model.")
            if field_name != name and field_name in config and isinstance(value, str | int | float | bool | None):
                if config[field_name] != value:
                    return field_name
        return None


def read_run(folder: str | os.PathLike) -> TrainingRunFacts | None:
    """The facts of a run's folder; `None` if it is not one. What is damaged or missing there is unknown.

    Args:
        folder: `output_dir` of the run.
    """
    folder = Path(folder)
    if not (folder / METRICS).is_file():
        return None
    step, settings = _newest_state(folder)
    metrics_step, metrics = _last_evaluation(folder / METRICS)
    return TrainingRunFacts(folder, step, settings, read_sessions(folder), metrics, metrics_step)


def find_run(model_folder: str | os.PathLike | None, config: Mapping[str, Any]) -> TrainingRunFacts | None:
    """The run that a model comes from, by where it was loaded from: that folder or one above it.

    Args:
        model_folder: What the model was loaded from; a Hub id finds nothing.
        config: Fields of the model's configuration. A run of another architecture is not taken for its own.
    """
    if not model_folder or not os.path.isdir(model_folder):
        return None
    path = Path(model_folder).resolve()
    for folder in (path, *path.parents)[:LEVELS]:
        run = read_run(folder)
        if run is not None:
            return run if run.model_type == config.get("model_type") and not run.differs_from(config) else None
    return None


def read_sessions(folder: Path) -> tuple[TrainingSession, ...]:
    """The sessions that a run's folder records; none if there is no record, or a damaged one."""
    try:
        rows = json.loads((folder / SESSIONS).read_text(encoding="utf-8"))
        return tuple(TrainingSession(**row) for row in rows)
    except (OSError, ValueError, TypeError):
        return ()


def _newest_state(folder: Path) -> tuple[int | None, dict[str, Any]]:
    for path in sorted(folder.glob("checkpoint-*/state.json"), reverse=True):
        if re.fullmatch(r"checkpoint-\d+", path.parent.name) is None:
            continue
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            return int(state["step"]), dict(state["settings"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a damaged checkpoint says nothing
    return None, {}


def _last_evaluation(path: Path) -> tuple[int | None, dict[str, float]]:
    """The last line with numbers of an evaluation: its step, and the numbers without `eval_`."""
    for row in reversed(list(_rows(path))):
        numbers = {name[5:]: value for name, value in row.items() if name.startswith("eval_") and value is not None}
        if numbers:
            return int(row["step"]), numbers
    return None, {}


def _rows(path: Path) -> Iterable[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # a line cut short by a crash
        if isinstance(row, dict) and "step" in row:
            yield row
