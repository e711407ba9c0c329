"""The base class of every Mosaics model: a `PreTrainedModel` that refuses damaged or foreign weights."""

import json
import os
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, PreTrainedModel

from mosaics.hub.download import describe_repository, download, may_be_hub_id, take_hub_arguments
from mosaics.hub.sharing import HubSharingMixin
from mosaics.models.weights_check import (
    WeightsError,
    compare_with_model,
    read_shapes,
    refuse_nonfinite,
    weight_files,
)

MAX_CONFIG_BYTES = 2**20
# What `save_pretrained` may write beside a config's own fields. Nothing here can choose code.
COMMON_CONFIG_KEYS = {
    "model_type",
    "torch_dtype",
    "auto_map",
    "_name_or_path",
    "output_attentions",
    "tie_word_embeddings",  # transformers asks it of every model; here no weights are tied
}
# Settings of `from_pretrained` that a file must never make.
CALLER_ONLY_KEYS = {"trust_remote_code", "attn_implementation", "quantization_config", "use_kernels"}


class ConfigError(ValueError, OSError):
    """A config.json that is missing, damaged or meant for another class: the message names the file and the field."""


class MosaicsPreTrainedModel(HubSharingMixin, PreTrainedModel):
    """Base of every Mosaics model: `from_pretrained` either gives exactly the saved model or says what is wrong.

    transformers fills missing weights with random numbers and only logs it. Here a missing, extra or differently
    shaped key, a truncated file, a NaN, a pickle, a config of another model or with unknown fields is an error that
    names the file and the key.
    """

    config_class: type[PreTrainedConfig]

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *model_args: Any,
        strict: bool = True,
        config: PreTrainedConfig | str | os.PathLike | None = None,
        subfolder: str = "",
        revision: str = "main",
        variant: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Loads a model from a folder or a Hub repository, strictly.

        Args:
            pretrained_model_name_or_path: Folder written by `save_pretrained`, or a Hub id. `None` together with
                `config` and `state_dict` takes the weights from memory.
            *model_args: Handed to the model.
            strict: `False` lets weights the model does not know pass. Missing weights and other shapes are never
                accepted.
            config: A config to use in place of the folder's config.json.
            subfolder: Folder inside the repository, such as `"dvae"` in a pipeline's.
            revision: Branch, tag or commit; one commit is used for all files.
            variant: Middle of the weight file's name, as in `model.fp16.safetensors`.
            **kwargs: As in `transformers.PreTrainedModel.from_pretrained`: `cache_dir`, `force_download`,
                `local_files_only` and `token` are those of the Hub.

        Raises:
            HubError: The repository is not there, may not be read, has no such revision, or the download broke off.
            ConfigError: The config file is missing, damaged, of another model, or has unknown fields.
            WeightsError: The weights are missing, damaged, not finite, only a pickle, or do not fit the config.
        """
        _refuse_loose_arguments(kwargs)
        if pretrained_model_name_or_path is None or kwargs.get("gguf_file") is not None:
            place = {"subfolder": subfolder, "revision": revision}
            return super().from_pretrained(
                pretrained_model_name_or_path, *model_args, config=config, **place, **kwargs
            )
        source = str(pretrained_model_name_or_path)
        name = f"{source}/{subfolder}" if subfolder else source
        hub_arguments = take_hub_arguments(kwargs)
        root = Path(source) if os.path.isdir(source) else _download(source, subfolder, revision, hub_arguments)
        folder = root / subfolder

        if isinstance(config, str | os.PathLike):
            config = cls.config_class.from_pretrained(config)
        found = read_shapes(weight_files(folder, variant))
        with torch.device("meta"):
            skeleton = cls(cls._final_config(folder, config, kwargs), *model_args)
        compare_with_model(found, skeleton, name, strict=strict)

        return_info = kwargs.pop("output_loading_info", False)
        kwargs |= {"config": config, "variant": variant, "use_safetensors": True, "output_loading_info": True}
        loaded: Any = super().from_pretrained(folder, *model_args, **kwargs)
        model, info = loaded
        if info["missing_keys"] or info["mismatched_keys"]:
            raise WeightsError(f"{name}: not every weight was loaded: {info}. Please report this with the file.")
        refuse_nonfinite(model.state_dict(), name)
        model.name_or_path = model.config.name_or_path = source
        result: Any = (model, info) if return_info else model
        return result

    @classmethod
    def _final_config(cls, folder: Path, config: PreTrainedConfig | None, kwargs: dict[str, Any]) -> PreTrainedConfig:
        """The config the model is going to have: the caller's, or the checked file's with the caller's changes."""
        if config is not None and not isinstance(config, cls.config_class):
            raise TypeError(f"config must be a {cls.config_class.__name__}, got {type(config).__name__}.")
        if config is not None and not kwargs.get("_from_auto"):
            return config
        fields = check_config_file(folder, cls.config_class)  # also what AutoConfig has read before, less strictly
        if config is not None:
            return config
        known = set(cls.config_class().to_dict()) - {"dtype"}  # "auto" is no dtype, and shapes do not depend on it
        return cls.config_class.from_dict(fields | {key: value for key, value in kwargs.items() if key in known})

    def save_pretrained(  # pyrefly: ignore[bad-override] - by keyword, the parent's other arguments are taken too
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        state_dict: dict | None = None,
        push_to_hub: bool = False,
        max_shard_size: int | str = "50GB",
        variant: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Saves config and weights, or pushes them, unless a weight is NaN or infinite.

        Args:
            save_directory: Folder; made if it does not exist.
            is_main_process: Of several processes that call this, only the one with `True` writes.
            state_dict: The weights, if not the model's own.
            push_to_hub: Upload the folder afterwards.
            max_shard_size: Bytes, or a text as `"5GB"`, above which the weights are split into several files.
            variant: Middle of the weight file's name, as in `model.fp16.safetensors`.
            **kwargs: As in `transformers.PreTrainedModel.save_pretrained`.

        Raises:
            WeightsError: A weight is not finite. Nothing is written then.
        """
        refuse_nonfinite(self.state_dict() if state_dict is None else state_dict, type(self).__name__)
        super().save_pretrained(
            save_directory, is_main_process, state_dict, push_to_hub, max_shard_size, variant, **kwargs
        )


def check_config_file(folder: Path, config_class: type[PreTrainedConfig]) -> dict[str, Any]:
    """Reads `config.json` of a model folder and refuses what is not a config of `config_class`.

    Returns:
        The fields of the file.

    Raises:
        ConfigError: The file is missing, too large, not JSON, of another `model_type`, or has unknown fields.
    """
    path = folder / "config.json"
    if not path.is_file():
        held = ", ".join(sorted(item.name for item in folder.glob("*"))[:12]) or "nothing"
        raise ConfigError(
            f"{path} is missing (the folder holds: {held}). A model is loaded from what `save_pretrained` wrote: "
            "give that folder, and the `subfolder` if it is part of a pipeline."
        )
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path} is {path.stat().st_size:,} bytes; a config has at most {MAX_CONFIG_BYTES:,}.")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}. Download or copy the file again.") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"{path} holds a {type(fields).__name__}, expected a JSON object of config fields.")
    if fields.get("model_type") != config_class.model_type:
        raise ConfigError(
            f"{path} is the config of a {fields.get('model_type')!r} model, expected {config_class.model_type!r} "
            f"({config_class.__name__})."
        )
    known = set(config_class().to_dict()) | COMMON_CONFIG_KEYS
    unknown = sorted((set(fields) - known) | (set(fields) & CALLER_ONLY_KEYS))
    if unknown:
        raise ConfigError(
            f"{path} has fields that {config_class.__name__} does not know: {', '.join(map(repr, unknown))}. "
            "Remove them, or load with the version of mosaics that wrote the file."
        )
    try:
        config_class.from_dict(fields)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise ConfigError(f"{path} is refused by {config_class.__name__}: {error}") from error
    return fields


def _refuse_loose_arguments(kwargs: dict[str, Any]) -> None:
    if kwargs.pop("ignore_mismatched_sizes", False):
        raise ValueError(
            "ignore_mismatched_sizes=True would leave random weights in the model: Mosaics does not load so."
        )
    if kwargs.get("use_safetensors") is False:
        raise ValueError("use_safetensors=False asks for pickles, which can run code: Mosaics reads safetensors only.")


def _download(source: str, subfolder: str, revision: str, hub_arguments: dict[str, Any]) -> Path:
    """Brings the files of one model of a Hub repository, all of the same commit, and gives the folder they lie in."""
    if not may_be_hub_id(source):
        raise ConfigError(f"{source!r} is not a folder here, and not a Hub id of the form 'user/name'.")
    prefix = f"{subfolder}/" if subfolder else ""
    names = ("config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index*.json")
    folder = download(source, [prefix + name for name in names], revision=revision, **hub_arguments)
    if not (folder / subfolder / "config.json").is_file():
        access = {key: hub_arguments[key] for key in ("token", "local_files_only") if key in hub_arguments}
        raise ConfigError(
            f"{source!r} has no {prefix}config.json at revision {revision!r}, so no model is loaded from there: "
            f"{describe_repository(source, revision, **access)}."
        )
    return folder
