"""Captioned pictures that are read from front to back: parquet files, and streams of `datasets`."""

import random
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mosaics.data.rows import StartReport
from mosaics.data.skipped import BadDataError

_BATCH = 64  # rows decoded from parquet at a time


class ParquetStream:
    """The rows of parquet files, row group by row group, without a copy on disk.

    Args:
        files: The files, already checked to be whole.
        image_column: Their picture column.
    """

    def __init__(self, files: list[Path], image_column: str) -> None:
        self.files, self.image_column = files, image_column
        groups = [pq.read_metadata(file).num_row_groups for file in files]
        self.groups = [(file, group) for file, count in zip(files, groups, strict=True) for group in range(count)]
        self.report = StartReport(sum(pq.read_metadata(file).num_rows for file in files))

    def __len__(self) -> int:
        return self.report.rows

    def named_rows(self, seed: int, epoch: int, buffer: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Names and rows; row groups in an order of (seed, epoch), rows shuffled within a buffer (0: as written)."""
        source = random.Random(f"{seed}/{epoch}")
        groups = source.sample(self.groups, len(self.groups)) if buffer else self.groups
        return _buffered(self._rows(groups), source, buffer) if buffer else self._rows(groups)

    def _rows(self, groups: list[tuple[Path, int]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for path, group in groups:
            number = 0
            try:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(_BATCH, row_groups=[group]):
                        for row in batch.to_pylist():
                            yield f"{path}, row {number} of group {group}", row
                            number += 1
            except (pa.ArrowException, OSError) as error:
                raise BadDataError(f"{path} is damaged after row {number} of group {group} ({error}).") from error


class TableStream:
    """A `datasets.IterableDataset` with its pictures undecoded. Its rows have no numbers that last.

    Args:
        table: The stream.
        image_column: Its picture column.
    """

    report = None

    def __init__(self, table: Any, image_column: str) -> None:
        self.table, self.image_column = table, image_column

    def named_rows(self, seed: int, epoch: int, buffer: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Names and rows, shuffled by (seed, epoch) within a buffer; 0 keeps the order."""
        table = self.table.shuffle(seed=seed, buffer_size=buffer) if buffer else self.table
        table.set_epoch(epoch)
        for row in table:
            yield self._name(row), row

    def _name(self, row: Mapping[str, Any]) -> str:
        """The path of the picture, or a digest of its bytes."""
        image = row.get(self.image_column)
        if isinstance(image, dict):
            data = image.get("bytes")
            return image.get("path") or f"picture {sha256(data or b'').hexdigest()[:16]}"
        return f"row with {str(row)[:80]}"


def _buffered(rows: Iterator, source: random.Random, size: int) -> Iterator:
    """Gives rows in random order out of a buffer of `size`."""
    buffer = []
    for row in rows:
        if len(buffer) < size:
            buffer.append(row)
            continue
        place = source.randrange(size)
        yield buffer[place]
        buffer[place] = row
    source.shuffle(buffer)
    yield from buffer
