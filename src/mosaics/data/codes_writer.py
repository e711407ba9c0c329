"""Writing a folder of codes, shard by shard."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers.utils import logging

from mosaics.data.codes_format import (
    MANIFEST,
    CodeGrid,
    CodesDescription,
    CodesError,
    column_name,
    read_description,
    shard_name,
    shards_in,
)

logger = logging.get_logger(__name__)

Indices = torch.Tensor | np.ndarray


class CodesShard:
    """One shard being filled: the samples from `start` to `stop` (exclusive)."""

    def __init__(self, description: CodesDescription, number: int) -> None:
        self.description, self.number = description, number
        self.start = number * description.shard_size
        self.stop = min(self.start + description.shard_size, description.num_samples)
        self.num_given = 0
        self._columns: dict[str, list[np.ndarray | list[str]]] = {}

    def append(
        self,
        indices: Indices | Sequence[Indices],
        captions: Sequence[str] | None = None,
        input_ids: Indices | None = None,
        class_labels: Indices | None = None,
    ) -> None:
        """Adds samples.

        Args:
            indices: Their codes `(B, h, w)`, or `(B, t)` of sound; with several grids a tuple, top first.
            captions: Their captions, if wanted.
            input_ids: The token ids `(B, T)` of the captions, if wanted.
            class_labels: Their classes `(B,)`, if the description has class names, and only then.

        Raises:
            ValueError: Numbers, shapes or ranges are wrong, or a shard's batches do not hold the same things.
        """
        grids = (indices,) if isinstance(indices, torch.Tensor | np.ndarray) else tuple(indices)
        if len(grids) != len(self.description.grids):
            raise ValueError(f"indices must be {len(self.description.grids)} grid(s) of codes, got {len(grids)}.")
        columns: dict[str, np.ndarray | list[str]] = {}
        for number, (grid, described) in enumerate(zip(grids, self.description.grids, strict=True)):
            columns[column_name(number)] = _checked_codes(grid, described)
        if captions is not None:
            columns["caption"] = list(captions)
        if class_labels is not None or self.description.class_names is not None:
            columns["class_label"] = self._checked_labels(class_labels)
        if input_ids is not None:
            columns["input_ids"] = _checked_tokens(input_ids)
        counts = {name: len(values) for name, values in columns.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"Every column needs one row for each sample, got {counts}.")
        if self._columns and set(columns) != set(self._columns):
            raise ValueError(
                f"All batches of a shard must hold the same: {sorted(self._columns)}, got {sorted(columns)}."
            )
        if self.num_given + counts["indices"] > self.stop - self.start:
            raise ValueError(
                f"Shard {self.number} holds the samples {self.start} to {self.stop - 1}; more were given."
            )
        self.num_given += counts["indices"]
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)

    def table(self) -> pa.Table:
        """The rows, with the description in the metadata."""
        if self.num_given != self.stop - self.start:
            raise ValueError(
                f"Shard {self.number} needs the samples {self.start} to {self.stop - 1}, got {self.num_given}."
            )
        columns = {name: _to_column(parts) for name, parts in self._columns.items()}
        fields = {**self.description.to_fields(), "shard": self.number}
        return pa.table(columns).replace_schema_metadata({"mosaics": json.dumps(fields)})

    def _checked_labels(self, class_labels: Indices | None) -> np.ndarray:
        names = self.description.class_names
        if names is None:
            raise ValueError("class_labels were given, but the description has no class_names.")
        if class_labels is None:
            raise ValueError(f"class_labels are missing: the description has {len(names)} class_names.")
        labels = _to_array(class_labels)
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"class_labels must be integers (batch,), got {labels.dtype} {labels.shape}.")
        if labels.size and not 0 <= labels.min() <= labels.max() < len(names):
            raise ValueError(f"class_labels must be from 0 to {len(names) - 1}, got {labels.min()} to {labels.max()}.")
        return labels.astype(np.int32)


class CodesWriter:
    """Writes a folder of codes, shard by shard, so that it can be interrupted and shared among processes.

    ```python
    writer = CodesWriter("codes", description, rank=accelerator.process_index, world_size=accelerator.num_processes)
    for shard in writer:                                   # those of this process that are not there yet
        for first in range(shard.start, shard.stop, 64):
            ...
            shard.append(vqvae.encode(pixel_values), captions)
    accelerator.wait_for_everyone()
    writer.finish()
    ```

    A shard is written when the body of the loop ends, under another name first, so that it is complete or absent.

    Args:
        folder: Where the shards go; made if it is missing.
        description: What they have in common.
        rank: Number of this process; it writes the shards whose number modulo `world_size` is `rank`.
        world_size: Number of processes.

    Raises:
        CodesError: If the folder holds codes of another description.
    """

    def __init__(
        self, folder: str | os.PathLike, description: CodesDescription, rank: int = 0, world_size: int = 1
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to world_size - 1 = {world_size - 1}, got {rank}.")
        self.folder, self.description = Path(folder), description
        self.rank, self.world_size = rank, world_size
        self.folder.mkdir(parents=True, exist_ok=True)
        self._present = self._check_present()

    def __iter__(self) -> Iterator[CodesShard]:
        for number in range(self.rank, self.description.num_shards, self.world_size):
            if number not in self._present:
                shard = CodesShard(self.description, number)
                yield shard
                self._save(shard)

    def finish(self) -> None:
        """Declares the folder complete, from any one process or all, after every process has written its shards.

        Raises:
            CodesError: If shards are missing.
        """
        present = self._check_present()
        missing = [number for number in range(self.description.num_shards) if number not in present]
        if missing:
            raise CodesError(
                f"{self.folder} lacks {len(missing)} shards, first {shard_name(missing[0])}: encode again."
            )
        temporary = self.folder / f".{MANIFEST}.{os.getpid()}"
        temporary.write_text(json.dumps(self.description.to_fields(), indent=2) + "\n")
        os.replace(temporary, self.folder / MANIFEST)

    def _save(self, shard: CodesShard) -> None:
        name = shard_name(shard.number)
        temporary = self.folder / f".{name}.{os.getpid()}"
        try:
            pq.write_table(shard.table(), temporary, compression="zstd", write_page_checksum=True)
            os.replace(temporary, self.folder / name)
        finally:
            temporary.unlink(missing_ok=True)
        self._present.add(shard.number)

    def _check_present(self) -> set[int]:
        """Numbers of the good shards that are there. A damaged one is written again; a foreign one is an error."""
        present = set()
        for number, path in shards_in(self.folder):
            try:
                found = read_description(path)
            except CodesError as error:
                logger.warning(f"{error} It will be encoded again.")
                continue
            if found != self.description:
                raise CodesError(
                    f"{path} was made otherwise{found.differences(self.description)}. Use another folder."
                )
            present.add(number)
        return present


def _to_array(values: Indices) -> np.ndarray:
    return np.asarray(values.cpu() if isinstance(values, torch.Tensor) else values)


def _checked_codes(indices: Indices, described: CodeGrid) -> np.ndarray:
    """Codes as rows `(B, number of codes)` of uint16."""
    codes = _to_array(indices)
    if codes.shape[1:] != described.size or not np.issubdtype(codes.dtype, np.integer):
        sizes = ", ".join(map(str, described.size))
        raise ValueError(f"indices must be integers (batch, {sizes}), got {codes.dtype} {codes.shape}.")
    if codes.size and not 0 <= codes.min() <= codes.max() < described.num_embeddings:
        raise ValueError(
            f"indices must be from 0 to {described.num_embeddings - 1}, got {codes.min()} to {codes.max()}."
        )
    return codes.astype(np.uint16).reshape(len(codes), -1)


def _checked_tokens(input_ids: Indices) -> np.ndarray:
    tokens = _to_array(input_ids)
    if tokens.ndim != 2:
        raise ValueError(f"input_ids must be (batch, length), got {tokens.shape}.")
    return tokens.astype(np.int32)


def _to_column(parts: list[np.ndarray | list[str]]) -> pa.Array:
    """Strings, numbers, or lists of numbers of one length."""
    if isinstance(parts[0], list):
        return pa.array([text for part in parts for text in part], pa.string())
    values = np.concatenate(parts)
    flat = pa.array(values.reshape(-1))
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
