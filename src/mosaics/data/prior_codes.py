"""What a prior is trained on: the codes of one level, those of the levels above it, and the class."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from huggingface_hub.dataclasses import strict
from torch.utils.data import Dataset

from mosaics.data.codes import CodesDataset
from mosaics.data.codes_format import CodeGrid, CodesError

CLASSES = ("labels", "captions", "none")
AS_CLASSES = "to make classes of them (classes='captions')"


class PriorCodes(Dataset):
    """Some samples of a folder of codes, as a prior of one level reads them.

    A sample is `{"indices": int64 (h, w)}`, with `"conditions"`, the grids of all levels above as a tuple, top first,
    unless the level is the top, and with `"class_labels"` (an integer) if there are classes.

    Args:
        codes: The folder.
        samples: Which samples of it.
        level: The level whose codes are predicted, 1 the top.
        class_names: Names of the classes; a class is its number in this list. `None` for none.
        classes: Where the class of a sample is found: `"labels"`, the class labels of the folder, or `"captions"`.

    Raises:
        CodesError: The folder has no such level, no labels or captions, or a class that has no number.
    """

    def __init__(
        self,
        codes: CodesDataset,
        samples: range,
        level: int = 1,
        class_names: Sequence[str] | None = None,
        classes: str = "labels",
    ) -> None:
        num_levels = len(codes.description.grids)
        if not 1 <= level <= num_levels:
            raise CodesError(f"{codes.folder} has the codes of {num_levels} level(s), 1 the top; got level={level}.")
        self.codes, self.samples, self.level = codes, samples, level
        names = None if class_names is None else tuple(class_names)
        self.class_names = names
        self.labels = None if names is None else _numbers(codes, names, classes)
        self.fingerprint = f"{codes.fingerprint} {samples} level {level} {self.class_names}"

    @property
    def grid(self) -> CodeGrid:
        """The level's grid."""
        return self.codes.description.grids[self.level - 1]

    @property
    def upper_grids(self) -> tuple[CodeGrid, ...]:
        """The grids of the levels above, top first."""
        return self.codes.description.grids[: self.level - 1]

    @property
    def num_classes(self) -> int | None:
        """Number of classes, if there are any."""
        return None if self.class_names is None else len(self.class_names)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict:
        number = self.samples[index]
        *upper, indices = (
            torch.from_numpy(grid[number].astype(np.int64)) for grid in self.codes.codes.grids[: self.level]
        )
        sample: dict[str, Any] = {"indices": indices}
        if upper:
            sample["conditions"] = tuple(upper)
        if self.labels is not None:
            sample["class_labels"] = int(self.labels[number])
        return sample


def load_prior_codes(
    folder: str | os.PathLike,
    eval_folder: str | os.PathLike | None = None,
    *,
    num_eval_samples: int,
    level: int = 1,
    classes: str = "labels",
    codebook_id: str | Sequence[str] | None = None,
) -> tuple[PriorCodes, PriorCodes]:
    """The codes to train a prior on, and held-out ones.

    Args:
        folder: Folder of codes.
        eval_folder: Folder of other codes to evaluate on; the last samples of `folder`, at most half, if not given.
        num_eval_samples: Held-out samples, at most.
        level: The level whose codes are predicted, 1 the top.
        classes: What the prior is conditioned on: `"labels"`, the class labels of the folder if it has any;
            `"captions"`, each different caption a class; `"none"`.
        codebook_id: The identity that the codes must have, or those of all levels, top first.

    Raises:
        CodesError: The codes cannot be used, or those to evaluate on are of another codebook or another class.
        ValueError: `classes` is unknown, or `num_eval_samples` below 1.
    """
    if classes not in CLASSES:
        raise ValueError(f"classes must be one of {', '.join(CLASSES)}, got {classes!r}.")
    if num_eval_samples < 1:
        raise ValueError(f"num_eval_samples must be at least 1, got {num_eval_samples}.")
    train = CodesDataset(folder, codebook_id)
    names = _class_names(train, classes)
    if eval_folder is not None:
        held_out = CodesDataset(eval_folder, train.description.codebook_ids)
        samples = range(min(num_eval_samples, len(held_out)))
        split = len(train)
    else:
        held_out, split = train, max(len(train) - num_eval_samples, (len(train) + 1) // 2)
        samples = range(split, len(train))
    return (
        PriorCodes(train, range(split), level, names, classes),
        PriorCodes(held_out, samples, level, names, classes),
    )


@strict
@dataclass
class PriorCodesArguments:
    """The codes that a training script of a prior reads, as its arguments; the script's own follow in a subclass."""

    codes: str = field(default="outputs/codes", metadata={"help": "Folder of codes, as encode_codes.py writes them."})
    eval_codes: str | None = field(
        default=None, metadata={"help": "Folder of other codes to evaluate on; the last of --codes if not given."}
    )
    num_eval_samples: int = field(default=512, metadata={"help": "Held-out samples to evaluate on, at most."})
    level: int = field(
        default=1, metadata={"help": "Level whose codes are learnt, if there are several; 1 is the top."}
    )
    classes: Literal["labels", "captions", "none"] = field(
        default="labels",
        metadata={"help": "Classes: the labels of the codes, if they have any, or each different caption, or none."},
    )

    def load(self, codebook_id: str | Sequence[str] | None = None) -> tuple[PriorCodes, PriorCodes]:
        """The codes to train on and held-out ones; see [`load_prior_codes`].

        Args:
            codebook_id: The identity that the codes must have, or those of all levels, top first.

        Raises:
            CodesError: See [`load_prior_codes`].
        """
        return load_prior_codes(
            self.codes,
            self.eval_codes,
            num_eval_samples=self.num_eval_samples,
            level=self.level,
            classes=self.classes,
            codebook_id=codebook_id,
        )


def _class_names(codes: CodesDataset, classes: str) -> tuple[str, ...] | None:
    """The names of the classes that a prior of these codes is conditioned on."""
    if classes == "labels":
        return codes.description.class_names
    if classes == "none":
        return None
    return tuple(sorted(set(codes.captions(AS_CLASSES).to_pylist())))


def _numbers(codes: CodesDataset, names: tuple[str, ...], classes: str) -> np.ndarray:
    """The number of each sample's class among `names`."""
    numbers = {name: number for number, name in enumerate(names)}
    if classes == "labels":
        own_names, labels = codes.description.class_names, codes.codes.class_labels
        if own_names is None:
            raise CodesError(f"{codes.folder} has no class labels: encode samples that have them, or use no classes.")
    else:
        encoded = codes.captions(AS_CLASSES).combine_chunks().dictionary_encode()
        own_names, labels = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    unknown = [name for name in own_names if name not in numbers]
    if unknown:
        raise CodesError(
            f"{codes.folder} has classes that the training codes lack: {', '.join(map(repr, unknown[:5]))}."
        )
    return np.asarray([numbers[name] for name in own_names])[labels]
