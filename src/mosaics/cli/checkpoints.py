"""Checkpoints by folder, by Hub repository, or the embedded one."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
TOKENIZER_FOLDERS = ("dvae", "vqvae")  # of DallePipeline and of VQVAEPipeline


def checkpoint_folder(source: str | None) -> Path:
    """The folder of a checkpoint; a Hub repository is downloaded, or found in the cache.

    Args:
        source: Folder or Hub id; `None` is the embedded checkpoint.

    Raises:
        FileNotFoundError: It is neither.
    """
    from mosaics.pipelines.default import default_checkpoint

    if source is None:
        return Path(default_checkpoint())
    if Path(source).is_dir():
        return Path(source)
    if source.count("/") > 1 or source.startswith((".", "/", "~")) or Path(source).exists():
        raise FileNotFoundError(f"{source!r} is not a folder here, and not a Hub repository of the form user/name.")
    from huggingface_hub import snapshot_download

    try:
        patterns = [pattern for name in FILES for pattern in (name, f"*/{name}")]
        return Path(snapshot_download(source, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(f"{source!r} is no folder here, and cannot be had from the Hub: {error}") from error


def checkpoint_name(source: str | None, folder: Path) -> str:
    """What to call a checkpoint in a result: as the user did, or by its own name if it is the embedded one."""
    return f"{folder.name} (embedded)" if source is None else source


def pipeline_entries(folder: Path) -> dict[str, Any] | None:
    """What model_index.json of a pipeline's folder says; `None` for the folder of a single model.

    Raises:
        ValueError: The file is damaged.
    """
    path = folder / "model_index.json"
    if not path.is_file():
        return None
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(entries.get("_class_name"), str):
            raise ValueError("no _class_name")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): download or copy it again.") from error
    return entries


def load_pipeline(folder: Path) -> Any:
    """The pipeline in a folder, on the GPU if there is one.

    Raises:
        ValueError: The folder holds no pipeline of Mosaics.
    """
    import mosaics

    entries = pipeline_entries(folder)
    found = entries["_class_name"] if entries else "a single model (no model_index.json)"
    if found not in ("DallePipeline", "VQVAEPipeline"):
        raise ValueError(f"{folder} holds {found}; drawing needs a DallePipeline or a VQVAEPipeline.")
    with without_loading_bars():
        return getattr(mosaics, found).from_pretrained(folder).to(device())


def load_image_tokenizer(folder: Path) -> Any:
    """The image tokenizer in a folder, or in that of a pipeline, on the GPU if there is one, for evaluation.

    Raises:
        ValueError: The folder holds no image tokenizer.
    """
    from transformers import AutoModel

    entries = pipeline_entries(folder)
    if entries is not None:
        folder = next((folder / name for name in TOKENIZER_FOLDERS if name in entries), folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} has no config.json: give the folder of an image tokenizer or of a pipeline.")
    with without_loading_bars():
        model = AutoModel.from_pretrained(folder).eval().to(device())
    if not is_image_tokenizer(model):
        raise ValueError(f"{folder} holds a {type(model).__name__}, which turns no pictures into codes and back.")
    return model


def load_code_prior(folder: Path) -> Any:
    """The prior of a VQVAEPipeline of one level, on the GPU if there is one; `None` of anything else."""
    from transformers import AutoModel

    entries = pipeline_entries(folder)
    if entries is None or entries["_class_name"] != "VQVAEPipeline" or (folder / "prior_2").is_dir():
        return None
    with without_loading_bars():
        return AutoModel.from_pretrained(folder / "prior").eval().to(device())


@contextmanager
def without_loading_bars() -> Iterator[None]:
    """Silences the progress bars that transformers and diffusers show while weights are read."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    shown = [module for module in (transformers_logging, diffusers_logging) if module.is_progress_bar_enabled()]
    for module in shown:
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module in shown:
            module.enable_progress_bar()


def is_image_tokenizer(model: Any) -> bool:
    """Whether a model turns pictures into codes of a codebook and back."""
    fields = ("num_embeddings", "num_channels", "image_size")
    return all(hasattr(model, name) for name in ("encode", "decode")) and all(
        hasattr(model.config, field) for field in fields
    )


def device() -> str:
    """Where commands compute."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def checkpoint_files(folder: Path) -> list[Path]:
    """The files that a checkpoint is made of: weights, configs and tokenizers."""
    return sorted({path for pattern in FILES for path in folder.rglob(pattern) if path.is_file()})


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checkpoint_hash(folder: Path) -> str:
    """SHA-256 over names and contents of a checkpoint's files: equal for equal checkpoints, wherever they lie."""
    total = hashlib.sha256()
    for path in checkpoint_files(folder):
        total.update(f"{path.relative_to(folder).as_posix()}\0{file_hash(path)}\n".encode())
    return total.hexdigest()
