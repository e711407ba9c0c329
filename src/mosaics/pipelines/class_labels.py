"""The classes a user asks a pipeline for, by number or by name."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig

MAX_LABELS = 4096


def label_names(config: PreTrainedConfig) -> dict[int, str]:
    """The names of the classes in `config.id2label`; none if these are only transformers' LABEL_0, LABEL_1, ..."""
    names = getattr(config, "id2label", None) or {}
    if all(name == f"LABEL_{number}" for number, name in names.items()):
        return {}
    return dict(names)


def read_class_labels(
    class_labels: int | str | Sequence[int | str] | torch.Tensor | None,
    num_classes: int | None,
    names: Mapping[int, str],
) -> list[int | None]:
    """A class or a list of them as numbers; `[None]` for a model without classes.

    Args:
        class_labels: Numbers or names.
        num_classes: Classes of the model; `None` if it has none.
        names: The name of each class, if they have names.

    Raises:
        ValueError: Classes are missing, not wanted, or unknown; the message names the wrong one.
    """
    if num_classes is None:
        if class_labels is not None:
            raise ValueError("class_labels were given, but the priors of this pipeline know no classes.")
        return [None]
    if class_labels is None:
        known = f", or names such as {next(iter(names.values()))!r}" if names else ""
        raise ValueError(f"class_labels are missing: give numbers from 0 to {num_classes - 1}{known}.")
    if isinstance(class_labels, int | str | np.integer):
        return [_read_label("class_labels", class_labels, num_classes, names)]
    if isinstance(class_labels, torch.Tensor | np.ndarray):
        numbers = class_labels.tolist()
        class_labels = numbers if isinstance(numbers, list) else [numbers]
    if not isinstance(class_labels, list | tuple):
        raise ValueError(f"class_labels must be a number, a name or a list, got {type(class_labels).__name__}.")
    if not 1 <= len(class_labels) <= MAX_LABELS:
        raise ValueError(f"class_labels must be a list of 1 to {MAX_LABELS}, got {len(class_labels)}.")
    return [
        _read_label(f"class_labels[{number}]", label, num_classes, names) for number, label in enumerate(class_labels)
    ]


def _read_label(place: str, label: Any, num_classes: int, names: Mapping[int, str]) -> int:
    if isinstance(label, str):
        return _named_label(place, label, names)
    if isinstance(label, bool) or not isinstance(label, int | np.integer) or not 0 <= label < num_classes:
        raise ValueError(f"{place} must be an integer from 0 to {num_classes - 1} or a name, got {label!r}.")
    return int(label)


def _named_label(place: str, label: str, names: Mapping[int, str]) -> int:
    if not names:
        raise ValueError(
            f"{place} is the name {label!r}, but the classes of this pipeline have only numbers (the priors' "
            "config.id2label gives them names)."
        )
    found = [number for number, name in names.items() if name == label]
    if len(found) != 1:
        several = f"the name of classes {', '.join(map(str, found))}: give the number" if found else "unknown"
        some = ", ".join(repr(name) for name in list(names.values())[:8])
        raise ValueError(f"{place}={label!r} is {several}. There are {len(names)} names: {some}, ...")
    return found[0]
