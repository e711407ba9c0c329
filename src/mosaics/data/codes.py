"""Pictures and sounds encoded once: codes, captions and class labels in parquet shards.

A folder of codes holds `codes-00000.parquet`, `codes-00001.parquet`, ... and, when it is complete, `codes.json`. Shard
`s` covers the samples from `s * shard_size` on, whichever process wrote it, so that writing can stop and go on with
another number of processes. A sample has one grid of codes, or one for each level of a VQ-VAE-2, or a sequence of a
sound; every shard names the codebooks that made them. [`mosaics.data.codes_writer`] writes such folders.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import Dataset

from mosaics.data.codes_format import (
    MANIFEST,
    CodesDescription,
    CodesError,
    column_name,
    read_description,
    shard_name,
    shards_in,
)


@dataclass(frozen=True)
class Codes:
    """The content of a folder of codes, N samples.

    Args:
        description: What the folder says of itself.
        grids: For each level, top first, its codes uint16 `(N, h, w)`, or `(N, t)` of sounds.
        captions: N strings, or `None`.
        class_labels: Numbers of the classes int32 `(N,)`, or `None`.
        input_ids: Token ids int32 `(N, T)`, or `None`.
    """

    description: CodesDescription
    grids: tuple[np.ndarray, ...]
    captions: pa.ChunkedArray | None
    class_labels: np.ndarray | None
    input_ids: np.ndarray | None


def read_codes(
    folder: str | os.PathLike, codebook_id: str | Sequence[str] | None = None, allow_incomplete: bool = False
) -> Codes:
    """Reads all shards of a folder into memory (2 bytes per code).

    Args:
        folder: A folder written by [`mosaics.data.codes_writer.CodesWriter`].
        codebook_id: The identity that the codes must have, or those of all levels, top first; by default any.
        allow_incomplete: Read what is there of a folder that is not finished.

    Raises:
        CodesError: If shards are missing, truncated, or from different codebooks. The message names the file.
    """
    folder = Path(folder)
    shards = shards_in(folder) if folder.is_dir() else []
    if not shards:
        raise CodesError(f"No codes in {folder}: encode pictures or sounds into it first.")
    description = read_description(shards[0][1])
    if codebook_id is not None:
        _check_codebooks(folder, description, (codebook_id,) if isinstance(codebook_id, str) else tuple(codebook_id))
    if not allow_incomplete:
        _check_complete(folder, description, [number for number, _ in shards])
    tables = []
    for _, path in shards:
        found = read_description(path)
        if found != description:
            raise CodesError(f"{path} was made otherwise than {shards[0][1].name}{found.differences(description)}.")
        tables.append(_read_table(path, description))
    if len(columns := {tuple(table.column_names) for table in tables}) > 1:
        raise CodesError(f"The shards in {folder} hold different columns, {sorted(columns)}: encode them again.")
    table = pa.concat_tables(tables)
    present = set(table.column_names)
    return Codes(
        description,
        tuple(
            _to_matrix(table[column_name(number)]).reshape(-1, *grid.size)
            for number, grid in enumerate(description.grids)
        ),
        table["caption"] if "caption" in present else None,
        table["class_label"].to_numpy() if "class_label" in present else None,
        _to_matrix(table["input_ids"]) if "input_ids" in present else None,
    )


class CodesDataset(Dataset):
    """A folder of codes as a map-style dataset.

    A sample is `{"indices": int64 (h, w)}`, or a tuple of such grids, top first, if it has several, with `"caption"`
    (a string), `"class_labels"` (an integer) and `"input_ids"` (int64) if the folder has them.

    Args:
        folder: A folder written by [`mosaics.data.codes_writer.CodesWriter`].
        codebook_id: The identity that the codes must have, or those of all levels, top first.

    Raises:
        CodesError: See [`read_codes`].
    """

    def __init__(self, folder: str | os.PathLike, codebook_id: str | Sequence[str] | None = None) -> None:
        self.folder = Path(folder)
        self.codes = read_codes(folder, codebook_id)
        self.description = self.codes.description

    def __len__(self) -> int:
        return len(self.codes.grids[0])

    def __getitem__(self, index: int) -> dict:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} samples.")
        index %= len(self)
        codes = self.codes
        grids = tuple(torch.from_numpy(grid[index].astype(np.int64)) for grid in codes.grids)
        sample: dict[str, Any] = {"indices": grids if len(grids) > 1 else grids[0]}
        if codes.captions is not None:
            sample["caption"] = codes.captions[index].as_py()
        if codes.class_labels is not None:
            sample["class_labels"] = int(codes.class_labels[index])
        if codes.input_ids is not None:
            sample["input_ids"] = torch.from_numpy(codes.input_ids[index].astype(np.int64))
        return sample

    def captions(self, purpose: str) -> pa.ChunkedArray:
        """The captions of all samples.

        Args:
            purpose: What they are needed for, for the message.

        Raises:
            CodesError: The folder has none.
        """
        if self.codes.captions is None:
            raise CodesError(
                f"{self.folder} has no captions, which are needed {purpose}: encode captioned pictures into another "
                "folder; examples/encode_codes.py keeps their captions."
            )
        return self.codes.captions

    @property
    def fingerprint(self) -> str:
        """What the dataset holds, for the check that a resumed run reads the same data."""
        fields = self.description.to_fields()
        fields.pop("format")
        return json.dumps(fields, sort_keys=True)


def _read_table(path: Path, description: CodesDescription) -> pa.Table:
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        grids = [_to_matrix(table[column_name(number)]) for number in range(len(description.grids))]
        labels = table["class_label"].to_numpy() if description.class_names is not None else None
    except (pa.ArrowException, OSError, KeyError, AttributeError) as error:
        raise CodesError(f"{path} is damaged ({error}): delete it and encode again.") from error
    for codes, grid in zip(grids, description.grids, strict=True):
        if codes.shape[1] != grid.num_codes:
            raise CodesError(f"{path} holds {codes.shape[1]} codes a sample, expected {grid.num_codes}.")
        if codes.size and codes.max() >= grid.num_embeddings:
            raise CodesError(f"{path} holds code {codes.max()}, the codebook has {grid.num_embeddings} entries.")
    num_classes = len(description.class_names or ())
    if labels is not None and labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise CodesError(
            f"{path} holds class labels from {labels.min()} to {labels.max()}, there are {num_classes} class names."
        )
    return table


def _to_matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A fixed-size list column as (rows, length), without a copy per row."""
    length = column.type.list_size
    return np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks]).reshape(-1, length)


def _check_codebooks(folder: Path, description: CodesDescription, expected: tuple[str, ...]) -> None:
    found = description.codebook_ids
    if found != expected:
        raise CodesError(
            f"The codes in {folder} belong to codebook {', '.join(found)}, not to {', '.join(expected)}: encode with "
            "the tokenizer of this model."
        )


def _check_complete(folder: Path, description: CodesDescription, numbers: list[int]) -> None:
    missing = sorted(set(range(description.num_shards)) - set(numbers))
    if missing:
        raise CodesError(
            f"{folder} lacks {len(missing)} of {description.num_shards} shards, first {shard_name(missing[0])}: run "
            "the encoder again, it goes on where it stopped."
        )
    if not (folder / MANIFEST).is_file():
        raise CodesError(f"{folder} has no {MANIFEST}: encoding was not finished. Run the encoder again.")
