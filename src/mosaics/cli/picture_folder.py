"""A folder of drawn pictures that can be left half-done: `mosaics generate --output FOLDER`.

It holds `00000-0.png` (number of the request, place among its best), a line for each picture in `metadata.jsonl`, and
the settings in `generation.json`. `datasets.load_dataset("imagefolder", data_dir=...)` reads it, and so do the
training scripts. A picture is written before its line, so every line has its picture.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mosaics.cli.whole_files import write_picture, write_whole

SETTINGS_FILE, METADATA_FILE = "generation.json", "metadata.jsonl"
FORMAT = "mosaics generation 1"
HIDDEN = "."  # a lock, or what a killed run was writing
PNG_END = b"IEND\xaeB`\x82"
LEFTOVERS = ".*.*.[0-9]*"  # see `whole_files`


class FolderError(ValueError):
    """A folder that cannot be continued; the message says why and what to do."""


@dataclass(frozen=True)
class PictureRecord:
    """What is known of a written picture.

    Args:
        file_name: Its file.
        number: Number of its request.
        fields: What its line says besides: prompt or class, seed, candidate, score.
    """

    file_name: str
    number: int
    fields: Mapping[str, Any]

    def line(self) -> str:
        """The line of metadata.jsonl."""
        return json.dumps({"file_name": self.file_name, **self.fields}, ensure_ascii=False) + "\n"


class PictureFolder:
    """Opens a folder to be filled, new or half-done.

    Args:
        folder: The folder.
        settings: All that the pictures depend on.
        num_requests: How many requests there are.
        num_images: Pictures of each.

    Raises:
        FolderError: It was made with other settings, or holds something else.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], num_requests: int, num_images: int) -> None:
        self.folder, self.num_requests, self.num_images = folder, num_requests, num_images
        self.records: dict[int, list[PictureRecord]] = {}
        settings = {"format": FORMAT, **settings}
        path = folder / SETTINGS_FILE
        if path.is_file():
            _check_settings(path, settings)
            for leftover in folder.glob(LEFTOVERS):
                leftover.unlink()
            self._read_finished()
        else:
            held = [item.name for item in folder.glob("*") if not item.name.startswith(HIDDEN)]
            if held:
                raise FolderError(
                    f"{folder} holds {held[0]!r} and no {SETTINGS_FILE}: it is no folder of this command. Use another."
                )
        self._write_metadata()  # drops the lines of what is not whole
        write_whole(path, (json.dumps(settings, indent=1, ensure_ascii=False) + "\n").encode())

    @property
    def missing(self) -> list[int]:
        """Numbers of the requests whose pictures are not all there and whole."""
        return [number for number in range(self.num_requests) if number not in self.records]

    def add(self, number: int, pictures: Sequence[tuple[Any, Mapping[str, Any]]]) -> None:
        """Writes the pictures of a request: PIL images, the best first, each with its fields."""
        if len(pictures) != self.num_images:
            raise FolderError(f"request {number} has {len(pictures)} pictures, expected {self.num_images}.")
        records = []
        for place, (image, fields) in enumerate(pictures):
            record = PictureRecord(picture_name(number, place), number, fields)
            write_picture(self.folder / record.file_name, image)
            records.append(record)
        with (self.folder / METADATA_FILE).open("a", encoding="utf-8") as file:
            file.write("".join(record.line() for record in records))
        self.records[number] = records

    def finish(self) -> list[PictureRecord]:
        """Puts the lines in the order of the requests, and gives all of them."""
        self._write_metadata()
        return [record for number in sorted(self.records) for record in self.records[number]]

    def _write_metadata(self) -> None:
        lines = [record.line() for number in sorted(self.records) for record in self.records[number]]
        write_whole(self.folder / METADATA_FILE, "".join(lines).encode())

    def _read_finished(self) -> None:
        """The requests that have all their lines, and all their pictures whole."""
        by_name = _read_lines(self.folder / METADATA_FILE)
        for number in range(self.num_requests):
            names = [picture_name(number, place) for place in range(self.num_images)]
            if all(name in by_name and _is_whole(self.folder / name) for name in names):
                self.records[number] = [PictureRecord(name, number, by_name[name]) for name in names]


def picture_name(number: int, place: int) -> str:
    """The file of a picture."""
    return f"{number:05d}-{place}.png"


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise FolderError(f"{path} is damaged ({error}): use another folder.") from error
    if found.get("format") != FORMAT:
        raise FolderError(f"{path} has format {found.get('format')!r}, expected {FORMAT!r}: use another folder.")
    different = [key for key in {**settings, **found} if found.get(key) != settings.get(key)]
    if different:
        changes = "; ".join(
            f"{key} was {_short(found.get(key))}, now {_short(settings.get(key))}" for key in different
        )
        raise FolderError(
            f"{path.parent} was begun with other settings: {changes}. Give the same ones to go on, or another folder."
        )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _read_lines(path: Path) -> dict[str, dict[str, Any]]:
    """The fields of each picture by its file; a line cut short by a crash is left out."""
    rows: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            row = dict(json.loads(line))
            rows[str(row.pop("file_name"))] = row
        except (ValueError, TypeError, KeyError):
            continue
    return rows


def _is_whole(path: Path) -> bool:
    """Whether a PNG file has its end, and decodes."""
    from mosaics.data.images import ImageError, read_image

    try:
        read_image(path)
        return path.read_bytes().endswith(PNG_END)  # Pillow does not miss the last chunk
    except (ImageError, OSError):
        return False
