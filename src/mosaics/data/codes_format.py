"""What a folder of codes says of itself, in `codes.json` and in every shard."""

import json
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MANIFEST = "codes.json"
FORMATS = ("mosaics codes 1", "mosaics codes 2")
SHARD_NAME = re.compile(r"codes-(\d{5,})\.parquet")


class CodesError(ValueError):
    """Codes that cannot be used; the message names the file and says what to do."""


@dataclass(frozen=True)
class CodeGrid:
    """The codes of one level of a tokenizer: a grid of each picture, or a sequence of each sound.

    Args:
        codebook_id: Identity of the codebook that the codes belong to (see [`mosaics.models.codebook_identity`]).
        num_embeddings: Size K of the codebook; codes are below it. At most 65,536.
        size: Height and width (h, w) of a grid, (h, w, l) if there are l codes at each position, or the length (t,)
            of a sequence.

    Raises:
        ValueError: A size is out of range.
    """

    codebook_id: str
    num_embeddings: int
    size: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        if not 1 <= self.num_embeddings <= 65_536:
            raise ValueError(f"num_embeddings must be between 1 and 65,536, got {self.num_embeddings}.")
        if len(self.size) not in (1, 2, 3) or min(self.size) < 1:
            raise ValueError(
                "size must be one to three positive integers, (t,) of a sequence, (h, w) of a grid or (h, w, l) of "
                f"one with l codes at each position, got {self.size}."
            )

    @property
    def num_codes(self) -> int:
        """Codes of one sample."""
        return math.prod(self.size)


@dataclass(frozen=True)
class CodesDescription:
    """What all shards of a folder have in common.

    Args:
        grids: The codes that every sample has: one grid, or those of all levels of a VQ-VAE-2, top first.
        num_samples: Number of samples in the whole folder.
        shard_size: Samples in a shard; the last one may hold fewer.
        source: What was encoded, in words or as a fingerprint; resuming with another source is refused.
        class_names: Names of the classes, if every sample has a class label, its number in this list.

    Raises:
        ValueError: A value is out of range.
    """

    grids: tuple[CodeGrid, ...]
    num_samples: int
    shard_size: int = 10_000
    source: str = ""
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        grids = (self.grids,) if isinstance(self.grids, CodeGrid) else tuple(self.grids)
        object.__setattr__(self, "grids", grids)
        if not self.grids:
            raise ValueError("grids must have at least one CodeGrid, got none.")
        if self.num_samples < 1 or self.shard_size < 1:
            raise ValueError(
                f"num_samples and shard_size must be at least 1, got {self.num_samples} and {self.shard_size}."
            )
        if self.class_names is not None:
            object.__setattr__(self, "class_names", tuple(self.class_names))
            if not self.class_names or len(set(self.class_names)) < len(self.class_names):
                raise ValueError(f"class_names must be different names, at least one, got {self.class_names[:8]}.")

    @property
    def num_shards(self) -> int:
        """Number of files that the folder has when it is complete."""
        return -(-self.num_samples // self.shard_size)

    @property
    def codebook_ids(self) -> tuple[str, ...]:
        """Identities of the codebooks, one for each grid."""
        return tuple(grid.codebook_id for grid in self.grids)

    def to_fields(self) -> dict[str, Any]:
        """The description as a JSON object.

        A folder that format 1 can describe, one grid without classes, is written in it: so what was encoded and
        trained before format 2 goes on with the same description and the same fingerprint.
        """
        rest = {"num_samples": self.num_samples, "shard_size": self.shard_size, "source": self.source}
        (first, *lower) = self.grids
        if not lower and len(first.size) == 2 and self.class_names is None:
            grid = {"codebook_id": first.codebook_id, "num_embeddings": first.num_embeddings}
            return {"format": FORMATS[0], **grid, "grid_size": list(first.size), **rest}
        names = None if self.class_names is None else list(self.class_names)
        grids = [{**asdict(grid), "size": list(grid.size)} for grid in self.grids]
        return {"format": FORMATS[1], "grids": grids, **rest, "class_names": names}

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "CodesDescription":
        """The inverse of [`to_fields`], for either format.

        Raises:
            ValueError: An unknown format, or a value out of range. `KeyError` and `TypeError` for other fields.
        """
        fields = dict(fields)
        found = fields.pop("format")
        if found not in FORMATS:
            raise ValueError(f"unknown format {found!r}")
        if found == FORMATS[0]:
            grid = CodeGrid(fields.pop("codebook_id"), fields.pop("num_embeddings"), fields.pop("grid_size"))
            return cls((grid,), **fields)
        return cls(tuple(CodeGrid(**grid) for grid in fields.pop("grids")), **fields)

    def differences(self, expected: "CodesDescription") -> str:
        """The fields that differ from `expected`, for a message."""
        mine, theirs = self.to_fields(), expected.to_fields()
        names = sorted(set(mine) | set(theirs))
        pairs = [(name, mine.get(name), theirs.get(name)) for name in names]
        differing = [f"{name} {found!r} instead of {other!r}" for name, found, other in pairs if found != other]
        return f" ({', '.join(differing)})"


def column_name(number: int) -> str:
    """The parquet column of the grid of a level, from 0 at the top: `indices`, `indices_2`, ..."""
    return "indices" if number == 0 else f"indices_{number + 1}"


def shard_name(number: int) -> str:
    """The file of a shard."""
    return f"codes-{number:05d}.parquet"


def shards_in(folder: Path) -> list[tuple[int, Path]]:
    """Numbers and paths of the shards, in order."""
    found = [(SHARD_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted((int(match.group(1)), path) for match, path in found if match)


def read_description(path: Path) -> CodesDescription:
    """Reads the description from a shard's footer, which is at its end: a truncated file has none.

    Raises:
        CodesError: There is none; the message names the file.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
        fields = json.loads(metadata[b"mosaics"])
        fields.pop("shard")
        return CodesDescription.from_fields(fields)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise CodesError(f"{path} is truncated or is no shard of codes ({error}).") from error
