"""The files a user gives: what they are, by their first bytes, and what they hold."""

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mosaics.converters.errors import ForeignFileError, RefusedGlobalsError
from mosaics.converters.inert_pickle import COMMON_INERT_CLASSES, is_listed
from mosaics.converters.torch_files import (
    TorchFile,
    read_torch_stream,
    read_torch_zip,
    starts_like_a_pickle,
    state_dict_of,
)
from mosaics.models.weights_check import WeightsError, read_header

MAX_FILES = 1000
Sources = str | os.PathLike | Sequence[str | os.PathLike]


class ForeignFile:
    """One file of another project.

    Args:
        path: The file.
        inert_classes: Classes that become stubs when it is a pickle.

    Attributes:
        path: The file.
        kind: `"safetensors"`, `"torch"` (both forms of `torch.save`) or `"other"`.

    Raises:
        ForeignFileError: It is empty, a web page, a Git LFS pointer, or an archive that has to be unpacked first.
    """

    def __init__(self, path: Path, inert_classes: Collection[str] = ()):
        self.path = path
        self._inert_classes = inert_classes
        with path.open("rb") as file:
            start = file.read(512)
        self.kind, self._form = _recognize(path, start)

    @property
    def name(self) -> str:
        """File name, for messages."""
        return self.path.name

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size

    @cached_property
    def sha256(self) -> str:
        """Digest of the file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def _loaded(self) -> TorchFile:
        if self._form == "zip":
            return read_torch_zip(self.path, self._inert_classes)
        if self._form == "stream":
            return read_torch_stream(self.path, self._inert_classes)
        if self.kind == "safetensors":
            try:
                read_header(self.path)
                return TorchFile(load_file(self.path), frozenset())
            except (WeightsError, SafetensorError) as error:
                raise ForeignFileError(f"{error}") from error
        raise ForeignFileError(f"{self.path} holds no weights.")

    @property
    def content(self) -> Any:
        """What was saved: for safetensors the tensors by name. Raises [`ForeignFileError`] if it cannot be read."""
        return self._loaded.content

    @cached_property
    def weights(self) -> dict[str, torch.Tensor]:
        """The tensors of a state dict, or of a whole module, by name; none of a file without weights."""
        return {} if self.kind == "other" else state_dict_of(self.content)

    def refuse_classes_outside(self, inert_classes: Collection[str]) -> None:
        """Raises [`RefusedGlobalsError`] if the file holds stubs of classes that are not among these."""
        allowed = {*COMMON_INERT_CLASSES, *inert_classes}
        names = tuple(sorted(name for name in self._loaded.inert_classes if not is_listed(name, allowed)))
        if names:
            raise RefusedGlobalsError(
                f"{self.path} holds objects of {', '.join(names)}, which do not belong into this format.", names
            )

    def __repr__(self) -> str:
        return f"ForeignFile({str(self.path)!r}, kind={self.kind!r})"


def _recognize(path: Path, start: bytes) -> tuple[str, str]:
    """Kind and form of a file by its first bytes."""
    again = "Download or copy it again."
    if not start:
        raise ForeignFileError(f"{path} is empty (0 bytes). {again}")
    if start.startswith(b"version https://git-lfs"):
        raise ForeignFileError(f"{path} is a Git LFS pointer, not the weights. Run `git lfs pull` in its repository.")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise ForeignFileError(f"{path} is a web page, not weights: a download saved an error page. {again}")
    if start.startswith(b"\x1f\x8b"):
        raise ForeignFileError(f"{path} is a gzip archive. Unpack it (`tar xzf`) and give the folder.")
    if start[257:262] == b"ustar":
        raise ForeignFileError(
            f"{path} is a tar archive: unpack it and give the folder. If PyTorch before 0.1.10 wrote it as a "
            "checkpoint, save it again with a later one."
        )
    if start.startswith(b"PK\x03\x04"):
        return "torch", "zip"
    if starts_like_a_pickle(start):
        return "torch", "stream"
    if len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**40:
        return "safetensors", "safetensors"
    return "other", "other"


def open_sources(source: Sources, inert_classes: Collection[str] = ()) -> list[ForeignFile]:
    """The files of a path or of several; of folders, all files in them but hidden ones.

    Args:
        source: File or folder, or several.
        inert_classes: Classes that become stubs when a file is a pickle.

    Raises:
        ForeignFileError: One is missing, no regular file, or unusable (see [`ForeignFile`]).
    """
    paths = [source] if isinstance(source, str | os.PathLike) else list(source)
    files = [ForeignFile(path, inert_classes) for path in _unfold(Path(path) for path in paths)]
    if not files:
        raise ForeignFileError(f"no file to convert: {', '.join(map(str, paths)) or 'no path was given'}.")
    return files


def _unfold(paths: Iterable[Path]) -> Iterator[Path]:
    count = 0
    for path in paths:
        if not path.exists():
            raise ForeignFileError(f"{path} does not exist.")
        inside = path.is_dir()
        for item in sorted(path.rglob("*")) if inside else [path]:
            if inside and (not item.is_file() or any(part.startswith(".") for part in item.relative_to(path).parts)):
                continue
            if not item.is_file():
                raise ForeignFileError(f"{item} is not a regular file.")
            count += 1
            if count > MAX_FILES:
                raise ForeignFileError(f"{path} holds more than {MAX_FILES} files: give the checkpoint itself.")
            yield item
