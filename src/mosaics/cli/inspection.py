"""What is in the folder of a checkpoint."""

import json
import math
from pathlib import Path
from typing import Any

from mosaics.cli.checkpoints import (
    checkpoint_files,
    checkpoint_hash,
    file_hash,
    is_image_tokenizer,
    pipeline_entries,
    without_loading_bars,
)

# Fields of a config that say how large a model is and what it reads and writes, as far as it has them.
SIZES = (
    *("image_size", "num_channels", "num_embeddings", "codebook_dim", "embedding_dim", "latents_per_position"),
    *("hidden_size", "num_hidden_layers", "num_layers", "num_attention_heads", "projection_dim"),
    *("text_vocab_size", "max_text_length", "image_vocab_size", "image_grid_size", "grid_height", "grid_width"),
    *("num_classes", "codebook_id"),
)


def describe(folder: Path) -> dict[str, Any]:
    """The content of a checkpoint's folder, as JSON knows it.

    Raises:
        ValueError: The folder holds neither a pipeline nor a model, or a file of it is damaged.
    """
    entries = pipeline_entries(folder)
    if entries is None:
        if not (folder / "config.json").is_file():
            raise ValueError(f"{folder} has neither model_index.json nor config.json: it is no checkpoint.")
        content: dict[str, Any] = {"class": _class_of(folder), "models": {"": _describe_model(folder)}, "parts": {}}
    else:
        named = {name: entry for name, entry in entries.items() if isinstance(entry, list) and entry[0] is not None}
        models = {name: folder / name for name in named if any((folder / name).glob("*.safetensors"))}
        content = {
            "class": entries["_class_name"],
            "settings": {
                name: value for name, value in entries.items() if isinstance(value, int | float) and name[0] != "_"
            },
            "models": {name: {**_describe_model(place), "class": named[name][1]} for name, place in models.items()},
            "parts": {name: entry[1] for name, entry in named.items() if name not in models},
        }
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_hash(path)}
        for path in checkpoint_files(folder)
    }
    return {
        "folder": str(folder),
        **content,
        "parameters": sum(model["parameters"] for model in content["models"].values()),
        "bytes": sum(file["bytes"] for file in files.values()),
        "files": files,
        "sha256": checkpoint_hash(folder),
    }


def in_words(description: dict[str, Any]) -> str:
    """The description for people."""
    lines = [f"{description['checkpoint']}: {description['class']}"]
    for name, model in description["models"].items():
        title = f"{name}: {model['class']}" if name else "weights"
        lines.append(f"  {title}, {model['parameters']:,} parameters, {', '.join(model['dtypes'])}")
        sizes = {**model["sizes"], **model["codes"]}
        lines += [f"    {size}: {_shown(value)}" for size, value in sizes.items()]
    lines += [f"  {name}: {kind}" for name, kind in description["parts"].items()]
    lines += [f"  {name}: {value}" for name, value in description.get("settings", {}).items()]
    lines.append(f"files, {description['bytes']:,} bytes:")
    lines += [
        f"  {name}  {file['bytes']:,} bytes  {file['sha256'][:16]}" for name, file in description["files"].items()
    ]
    lines.append(f"parameters: {description['parameters']:,}")
    lines.append(f"sha256 of all: {description['sha256']}")
    return "\n".join(lines)


def _class_of(folder: Path) -> str:
    names = _read_config(folder).get("architectures")
    return names[0] if isinstance(names, list) and names else str(_read_config(folder).get("model_type"))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is missing or damaged ({error}).") from error


def _describe_model(folder: Path) -> dict[str, Any]:
    """Class, parameters, dtypes on disk, sizes and codebooks of one model."""
    from mosaics.models.weights_check import read_shapes, weight_files

    weights = weight_files(folder)
    config = _read_config(folder)
    return {
        "class": _class_of(folder),
        "parameters": sum(math.prod(shape) for shape, _ in read_shapes(weights).values()),
        "dtypes": sorted({dtype for path in weights for dtype in _dtypes(path)}),
        "sizes": {name: config[name] for name in SIZES if config.get(name) is not None},
        "codes": _codes(folder, config),
    }


def _dtypes(path: Path) -> set[str]:
    """Dtypes of the tensors of a safetensors file, whose header has been checked."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {entry["dtype"] for name, entry in header.items() if name != "__metadata__"}


def _codes(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Grid, codebook size and identity of each level of an image tokenizer, which is loaded for it."""
    if not str(config.get("model_type")).startswith("mosaics_") or "num_embeddings" not in config:
        return {}
    from transformers import AutoModel

    from mosaics.models.codebook_identity import codebook_id
    from mosaics.pipelines.levels import tokenizer_levels

    with without_loading_bars():
        model = AutoModel.from_pretrained(folder)
    if not is_image_tokenizer(model):
        return {}
    levels = tokenizer_levels(model)
    ids: list[str | None] = []
    for level in levels:
        try:
            ids.append(codebook_id(level.owner))
        except ValueError:  # finite scalar quantization has no codebook
            ids.append(None)
    return {"grid": [f"{level.side} x {level.side}" for level in levels], "codebook": ids}


def _shown(value: Any) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
