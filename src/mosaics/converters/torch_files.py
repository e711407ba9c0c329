r"""What `torch.save` writes, read without `torch.load`: the zip archive, and the older stream of pickles.

    zip     archive/data.pkl, a pickle, and archive/data/<key>, the bytes of each storage, not compressed
    stream  five pickles (a magic number, a version, the machine, the object, the keys of its storages), then for each
            key the number of elements and their bytes

The bytes are mapped, not copied: a tensor is read from disk when it is used. Every tensor is checked to lie inside its
storage, and every storage inside the file.
"""

import math
import mmap
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch

from mosaics.converters.errors import ForeignFileError
from mosaics.converters.inert_pickle import (
    ArrayRecord,
    InertObject,
    ScalarRecord,
    StorageRecord,
    TensorRecord,
    read_pickle,
)

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
STREAM_VERSION = 1001
MAX_PICKLE_BYTES = 512 * 2**20
MAX_DEPTH = 200
AGAIN = "Download or copy it again."
LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, ..., length of the name, length of the extra field


class TorchFile(NamedTuple):
    """What a file holds, and the classes of it that became stubs."""

    content: Any
    inert_classes: frozenset[str]


def read_torch_zip(path: Path, inert_classes: Collection[str] = ()) -> TorchFile:
    """Reads the zip archive that `torch.save` writes since PyTorch 1.6.

    Raises:
        ForeignFileError: It is damaged, compressed, TorchScript, or refused (see [`read_pickle`]).
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise ForeignFileError(f"{path} is a damaged or truncated PyTorch archive ({error}). {AGAIN}") from error
    with archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        _check_archive(path, entries, pickles)
        root = pickles[0].removesuffix("data.pkl")
        try:
            with archive.open(pickles[0]) as file:
                content, stubs = read_pickle(file, str(path), inert_classes)
            order = archive.read(root + "byteorder") if root + "byteorder" in entries else b"little"
        except zipfile.BadZipFile as error:
            raise ForeignFileError(f"{path} is damaged ({error}). {AGAIN}") from error
    if order != b"little":
        raise ForeignFileError(f"{path} was written on a big-endian machine, which is not read.")
    places = {}
    with path.open("rb") as file:
        for name, entry in entries.items():
            if name.startswith(root + "data/"):
                places[name.removeprefix(root + "data/")] = (_data_offset(path, file, entry), entry.file_size)
    return TorchFile(_Materializer(path, places).make(content), stubs)


def _check_archive(path: Path, entries: dict[str, zipfile.ZipInfo], pickles: list[str]) -> None:
    if any(name.rsplit("/", 1)[-1] == "constants.pkl" for name in entries):
        raise ForeignFileError(f"{path} is a TorchScript program, not weights. Save the state dict of the model.")
    if len(pickles) != 1:
        raise ForeignFileError(f"{path} is a zip archive, but none that torch.save wrote. Give the checkpoint itself.")
    for name, entry in entries.items():
        if entry.flag_bits & 1:
            raise ForeignFileError(f"{path} holds {name!r} encrypted, which torch.save never does: not read.")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise ForeignFileError(f"{path} holds {name!r} compressed, which torch.save never does: not read.")
    if entries[pickles[0]].file_size > MAX_PICKLE_BYTES:
        raise ForeignFileError(f"{path} holds a pickle of {entries[pickles[0]].file_size:,} bytes: not read.")


def _data_offset(path: Path, file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """Where the bytes of an entry begin: after its own header, whose length the directory does not give."""
    file.seek(entry.header_offset)
    header = file.read(LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise ForeignFileError(f"{path} is damaged: {entry.filename!r} is not where the directory says. {AGAIN}")
    _, name_length, extra_length = LOCAL_HEADER.unpack(header)
    return entry.header_offset + LOCAL_HEADER.size + name_length + extra_length


def read_torch_stream(path: Path, inert_classes: Collection[str] = ()) -> TorchFile:
    """Reads the stream of pickles that `torch.save` wrote before PyTorch 1.6.

    Raises:
        ForeignFileError: It is damaged, another kind of pickle, or refused (see [`read_pickle`]).
    """
    with path.open("rb") as file:
        magic, _ = read_pickle(file, str(path), inert_classes)
        if magic != MAGIC_NUMBER:
            raise ForeignFileError(f"{path} is a pickle, but none that torch.save wrote. Save a state dict with it.")
        version, _ = read_pickle(file, str(path))
        machine, _ = read_pickle(file, str(path))
        if version != STREAM_VERSION or not isinstance(machine, dict) or not machine.get("little_endian", False):
            raise ForeignFileError(f"{path} is of an unknown version ({version!r}) or of a big-endian machine.")
        content, stubs = read_pickle(file, str(path), inert_classes)
        keys, _ = read_pickle(file, str(path))
        if not isinstance(keys, list):
            raise ForeignFileError(f"{path} is damaged: no list of storages after its contents. {AGAIN}")
        places = _storage_places(path, file, [str(key) for key in keys], _element_sizes(content))
    return TorchFile(_Materializer(path, places).make(content), stubs)


def _element_sizes(content: Any) -> dict[str, int]:
    """Bytes of one element of each storage that `content` refers to."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if isinstance(item, TensorRecord):
            if isinstance(item.storage, StorageRecord):
                sizes[item.storage.key] = item.storage.dtype.itemsize
        elif id(item) not in seen:
            seen.add(id(item))
            waiting.extend(_children(item))
    return sizes


def _children(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return [*item.keys(), *item.values()]
    if isinstance(item, InertObject):
        return list(vars(item).values())
    return list(item) if isinstance(item, list | tuple | set | frozenset) else []


def _storage_places(
    path: Path, file: BinaryIO, keys: list[str], element_sizes: dict[str, int]
) -> dict[str, tuple[int, int]]:
    """Offset and number of bytes of each storage of a stream."""
    places, end = {}, path.stat().st_size
    for key in keys:
        head = file.read(8)
        if len(head) < 8:
            raise ForeignFileError(f"{path} is truncated: storage {key} is missing. {AGAIN}")
        (length,) = struct.unpack("<q", head)
        if key not in element_sizes:
            raise ForeignFileError(f"{path} is damaged: storage {key} belongs to no tensor. {AGAIN}")
        size = length * element_sizes[key]
        if length < 0 or file.tell() + size > end:
            raise ForeignFileError(
                f"{path} is truncated: storage {key} needs {size:,} bytes from byte {file.tell():,}, the file has "
                f"{end:,}. {AGAIN}"
            )
        places[key] = (file.tell(), size)
        file.seek(size, 1)
    return places


class _Materializer:
    """Replaces the records in what a pickle held by tensors and arrays."""

    def __init__(self, path: Path, places: dict[str, tuple[int, int]]):
        self.path = path
        self.places = places
        self.size = path.stat().st_size
        with path.open("rb") as file:
            # Copied on write, so that tensors may be changed; nothing reaches the file.
            self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.made: dict[int, tuple[Any, Any]] = {}  # the originals are kept, so that their ids stay theirs

    def make(self, item: Any, depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            raise ForeignFileError(f"{self.path} nests containers more than {MAX_DEPTH} deep: not read.")
        if isinstance(item, TensorRecord):
            return self._tensor(item)
        if isinstance(item, ArrayRecord | ScalarRecord):
            return self._numpy(item)
        if not isinstance(item, dict | list | tuple | InertObject):
            return item
        if id(item) in self.made:
            return self.made[id(item)][1]
        if isinstance(item, InertObject):
            self.made[id(item)] = (item, item)
            for name, value in list(vars(item).items()):
                item.__dict__[name] = self.make(value, depth + 1)
            return item
        if isinstance(item, tuple):
            made = tuple(self.make(value, depth + 1) for value in item)
            self.made[id(item)] = (item, made)
            return made
        if isinstance(item, list):
            values: list[Any] = []
            self.made[id(item)] = (item, values)  # before its items, which may hold it
            values.extend(self.make(value, depth + 1) for value in item)
            return values
        entries = type(item)()
        self.made[id(item)] = (item, entries)
        entries.update((self._key(key), self.make(value, depth + 1)) for key, value in item.items())
        return entries

    def _key(self, key: Any) -> Any:
        return repr(key) if isinstance(key, TensorRecord | InertObject) else key

    def _numpy(self, record: ArrayRecord | ScalarRecord) -> Any:
        try:
            return record.array() if isinstance(record, ArrayRecord) else record.item()
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            raise ForeignFileError(f"{self.path} holds {error}: not read.") from error

    def _tensor(self, record: TensorRecord) -> torch.Tensor:
        storage, offset, size, stride, dtype = record
        numbers = (offset, *size, *stride)
        sane = isinstance(dtype, torch.dtype) and len(size) == len(stride)
        if not sane or any(type(n) is not int or n < 0 for n in numbers):
            raise ForeignFileError(f"{self.path} is damaged: a tensor of size {size} and stride {stride}. {AGAIN}")
        place = self.places.get(storage.key) if isinstance(storage, StorageRecord) else None
        if place is None:
            raise ForeignFileError(f"{self.path} is damaged: a tensor of size {size} has no numbers in it. {AGAIN}")
        begin, available = place[0] + storage.first * storage.dtype.itemsize, storage.length * storage.dtype.itemsize
        count = available // dtype.itemsize
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        inside = begin + available <= min(place[0] + place[1], self.size)
        if not inside or (math.prod(size) and (last >= count or math.prod(size) > count)):
            raise ForeignFileError(
                f"{self.path} is damaged or truncated: a tensor of size {size} and stride {stride} reaches beyond its "
                f"{available:,} bytes. {AGAIN}"
            )
        if not math.prod(size):
            return torch.empty(size, dtype=dtype)
        if begin % dtype.itemsize:  # only in streams
            flat = torch.frombuffer(bytearray(self.bytes[begin : begin + available]), dtype=dtype, count=count)
        else:
            flat = torch.frombuffer(self.bytes, dtype=dtype, count=count, offset=begin)
        return flat.as_strided(size, stride, offset)


def state_dict_of(content: Any) -> dict[str, torch.Tensor]:
    """The tensors of a state dict, or of a module that became a stub, by their dotted names.

    Of a dictionary only the entries that are tensors count; the others are left to the caller.
    """
    if isinstance(content, dict):
        return {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if not isinstance(content, InertObject):
        return {}
    weights: dict[str, torch.Tensor] = OrderedDict()
    waiting: list[tuple[str, Any]] = [("", content)]
    seen: set[int] = set()
    while waiting:
        prefix, module = waiting.pop(0)
        if not isinstance(module, InertObject) or id(module) in seen:
            continue
        seen.add(id(module))
        attributes = vars(module)
        for kind in ("_parameters", "_buffers"):
            for name, tensor in _plain_dict(attributes.get(kind)).items():
                if isinstance(tensor, torch.Tensor):
                    weights[prefix + name] = tensor
        waiting.extend((f"{prefix}{name}.", child) for name, child in _plain_dict(attributes.get("_modules")).items())
    return weights


def _plain_dict(value: Any) -> dict[str, Any]:
    return {key: item for key, item in value.items() if isinstance(key, str)} if isinstance(value, dict) else {}


def starts_like_a_pickle(start: bytes) -> bool:
    """Whether a file begins as pickles of protocol 2 and later do."""
    return len(start) > 1 and start[:1] == pickle.PROTO and 2 <= start[1] <= 5
