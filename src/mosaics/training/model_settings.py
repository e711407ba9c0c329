"""Model configurations from what a user wrote: a mapping in a recipe, JSON on the command line, or a file."""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedConfig

__all__ = ["config_from_settings"]

Config = TypeVar("Config", bound=PreTrainedConfig)


def config_from_settings(config_class: type[Config], settings: Mapping[str, Any] | str | None, **fixed: Any) -> Config:
    """Builds a model configuration and refuses names that it does not have.

    `PreTrainedConfig` itself stores unknown names silently, so that a misspelt size would change nothing.

    Args:
        config_class: The configuration class.
        settings: Fields of the configuration: a mapping, a JSON object as text, or the path of a JSON file.
        fixed: Fields that follow from the rest of the run; a different value in `settings` is an error.

    Raises:
        ValueError: On an unknown field, malformed JSON, a value that the configuration refuses, or a contradiction.

    Example:
        >>> from mosaics import DiscreteVAEConfig
        >>> config_from_settings(DiscreteVAEConfig, '{"num_embeddings": 512}', image_size=64).num_embeddings
        512
    """
    fields = _read_settings(settings)
    known = {name for name in config_class().to_dict() if not name.startswith("_")} - {"model_type"}
    fields.pop("model_type", None)
    fields.pop("transformers_version", None)
    for name, value in fields.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" It has {', '.join(sorted(known))}."
            raise ValueError(f"{config_class.__name__} has no field {name!r}.{hint}")
        if name in fixed and value != fixed[name]:
            raise ValueError(
                f"{config_class.__name__}.{name} is {value!r} in the model settings, but the data and the other "
                f"models of this run need {fixed[name]!r}. Remove the setting or change the data."
            )
    return config_class(**(fields | fixed))


def _read_settings(settings: Mapping[str, Any] | str | None) -> dict[str, Any]:
    if settings is None:
        return {}
    if isinstance(settings, Mapping):
        return dict(settings)
    text, source = settings, "the model settings"
    if not settings.lstrip().startswith("{"):
        path = Path(settings) / "config.json" if Path(settings).is_dir() else Path(settings)
        if not path.is_file():
            raise ValueError(f"Model settings must be a JSON object or the path of a JSON file, got {settings!r}.")
        text, source = path.read_text(encoding="utf-8"), str(path)
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{source} is not valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{source} must be a JSON object, got a {type(fields).__name__}.")
    return fields
