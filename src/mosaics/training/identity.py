"""What a checkpoint was trained with, so that resuming with something else is noticed."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig

from mosaics.training.config import TrainingConfig
from mosaics.training.data_order import is_stream
from mosaics.training.randomness import mix_seed, preserved_rng, seed_cpu_rng

__all__ = ["ChangedSettingsError", "changed_settings", "dataset_fingerprint", "run_settings", "settings_hash"]

# The fields that change where training goes; the others only change what is written, where and when.
_TRAJECTORY = (
    "seed",
    "learning_rate",
    "learning_rate_end",
    "lr_schedule",
    "warmup_steps",
    "optimizer",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "weight_decay",
    "max_grad_norm",
    "ema_decay",
    "nonfinite",
)
_NOT_ARCHITECTURE = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")


class ChangedSettingsError(ValueError):
    """A run would resume a checkpoint that was trained with other settings; the message lists them."""


def run_settings(
    config: TrainingConfig,
    model: torch.nn.Module,
    *,
    samples_per_step: int,
    mixed_precision: str,
    fingerprint: str | None,
    script_arguments: Any = None,
) -> dict[str, Any]:
    """The settings that decide where training goes, as a flat mapping of JSON values."""
    settings: dict[str, Any] = {name: getattr(config, name) for name in _TRAJECTORY}
    if config.lr_schedule != "constant":
        settings["lr_decay_start"], settings["lr_decay_steps"] = config.lr_decay_start, config.decay_steps
    settings["samples_per_step"] = samples_per_step
    settings["mixed_precision"] = mixed_precision
    settings["train_dataset"] = fingerprint
    model_config = getattr(model, "config", None)
    if model_config is not None:
        settings.update(_architecture(model_config))
    for arguments in _as_mappings(script_arguments):
        settings.update({f"script.{name}": value for name, value in arguments.items()})
    return json.loads(json.dumps(settings, default=str))


def _architecture(model_config: PreTrainedConfig) -> dict[str, Any]:
    """The fields of a model's configuration that say what it computes."""
    fields = model_config.to_dict().items()
    return {f"model.{name}": value for name, value in fields if name not in _NOT_ARCHITECTURE}


def _as_mappings(script_arguments: Any) -> list[Mapping[str, Any]]:
    if script_arguments is None:
        return []
    if isinstance(script_arguments, Mapping):
        return [script_arguments]
    if dataclasses.is_dataclass(script_arguments):
        return [dataclasses.asdict(script_arguments)]
    return [mapping for part in script_arguments for mapping in _as_mappings(part)]


def settings_hash(settings: Mapping[str, Any]) -> str:
    """A short name for a set of settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def changed_settings(saved: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Names of the settings that differ, with the saved and the current value."""
    names = sorted(set(saved) | set(current))
    pairs = {name: (saved.get(name), current.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def with_new_fields(saved: Mapping[str, Any], model: torch.nn.Module) -> dict[str, Any]:
    """The settings of a checkpoint, with the fields that the model's configuration has got since it was written.

    Such a field has the value there that it has by default: a default is what the model did before there was a choice.
    """
    model_config = getattr(model, "config", None)
    if model_config is None:
        return dict(saved)
    defaults = json.loads(json.dumps(_architecture(type(model_config)()), default=str))
    return defaults | dict(saved)


def check_unchanged(
    saved: Mapping[str, Any], current: Mapping[str, Any], allowed: Sequence[str] | None, checkpoint: str
) -> dict[str, tuple[Any, Any]]:
    """Returns the changes that are allowed.

    Raises:
        ChangedSettingsError: If there are changes that are not.
    """
    changes = changed_settings(saved, current)
    allowed = allowed or []
    refused = {} if "all" in allowed else {name: pair for name, pair in changes.items() if name not in allowed}
    if refused:
        lines = "".join(
            f"\n  {name}: {before!r} in the checkpoint, {now!r} now" for name, (before, now) in refused.items()
        )
        raise ChangedSettingsError(
            f"{checkpoint} was trained with other settings:{lines}\nRun with the old settings, or use another "
            f"output_dir, or accept the change with --allow_changed {' '.join(refused)}"
        )
    return changes


def dataset_fingerprint(dataset: Any, seed: int) -> str | None:
    """A short digest of a dataset's length and of its first, middle and last samples; `None` for a stream.

    A dataset with a `fingerprint` attribute (a string) speaks for itself. Samples are read under fixed seeds, so
    random augmentation does not change the digest.
    """
    own = getattr(dataset, "fingerprint", None)
    if isinstance(own, str):
        return own
    if is_stream(dataset) or len(dataset) == 0:
        return None
    digest = hashlib.sha256(str(len(dataset)).encode())
    with preserved_rng():
        for index in sorted({0, len(dataset) // 2, len(dataset) - 1}):
            seed_cpu_rng(mix_seed(seed, "fingerprint", index))
            _update(digest, dataset[index])
    return f"{len(dataset)}-{digest.hexdigest()[:16]}"


def _update(digest: Any, value: Any) -> None:
    """Feeds nested samples to a digest."""
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            digest.update(str(key).encode())
            _update(digest, value[key])
    elif isinstance(value, (list, tuple)):
        digest.update(f"[{len(value)}]".encode())
        for part in value:
            _update(digest, part)
    elif isinstance(value, torch.Tensor):
        _update(digest, value.detach().cpu().contiguous().view(torch.uint8 if value.ndim else value.dtype).numpy())
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif hasattr(value, "tobytes") and hasattr(value, "size"):  # a PIL image
        digest.update(f"{getattr(value, 'mode', '')}{value.size}".encode() + value.tobytes())
    else:
        digest.update(repr(value).encode() if isinstance(value, (str, bytes, int, float, bool, type(None))) else b"?")
