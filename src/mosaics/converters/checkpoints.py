"""State dicts inside of training checkpoints."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import yaml

from mosaics.converters.errors import ForeignFileError
from mosaics.converters.foreign_files import ForeignFile

YAML_ENDINGS = (".yaml", ".yml")


def nested_weights(file: ForeignFile, *names: str) -> dict[str, torch.Tensor]:
    """The tensors of the first entry of these names that a checkpoint has, or of the whole file; without `module.`.

    Args:
        file: The file.
        *names: Names that a training program gives the state dict, such as `"state_dict"`.
    """
    content = file.content if file.kind != "other" else None
    weights: Mapping[str, Any] = file.weights
    if isinstance(content, dict):
        weights = next((content[name] for name in names if isinstance(content.get(name), dict)), weights)
    return {key.removeprefix("module."): value for key, value in weights.items() if isinstance(value, torch.Tensor)}


def read_yaml_files(files: Sequence[ForeignFile]) -> dict[str, Any]:
    """The entries of the YAML files among these, of one after the other.

    Raises:
        ForeignFileError: One is no YAML, or holds something else than named entries.
    """
    entries: dict[str, Any] = {}
    for file in files:
        if file.kind == "other" and file.path.suffix in YAML_ENDINGS:
            try:
                content = yaml.safe_load(file.path.read_text(encoding="utf-8"))
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise ForeignFileError(f"{file.path} is not valid YAML: {error}") from error
            if not isinstance(content, dict):
                raise ForeignFileError(f"{file.path} holds a {type(content).__name__}, expected named entries.")
            entries |= content
    return entries


def entry(entries: Mapping[str, Any], *path: str) -> Any:
    """The entry at a path of names; `None` if there is none."""
    value: Any = entries
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
