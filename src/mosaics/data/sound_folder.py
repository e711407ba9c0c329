"""A folder of sounds as a torch dataset of crops of one length."""

import os
from hashlib import sha256
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from mosaics.data.skipped import BadDataError, SkippedRows
from mosaics.data.sounds import SUFFIXES, SoundError, check_sampling_rate, read_sound, sound_info

_MAX_DRAWS = 100  # of a crop, before a folder counts as unusable


class SoundFolder(Dataset):
    """Crops of the sounds in a folder: `{"waveform": float (length,) in [-1, 1], "class_labels": int}`.

    Crop i is drawn from all stretches of `length` samples in the folder, each as likely as any other: a function of
    (seed, i) alone. If the sounds lie in sub-folders, the first of these is the class, such as the speaker, and
    `class_names` lists them in order; otherwise there are no labels. Sounds that cannot be used are recorded and left
    out, up to a limit.

    Args:
        folder: The folder; wav, FLAC and Ogg files at any depth (see [`mosaics.data.sounds`]). If it has a folder
            named like the split, the sounds in that one.
        length: Samples of a crop.
        sampling_rate: Samples a second that every file must have, in Hz.
        split: Which part of the data, if the folder has one of that name and one named `train`; all of it is
            `"train"` otherwise.
        num_crops: Crops in the dataset; as many as fit into the sounds end to end, if not given.
        seed: Seed of the crops.
        max_bad: Share of files that may be unusable, or shorter than a crop.
        skipped_path: Where these are recorded, usually `skipped.jsonl` in the output folder.

    Raises:
        FileNotFoundError: There is no such folder.
        BadDataError: There is no usable sound, too many are bad, or only some lie in sub-folders.
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        length: int,
        sampling_rate: int,
        split: str = "train",
        num_crops: int | None = None,
        seed: int = 0,
        max_bad: float = 0.01,
        skipped_path: str | os.PathLike | None = None,
    ) -> None:
        for name, count in (("length", length), ("num_crops", num_crops), ("sampling_rate", sampling_rate)):
            if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
                raise ValueError(f"{name} must be an integer of at least 1, got {count!r}.")
        self.folder = _folder_of_split(Path(folder), split)
        self.length, self.sampling_rate, self.seed = length, sampling_rate, seed
        self.skipped = SkippedRows(f"{folder}[{split}]", max_bad, skipped_path)
        files = sorted(path for path in self.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        self._num_files = len(files)
        self.files, lengths = self._usable(files)
        self.class_names, self._labels = _classes(self.folder, self.files)
        starts = np.asarray(lengths, np.int64) - length + 1  # positions of a crop in each file
        self._ends = starts.cumsum()
        self._num_crops = sum(lengths) // length if num_crops is None else num_crops
        found = "".join(f"{path.relative_to(self.folder)} {n}\n" for path, n in zip(self.files, lengths, strict=True))
        digest = sha256(found.encode()).hexdigest()[:16]
        self.fingerprint = f"sounds {digest} {self._num_crops} x {length} at {sampling_rate} Hz, seed {seed}"

    def __len__(self) -> int:
        return self._num_crops

    def __getitem__(self, index: int) -> dict:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} crops.")
        generator, tried = np.random.default_rng([self.seed, index % len(self)]), [self.folder]
        for _ in range(_MAX_DRAWS):
            position = int(generator.integers(self._ends[-1]))
            number = int(np.searchsorted(self._ends, position, side="right"))
            start = position - (int(self._ends[number - 1]) if number else 0)
            path = self.files[number]
            tried.append(path)
            try:
                sample = {"waveform": read_sound(path, self.sampling_rate, start, self.length)}
            except SoundError as error:
                self.skipped.add(str(path), str(error), self._num_files)
                continue
            return sample if self._labels is None else sample | {"class_labels": self._labels[number]}
        raise BadDataError(f"{_MAX_DRAWS} crops of {self.folder} in a row are bad; the last one: {tried[-1]}.")

    def _usable(self, files: list[Path]) -> tuple[list[Path], list[int]]:
        """The files that hold a crop, and their lengths."""
        usable, lengths = [], []
        for path in files:
            try:
                info = sound_info(path)
                check_sampling_rate(path, info, self.sampling_rate)
                if info.num_samples < self.length:
                    raise SoundError(f"{path} has {info.num_samples} samples, fewer than the {self.length} of a crop.")
            except SoundError as error:
                self.skipped.add(str(path), str(error), len(files))
                continue
            usable.append(path)
            lengths.append(info.num_samples)
        if not usable:
            reasons = "".join(f"\n  {reason}" for reason in list(self.skipped.reasons.values())[:5])
            raise BadDataError(f"{self.folder} has no usable sound ({', '.join(SUFFIXES)}).{reasons}")
        return usable, lengths


def _folder_of_split(folder: Path, split: str) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder of sounds at {folder}.")
    if split == "train":
        return folder / split if (folder / split).is_dir() else folder
    for name in (split, "train"):  # without the second, the sounds of the split would be trained on too
        if not (folder / name).is_dir():
            raise BadDataError(
                f"{folder} has no folder {name!r}, which split={split!r} needs: sort its files into them."
            )
    return folder / split


def _classes(folder: Path, files: list[Path]) -> tuple[tuple[str, ...] | None, list[int] | None]:
    """The names of the sub-folders and the number of each file's; `None` if there are no sub-folders."""
    parts = [path.relative_to(folder).parts for path in files]
    flat = [path for path, names in zip(files, parts, strict=True) if len(names) == 1]
    if len(flat) == len(files):
        return None, None
    if flat:
        raise BadDataError(
            f"{flat[0]} lies beside the sub-folders of {folder}, which are classes: put every sound into one of them."
        )
    names = sorted({names[0] for names in parts})
    return tuple(names), [names.index(own[0]) for own in parts]
