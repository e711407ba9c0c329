"""The base class of every Mosaics model: a `PreTrainedModel` that refuses damaged or foreign weights."""

import json
import os
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import snapshot_download
from transformers import PreTrainedConfig, PreTrainedModel

from mosaics.models.weights_check import (
    WeightsError,
    compare_with_model,
    read_shapes,
    refuse_nonfinite,
    weight_files,
)

MAX_CONFIG_BYTES = 2**20
# What `save_pretrained` may write beside a config's own fields. Nothing here can choose code.
COMMON_CONFIG_KEYS = {"model_type", "torch_dtype", "auto_map", "_name_or_path", "output_attentions"}
# Settings of `from_pretrained` that a file must never make.
CALLER_ONLY_KEYS = {"trust_remote_code", "attn_implementation", "quantization_config", "use_kernels"}
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "proxies")


class ConfigError(ValueError, OSError):
    """A config.json that is missing, damaged or meant for another class: the message names the file and the field."""


class MosaicsPreTrainedModel(PreTrainedModel):
    """Base of every Mosaics model: `from_pretrained` either gives exactly the saved model or says what is wrong.

    transformers fills missing weights with random numbers and only logs it. Here a missing, extra or differently
    shaped key, a truncated file, a NaN, a pickle, a config of another model or with unknown fields is an error that
    names the file and the key.
    """

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
            **kwargs: As in `transformers.PreTrainedModel.from_pretrained`.

        Raises:
            ConfigError: The config file is missing, damaged, of another model, or has unknown fields.
            WeightsError: The weights are missing, damaged, not finite, only a pickle, or do not fit the config.
        """
        _refuse_loose_arguments(kwargs)
        if pretrained_model_name_or_path is None or kwargs.get("gguf_file") is not None:
            return super().from_pretrained(
                pretrained_model_name_or_path,
                *model_args,
                config=config,
                subfolder=subfolder,
                revision=revision,
                **kwargs,
            )
        source = str(pretrained_model_name_or_path)
        hub_arguments = {name: kwargs.pop(name) for name in HUB_ARGUMENTS if name in kwargs}
        root = (
            Path(source) if os.path.isdir(source) else _download(source, subfolder, revision, variant, hub_arguments)
        )
        folder = root / subfolder
        place = f"{source}/{subfolder}" if subfolder else source
        if isinstance(config, str | os.PathLike):
            config = cls.config_class.from_pretrained(config)
        if config is None:
            fields = check_config_file(folder, cls.config_class)
            overrides = {name: value for name, value in kwargs.items() if name in cls.config_class().to_dict()}
            final_config = cls.config_class.from_dict({**fields, **overrides})
        else:
            final_config = config
        found = read_shapes(weight_files(folder, variant))
        with torch.device("meta"):
            skeleton = cls(final_config, *model_args)
        compare_with_model(found, skeleton, place, strict=strict)
        return_info = kwargs.pop("output_loading_info", False)
        kwargs.pop("use_safetensors", None)
        model, info = super().from_pretrained(
            folder,
            *model_args,
            config=config,
            variant=variant,
            use_safetensors=True,
            output_loading_info=True,
            **kwargs,
        )
        if info["missing_keys"] or info["mismatched_keys"]:
            raise WeightsError(f"{place}: not every weight was loaded: {info}. Please report this with the file.")
        refuse_nonfinite(model, place)
        model.name_or_path = model.config.name_or_path = source
        return (model, info) if return_info else model


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
    except (TypeError, ValueError) as error:
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
    if source.count("/") > 1 or source.startswith((".", "/", "~")):
        raise ConfigError(f"{source!r} is not a folder here, and not a Hub id of the form 'user/name'.")
    prefix = f"{subfolder}/" if subfolder else ""
    names = ("config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index*.json")
    proxies = hub_arguments.pop("proxies", None)
    if proxies:
        raise ValueError("`proxies` is not supported: set the environment variable HTTPS_PROXY.")
    return Path(
        snapshot_download(source, revision=revision, allow_patterns=[prefix + name for name in names], **hub_arguments)
    )
