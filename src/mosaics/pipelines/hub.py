"""Folders and Hub repositories of pipelines: what is checked before loading, and how one is pushed."""

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, ModelCard, ModelCardData, scan_cache_dir
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from mosaics.models.weights_check import read_shapes, weight_files

COMPONENT_LIBRARIES = ("mosaics", "transformers")
PUSH_ARGUMENTS = ("commit_message", "private", "token", "create_pr")


class PipelineCard(NamedTuple):
    """The README.md of a pushed pipeline that has none."""

    data: dict[str, Any]  # fields of its header
    text: str  # with {name} and {repo_id}


class PipelineFolderError(ValueError, OSError):
    """A folder that is not a complete pipeline; the message names the file or the component."""


def check_pipeline_folder(
    folder: Path,
    class_name: str,
    components: Collection[str],
    models: Collection[str],
    settings: Collection[str],
    passed: Collection[str],
) -> None:
    """Refuses a folder that is not a pipeline of this class, before anything of it is loaded.

    Args:
        folder: The folder.
        class_name: Name of the pipeline class.
        components: Names of its components.
        models: Those that must have weights.
        settings: Names of its numbers beside the components.
        passed: Components and settings the caller brings, which are not read from the folder.

    Raises:
        PipelineFolderError: model_index.json is missing, damaged or of another pipeline, a component has no folder, or
            comes from a library that is not loaded from.
        WeightsError: Weights of a component are damaged.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        raise PipelineFolderError(f"{index} is missing: {folder} is not a folder written by save_pretrained.")
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
        found = entries["_class_name"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PipelineFolderError(f"{index} is damaged ({error!r}): download or copy it again.") from error
    if found != class_name:
        raise PipelineFolderError(f"{index} is of a {found!r} pipeline, expected {class_name!r}.")
    for name, entry in entries.items():
        if name.startswith("_") or name in passed:
            continue
        if name in settings:
            if isinstance(entry, bool) or not isinstance(entry, int | float):
                raise PipelineFolderError(f"{index}: {name!r} must be a number, got {entry!r}.")
            continue
        if name not in components:
            raise PipelineFolderError(f"{index} names the component {name!r}; {class_name} has {sorted(components)}.")
        if not (isinstance(entry, list) and len(entry) == 2):
            raise PipelineFolderError(f"{index}: component {name!r} must be [library, class], got {entry!r}.")
        if entry[0] is None:
            continue
        if entry[0] not in COMPONENT_LIBRARIES:
            raise PipelineFolderError(
                f"{index}: component {name!r} comes from {entry[0]!r}, which is not loaded from; only "
                f"{' and '.join(COMPONENT_LIBRARIES)} are."
            )
        if not (folder / name).is_dir():
            raise PipelineFolderError(f"component {name!r} of {index} has no folder {folder / name}.")
        if any((folder / name).glob("*.safetensors*")) or name in models:
            read_shapes(weight_files(folder / name))


def forget_download(repo_id: str, cache_dir: str | os.PathLike | None) -> None:
    """Removes the weights of a repository from the Hub's cache, so that they are downloaded again.

    `DiffusionPipeline.download` accepts `force_download` and then takes what is in the cache.
    """
    for info in scan_cache_dir(cache_dir).repos if Path(cache_dir or HF_HUB_CACHE).is_dir() else ():
        if info.repo_id == repo_id and info.repo_type == "model":
            for file in {file for commit in info.revisions for file in commit.files}:
                if file.file_name.endswith(".safetensors"):
                    file.blob_path.unlink(missing_ok=True)
                    file.file_path.unlink(missing_ok=True)


def push_folder(
    folder: str | os.PathLike,
    repo_id: str,
    card: PipelineCard,
    commit_message: str,
    private: bool | None = None,
    token: str | None = None,
    create_pr: bool = False,
) -> str:
    """Uploads a saved pipeline. A README.md in the folder or in the repository is kept, else `card` is written.

    Returns:
        The address of the commit.
    """
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if not (Path(folder) / "README.md").is_file():
        try:
            readme = ModelCard.load(repo_id, token=token)
        except (EntryNotFoundError, RepositoryNotFoundError):
            text = card.text.format(name=repo_id.split("/")[-1], repo_id=repo_id)
            readme = ModelCard(f"---\n{ModelCardData(**card.data).to_yaml()}\n---\n{text}")
        readme.save(Path(folder) / "README.md")
    commit: Any = api.upload_folder(
        repo_id=repo_id,
        folder_path=str(folder),
        commit_message=commit_message,
        create_pr=create_pr,
    )
    return str(commit)
