"""The record of rows that could not be used: nothing is dropped silently, and a bad dataset stops the run."""

import json
import os
from pathlib import Path

from transformers.utils import logging

logger = logging.get_logger(__name__)


class BadDataError(ValueError):
    """A dataset that cannot be used, or that has more bad rows than allowed; the message says where and why."""


class SkippedRows:
    """Counts and records the rows that were skipped, and stops when there are too many.

    Every skipped row is one line `{"dataset", "name", "reason"}` of the file, written once in a run however often the
    row comes up. Several processes may share the file: the limit then counts the rows that any of them found.

    Args:
        dataset: Name of the dataset, for messages and for the file.
        max_bad: Share of bad rows that is tolerated. One bad row always is, unless `max_bad` is 0.
        path: The file, usually `skipped.jsonl` in the output folder; `None` keeps the record in memory only.

    Raises:
        ValueError: If `max_bad` is no share.
    """

    def __init__(self, dataset: str, max_bad: float, path: str | os.PathLike | None = None) -> None:
        if not 0 <= max_bad <= 1:
            raise ValueError(f"max_bad must be a share between 0 and 1, got {max_bad!r}.")
        self.dataset, self.max_bad = dataset, max_bad
        self.path = None if path is None else Path(path)
        self.reasons: dict[str, str] = {}
        self._offset = 0
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._offset = self.path.stat().st_size if self.path.is_file() else 0  # earlier runs do not count

    def __len__(self) -> int:
        return len(self.reasons)

    def add(self, name: str, reason: str, num_rows: int) -> None:
        """Records a bad row.

        Args:
            name: Its file, or whatever finds it again; the same row always has the same name.
            reason: What is wrong with it.
            num_rows: Rows in the dataset, or those read so far of a stream.

        Raises:
            BadDataError: If there are now more bad rows than tolerated.
        """
        if name not in self.reasons:
            self.reasons[name] = reason
            logger.warning(f"Skipped {name} of {self.dataset}: {reason}")
            if self.path is not None:
                _append(self.path, {"dataset": self.dataset, "name": name, "reason": reason})
                self._read_others(self.path)
        allowed = max(1, int(self.max_bad * num_rows)) if self.max_bad else 0
        if len(self.reasons) > allowed:
            first = "".join(f"\n  {name}: {reason}" for name, reason in list(self.reasons.items())[:5])
            record = f" All so far are listed in {self.path}." if self.path is not None else ""
            raise BadDataError(
                f"{len(self.reasons)} of {num_rows} rows of {self.dataset} are bad, more than the {allowed} that "
                f"max_bad={self.max_bad} tolerates. The first:{first}\nMend or remove them, or raise max_bad.{record}"
            )

    def _read_others(self, path: Path) -> None:
        """Takes over what other processes of this run have found in the same dataset."""
        with open(path, "rb") as file:
            file.seek(self._offset)
            lines = file.read().decode("utf-8", errors="replace").splitlines()
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:  # another process is just writing it
                continue
            if entry.get("dataset") == self.dataset:
                self.reasons.setdefault(entry["name"], entry["reason"])


def _append(path: Path, entry: dict) -> None:
    line = json.dumps(entry, ensure_ascii=False) + "\n"
    with open(path, "ab") as file:  # one write in append mode: lines of several processes do not mix
        file.write(line.encode("utf-8", errors="replace"))
