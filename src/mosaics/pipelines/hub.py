"""Folders and Hub repositories of pipelines: what is downloaded, and what is checked before loading."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mosaics.hub.download import describe_repository, download, may_be_hub_id
from mosaics.models.weights_check import read_shapes, weight_files

COMPONENT_LIBRARIES = ("mosaics", "transformers")
INDEX = "model_index.json"


class PipelineFolderError(ValueError, OSError):
    """A folder that is not a complete pipeline; the message names the file or the component."""


def check_pipeline_folder(
    folder: Path,
    class_name: str,
    components: Collection[str],
    models: Collection[str],
    settings: Collection[str],
    passed: Collection[str],
    variant: str | None = None,
) -> None:
    """Refuses a folder that is not a pipeline of this class, before anything of it is loaded.

    Args:
        folder: The folder.
        class_name: Name of the pipeline class.
        components: Names of its components.
        models: Those that must have weights.
        settings: Names of its numbers beside the components.
        passed: Components and settings the caller brings, which are not read from the folder.
        variant: Middle of the weight files' names, of the models that have such files.

    Raises:
        PipelineFolderError: model_index.json is missing, damaged or of another pipeline, a component has no folder, or
            comes from a library that is not loaded from.
        WeightsError: Weights of a component are damaged.
    """
    index = folder / INDEX
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
            own = any((folder / name).glob(f"model*.{variant}*"))
            read_shapes(weight_files(folder / name, variant if own else None))


def download_pipeline(
    repo_id: str,
    components: Collection[str],
    models: Collection[str],
    *,
    subfolder: str = "",
    variant: str | None = None,
    revision: str | None = None,
    **hub_arguments: Any,
) -> Path:
    """Brings a pipeline's files, all of one commit, and gives the folder they lie in: no pickles, and no code.

    Args:
        repo_id: `"user/name"`.
        components: The components to bring.
        models: Those that have weights.
        subfolder: Folder of the pipeline inside the repository.
        variant: Bring `model.<variant>.safetensors` of the models that have it.
        revision: Branch, tag or commit.
        **hub_arguments: As in [`~mosaics.hub.download.download`].

    Raises:
        HubError: No such repository or revision, no access, no connection, a broken download.
        PipelineFolderError: There is no pipeline.
    """
    if not may_be_hub_id(repo_id):
        raise PipelineFolderError(f"{repo_id!r} is not a folder here, and not a Hub id of the form 'user/name'.")
    prefix = f"{subfolder}/" if subfolder else ""
    parts = [f"{prefix}{name}/{pattern}" for name in components for pattern in ("*.json", "*.txt", "*.model")]
    weights = f"model.{variant}*.safetensors" if variant else "model*.safetensors"
    parts += [f"{prefix}{name}/{weights}" for name in components]
    parts += [f"{prefix}{INDEX}", f"{prefix}config.json"]
    others = None if variant else [f"{prefix}{name}/model.*.safetensors" for name in components]
    root = download(repo_id, parts, ignore_patterns=others, revision=revision, **hub_arguments)
    folder = root / subfolder
    if not (folder / INDEX).is_file():
        access = {key: hub_arguments[key] for key in ("token", "local_files_only") if key in hub_arguments}
        raise PipelineFolderError(
            f"{repo_id!r} has no {prefix}{INDEX} at revision {revision or 'main'!r}, so it is no pipeline: "
            f"{describe_repository(repo_id, revision, **access)}."
        )
    plain = [name for name in models if name in components and variant and not _has_weights(folder / name)]
    if plain:  # of the same commit, which the folder is named after
        patterns = [f"{prefix}{name}/model*.safetensors" for name in plain]
        others = [f"{prefix}{name}/model.*.safetensors" for name in plain]
        download(repo_id, patterns, ignore_patterns=others, revision=root.name, **hub_arguments)
    return folder


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))
