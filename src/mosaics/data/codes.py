"""Pictures encoded once: code grids and captions in parquet shards, written and read.

A folder of codes holds `codes-00000.parquet`, `codes-00001.parquet`, ... and, when it is complete, `codes.json`. Shard
`s` covers the samples from `s * shard_size` on, whichever process wrote it, so that writing can stop and go on with
another number of processes. Every shard names the codebook that made it (see [`mosaics.models.codebook_identity`]).
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import Dataset
from transformers.utils import logging

logger = logging.get_logger(__name__)

_FORMAT = "mosaics codes 1"
_MANIFEST = "codes.json"
_SHARD_NAME = re.compile(r"codes-(\d{5,})\.parquet")


class CodesError(ValueError):
    """Codes that cannot be used; the message names the file and says what to do."""


@dataclass(frozen=True)
class CodesDescription:
    """What all shards of a folder have in common.

    Args:
        codebook_id: Identity of the codebook that the indices belong to.
        num_embeddings: Size K of the codebook; indices are below it. At most 65,536.
        grid_size: Height and width (h, w) of a grid.
        num_samples: Number of samples in the whole folder.
        shard_size: Samples in a shard; the last one may hold fewer.
        source: What was encoded, in words or as a fingerprint; resuming with another source is refused.
    """

    codebook_id: str
    num_embeddings: int
    grid_size: tuple[int, int]
    num_samples: int
    shard_size: int = 10_000
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid_size", tuple(self.grid_size))
        if not 1 <= self.num_embeddings <= 65_536:
            raise ValueError(f"num_embeddings must be between 1 and 65,536, got {self.num_embeddings}.")
        if len(self.grid_size) != 2 or min(self.grid_size) < 1:
            raise ValueError(f"grid_size must be two positive integers (h, w), got {self.grid_size}.")
        if self.num_samples < 1 or self.shard_size < 1:
            raise ValueError(
                f"num_samples and shard_size must be at least 1, got {self.num_samples} and {self.shard_size}."
            )

    @property
    def num_shards(self) -> int:
        """Number of files that the folder has when it is complete."""
        return -(-self.num_samples // self.shard_size)


class CodesShard:
    """One shard being filled: the samples from `start` to `stop` (exclusive)."""

    def __init__(self, description: CodesDescription, number: int) -> None:
        self.description, self.number = description, number
        self.start = number * description.shard_size
        self.stop = min(self.start + description.shard_size, description.num_samples)
        self._indices: list[np.ndarray] = []
        self._captions: list[str] = []
        self._input_ids: list[np.ndarray] = []

    def append(
        self,
        indices: torch.LongTensor | np.ndarray,
        captions: Sequence[str],
        input_ids: torch.LongTensor | np.ndarray | None = None,
    ) -> None:
        """Adds samples: code grids `(B, h, w)`, their captions and, if wanted, their token ids `(B, T)`."""
        grids = np.asarray(indices.cpu() if isinstance(indices, torch.Tensor) else indices)
        size, limit = self.description.grid_size, self.description.num_embeddings
        if grids.ndim != 3 or grids.shape[1:] != size or not np.issubdtype(grids.dtype, np.integer):
            raise ValueError(
                f"indices must be integers (batch, {size[0]}, {size[1]}), got {grids.dtype} {grids.shape}."
            )
        if grids.size and not 0 <= grids.min() <= grids.max() < limit:
            raise ValueError(f"indices must be from 0 to {limit - 1}, got {grids.min()} to {grids.max()}.")
        if len(captions) != len(grids):
            raise ValueError(f"{len(grids)} grids came with {len(captions)} captions.")
        if (input_ids is not None) != bool(self._input_ids) and self._captions:
            raise ValueError("input_ids must be given with every batch of a shard or with none.")
        if len(self._captions) + len(captions) > self.stop - self.start:
            raise ValueError(
                f"Shard {self.number} holds the samples {self.start} to {self.stop - 1}; more were given."
            )
        if input_ids is not None:
            tokens = np.asarray(input_ids.cpu() if isinstance(input_ids, torch.Tensor) else input_ids)
            if tokens.ndim != 2 or len(tokens) != len(grids):
                raise ValueError(f"input_ids must be ({len(grids)}, length), got {tokens.shape}.")
            self._input_ids.append(tokens.astype(np.int32))
        self._indices.append(grids.astype(np.uint16))
        self._captions.extend(captions)

    def table(self) -> pa.Table:
        """The rows, with the description in the metadata."""
        if len(self._captions) != self.stop - self.start:
            raise ValueError(
                f"Shard {self.number} needs the samples {self.start} to {self.stop - 1}, got {len(self._captions)}."
            )
        height, width = self.description.grid_size
        flat = pa.array(np.concatenate(self._indices).reshape(-1))
        columns = {
            "indices": pa.FixedSizeListArray.from_arrays(flat, height * width),
            "caption": pa.array(self._captions, pa.string()),
        }
        if self._input_ids:
            tokens = np.concatenate(self._input_ids)
            columns["input_ids"] = pa.FixedSizeListArray.from_arrays(pa.array(tokens.reshape(-1)), tokens.shape[1])
        metadata = {"mosaics": json.dumps({"format": _FORMAT, "shard": self.number, **asdict(self.description)})}
        return pa.table(columns).replace_schema_metadata(metadata)


class CodesWriter:
    """Writes a folder of codes, shard by shard, so that it can be interrupted and shared among processes.

    ```python
    writer = CodesWriter("codes", description, rank=accelerator.process_index, world_size=accelerator.num_processes)
    for shard in writer:                                   # those of this process that are not there yet
        for first in range(shard.start, shard.stop, 64):
            ...
            shard.append(dvae.encode(pixel_values), captions)
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
                f"{self.folder} lacks {len(missing)} shards, first {_shard_name(missing[0])}: encode again."
            )
        temporary = self.folder / f".{_MANIFEST}.{os.getpid()}"
        temporary.write_text(json.dumps({"format": _FORMAT, **asdict(self.description)}, indent=2) + "\n")
        os.replace(temporary, self.folder / _MANIFEST)

    def _save(self, shard: CodesShard) -> None:
        name = _shard_name(shard.number)
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
        for number, path in _shards_in(self.folder):
            try:
                found = _read_description(path)
            except CodesError as error:
                logger.warning(f"{error} It will be encoded again.")
                continue
            if found != self.description:
                raise CodesError(
                    f"{path} was made otherwise{_differences(found, self.description)}. Use another folder."
                )
            present.add(number)
        return present


@dataclass(frozen=True)
class Codes:
    """The content of a folder of codes: `indices` uint16 `(N, h, w)`, N captions, and token ids `(N, T)` or `None`."""

    description: CodesDescription
    indices: np.ndarray
    captions: pa.ChunkedArray
    input_ids: np.ndarray | None


def read_codes(folder: str | os.PathLike, codebook_id: str | None = None, allow_incomplete: bool = False) -> Codes:
    """Reads all shards of a folder into memory (2 bytes per code).

    Args:
        folder: A folder written by [`CodesWriter`].
        codebook_id: The identity that the codes must have; by default any, but one.
        allow_incomplete: Read what is there of a folder that is not finished.

    Raises:
        CodesError: If shards are missing, truncated, or from different codebooks. The message names the file.
    """
    folder = Path(folder)
    shards = _shards_in(folder) if folder.is_dir() else []
    if not shards:
        raise CodesError(f"No codes in {folder}: encode pictures into it first.")
    description = _read_description(shards[0][1])
    if codebook_id is not None and description.codebook_id != codebook_id:
        raise CodesError(
            f"The codes in {folder} belong to codebook {description.codebook_id}, not to {codebook_id}: encode the "
            "pictures with the tokenizer of this model."
        )
    if not allow_incomplete:
        _check_complete(folder, description, [number for number, _ in shards])
    tables = []
    for _, path in shards:
        found = _read_description(path)
        if found != description:
            raise CodesError(f"{path} was made otherwise than {shards[0][1].name}{_differences(found, description)}.")
        tables.append(_read_table(path, description))
    if len({tuple(table.column_names) for table in tables}) > 1:
        raise CodesError(f"Some shards in {folder} have input_ids and some have not: encode them again.")
    table = pa.concat_tables(tables)
    grids = _to_matrix(table["indices"]).reshape(-1, *description.grid_size)
    input_ids = _to_matrix(table["input_ids"]) if "input_ids" in table.column_names else None
    return Codes(description, grids, table["caption"], input_ids)


class CodesDataset(Dataset):
    """A folder of codes as a map-style dataset: `{"indices": int64 (h, w), "caption": str}`, and `input_ids` if kept.

    Args:
        folder: A folder written by [`CodesWriter`].
        codebook_id: The identity that the codes must have.

    Raises:
        CodesError: See [`read_codes`].
    """

    def __init__(self, folder: str | os.PathLike, codebook_id: str | None = None) -> None:
        self.codes = read_codes(folder, codebook_id)
        self.description = self.codes.description

    def __len__(self) -> int:
        return len(self.codes.indices)

    def __getitem__(self, index: int) -> dict:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} samples.")
        index %= len(self)
        sample = {
            "indices": torch.from_numpy(self.codes.indices[index].astype(np.int64)),
            "caption": self.codes.captions[index].as_py(),
        }
        if self.codes.input_ids is not None:
            sample["input_ids"] = torch.from_numpy(self.codes.input_ids[index].astype(np.int64))
        return sample

    @property
    def fingerprint(self) -> str:
        """What the dataset holds, for the check that a resumed run reads the same data."""
        return json.dumps(asdict(self.description), sort_keys=True)


def _shard_name(number: int) -> str:
    return f"codes-{number:05d}.parquet"


def _shards_in(folder: Path) -> list[tuple[int, Path]]:
    """Numbers and paths of the shards, in order."""
    found = [(_SHARD_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted((int(match.group(1)), path) for match, path in found if match)


def _read_description(path: Path) -> CodesDescription:
    """Reads the description from a shard's footer, which is at its end: a truncated file has none."""
    try:
        metadata = pq.read_schema(path).metadata or {}
        fields = json.loads(metadata[b"mosaics"])
        if fields.pop("format") != _FORMAT:
            raise ValueError("unknown format")
        fields.pop("shard")
        return CodesDescription(**fields)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise CodesError(f"{path} is truncated or is no shard of codes ({error}).") from error


def _read_table(path: Path, description: CodesDescription) -> pa.Table:
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        grids = _to_matrix(table["indices"])
    except (pa.ArrowException, OSError, KeyError) as error:
        raise CodesError(f"{path} is damaged ({error}): delete it and encode again.") from error
    if grids.size and grids.max() >= description.num_embeddings:
        raise CodesError(f"{path} holds code {grids.max()}, the codebook has {description.num_embeddings} entries.")
    return table


def _to_matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A fixed-size list column as (rows, length), without a copy per row."""
    length = column.type.list_size
    return np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks]).reshape(-1, length)


def _check_complete(folder: Path, description: CodesDescription, numbers: list[int]) -> None:
    missing = sorted(set(range(description.num_shards)) - set(numbers))
    if missing:
        raise CodesError(
            f"{folder} lacks {len(missing)} of {description.num_shards} shards, first {_shard_name(missing[0])}: run "
            "the encoder again, it goes on where it stopped."
        )
    if not (folder / _MANIFEST).is_file():
        raise CodesError(f"{folder} has no {_MANIFEST}: encoding was not finished. Run the encoder again.")


def _differences(found: CodesDescription, expected: CodesDescription) -> str:
    """The fields that differ, for a message."""
    expected_fields = asdict(expected)
    differing = [
        f"{name} {value!r} instead of {expected_fields[name]!r}"
        for name, value in asdict(found).items()
        if value != expected_fields[name]
    ]
    return f" ({', '.join(differing)})"
