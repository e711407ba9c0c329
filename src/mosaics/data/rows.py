"""Where captioned pictures come from: an image folder, tar shards, or a table of `datasets`.

Each source is a sequence of undecoded rows: mappings with the picture under `image_column` (a path, or bytes with a
path) and the caption under whatever name it has. Reading a row never decodes the picture.
"""

import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from mosaics.data.captions import CaptionError, read_caption
from mosaics.data.skipped import BadDataError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm"})
_TEXT_MEMBERS = ("txt", "caption", "text", "json")


@dataclass
class BadRow:
    """A row that is known to be unusable before its picture is opened."""

    name: str
    reason: str


@dataclass
class StartReport:
    """What was found in a source before training starts.

    Args:
        rows: Rows listed, good and bad.
        bad: Rows that cannot be used.
        unlisted: Picture files that no row names.
        duplicates: Rows that name a picture which an earlier row names too (they are kept: it may have two captions).
    """

    rows: int
    bad: list[BadRow] = field(default_factory=list)
    unlisted: int = 0
    duplicates: int = 0

    def __str__(self) -> str:
        return (
            f"{self.rows} rows, {self.rows - len(self.bad)} usable, {len(self.bad)} bad, "
            f"{self.duplicates} naming a picture again, {self.unlisted} pictures not listed"
        )


class Rows:
    """Undecoded rows, by number. `fingerprint` tells whether the content changed, where that is cheap to know."""

    image_column: str
    report: StartReport
    fingerprint: str | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        raise NotImplementedError

    def name(self, index: int) -> str:
        """The file of a row, or what else finds it again."""
        raise NotImplementedError

    def named_rows(self, seed: int, epoch: int, buffer: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """All rows with their names, permuted by (seed, epoch) unless `buffer` is 0."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(self), generator=generator).tolist() if buffer else range(len(self))
        for index in order:
            yield self.name(index), self[index]


class ImageFolderRows(Rows):
    """A folder of pictures with a `metadata.jsonl`, whose lines are `{"file_name": ..., "text": ...}`.

    A line that is no JSON object, has no usable caption, or names a file that is missing or outside the folder is a
    bad row, known by `metadata.jsonl:<line>`.

    Args:
        folder: The folder; `file_name` is relative to it.
        caption_column: See [`mosaics.data.captions.read_caption`].

    Raises:
        BadDataError: If there is no `metadata.jsonl`, or it is not UTF-8 text.
    """

    image_column = "image"

    def __init__(self, folder: str | os.PathLike, caption_column: str = "auto") -> None:
        self.folder = Path(folder)
        path = self.folder / "metadata.jsonl"
        if not path.is_file():
            raise BadDataError(f"{self.folder} has no metadata.jsonl with lines of file_name and text.")
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise BadDataError(f"{path} is not UTF-8 text ({error}).") from error
        present = {
            os.path.relpath(os.path.join(root, name), self.folder)
            for root, _, names in os.walk(self.folder)
            for name in names
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
        }
        self._rows: list[dict] = []
        self.report = StartReport(0)
        seen: set[str] = set()
        for number, line in enumerate(lines, start=1):
            if line.strip():
                self.report.rows += 1
                self._read_line(f"{path}:{number}", line, caption_column, present, seen)
        self.report.unlisted = len(present - seen)
        digest = sha256("\n".join(lines).encode())
        self.fingerprint = f"imagefolder-{len(self._rows)}-{digest.hexdigest()[:16]}"

    def _read_line(self, place: str, line: str, caption_column: str, present: set[str], seen: set[str]) -> None:
        """Adds the row of one line, or its place and what is wrong with it."""
        try:
            row = json.loads(line)
        except ValueError as error:
            self.report.bad.append(BadRow(place, f"no JSON: {error}"))
            return
        name = row.get("file_name") if isinstance(row, dict) else None
        if not isinstance(name, str):
            self.report.bad.append(BadRow(place, "no file_name (a string) in this line"))
            return
        relative = os.path.normpath(name)
        if os.path.isabs(relative) or relative.startswith(".."):
            self.report.bad.append(BadRow(place, f"{name} is outside the folder"))
            return
        self.report.duplicates += relative in seen
        seen.add(relative)
        if relative not in present and not (self.folder / relative).is_file():
            self.report.bad.append(BadRow(place, f"there is no file {name}"))
            return
        try:
            read_caption({key: value for key, value in row.items() if key != "file_name"}, caption_column)
        except CaptionError as error:
            self.report.bad.append(BadRow(place, str(error)))
            return
        self._rows.append({**row, "image": str(self.folder / relative)})

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict:
        return self._rows[index]

    def name(self, index: int) -> str:
        """The path of the picture."""
        return self._rows[index]["image"]


class TarRows(Rows):
    """Tar shards in the layout of webdataset: members that share a name up to the first dot are one row.

    The shards are indexed once by their headers and then read at random, without unpacking.

    Args:
        paths: The shards, uncompressed.

    Raises:
        BadDataError: If a shard is truncated or no tar; the message names it and counts what is whole in it.
    """

    image_column = "image"

    def __init__(self, paths: list[Path]) -> None:
        self._rows: list[tuple[Path, str, dict[str, tuple[int, int]]]] = []
        self.report = StartReport(0)
        digest = sha256()
        for path in paths:
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            for key, members in _index_tar(path).items():
                self.report.rows += 1
                reason = self._unusable(members)
                if reason:
                    self.report.bad.append(BadRow(f"{path}:{key}", reason))
                else:
                    self._rows.append((path, key, members))
        self.fingerprint = f"webdataset-{len(self._rows)}-{digest.hexdigest()[:16]}"

    @staticmethod
    def _unusable(members: dict[str, tuple[int, int]]) -> str:
        if not any(f".{kind}" in IMAGE_SUFFIXES for kind in members):
            return f"no picture among the members {sorted(members)}"
        if not any(kind in members for kind in _TEXT_MEMBERS):
            return f"no caption ({', '.join(_TEXT_MEMBERS)}) among the members {sorted(members)}"
        return ""

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict:
        path, key, members = self._rows[index]
        row: dict[str, Any] = {}
        with open(path, "rb") as file:
            for kind, (offset, size) in members.items():
                is_image = f".{kind}" in IMAGE_SUFFIXES
                if is_image or kind in _TEXT_MEMBERS:
                    file.seek(offset)
                    data = file.read(size)
                    row["image" if is_image else kind] = (
                        {"bytes": data, "path": f"{path}:{key}.{kind}"} if is_image else data
                    )
        return row

    def name(self, index: int) -> str:
        """The shard and the name within it."""
        path, key, _ = self._rows[index]
        return f"{path}:{key}"


def _index_tar(path: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """Offset and size of each member, grouped by key, in the order of the file."""
    groups: dict[str, dict[str, tuple[int, int]]] = {}
    num_bytes = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isfile():
                    folder, base = os.path.split(member.name)
                    stem, _, kind = base.partition(".")
                    groups.setdefault(os.path.join(folder, stem), {})[kind.lower()] = (member.offset_data, member.size)
                    if member.offset_data + member.size > num_bytes:
                        raise tarfile.ReadError(
                            f"member {member.name} has {num_bytes - member.offset_data:,} of its {member.size:,} bytes"
                        )
            if num_bytes - tar.offset < tarfile.BLOCKSIZE:  # a whole tar ends with blocks of zeros
                raise tarfile.ReadError("its end is missing, so an unknown number of rows is lost")
    except tarfile.TarError as error:
        whole = max(0, len(groups) - 1)
        hint = " It is compressed: unpack it to a plain tar." if not groups and path.suffix != ".tar" else ""
        raise BadDataError(
            f"{path} is truncated or no tar ({error}); {whole} rows in it are whole.{hint} Fetch it again, or "
            "leave it out."
        ) from error
    return groups


class TableRows(Rows):
    """A table of `datasets` (parquet files, a saved dataset, a set from the Hub), with its pictures undecoded.

    Args:
        table: A `datasets.Dataset` whose picture column has `decode=False`.
        image_column: Its picture column.
    """

    def __init__(self, table: Any, image_column: str) -> None:
        self.table, self.image_column = table, image_column
        self.report = StartReport(len(table))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self.table[index]

    def name(self, index: int) -> str:
        """The row number, and the path of the picture if the table has it."""
        image = self.table[index].get(self.image_column)
        path = image.get("path") if isinstance(image, dict) else None
        return f"row {index} ({path})" if path else f"row {index}"
