"""Files of a repository of the Hub, all of one commit, in the cache."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download

from mosaics.hub.errors import HubError, hub_errors

HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "proxies")


def take_hub_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Removes from the arguments of a `from_pretrained` those of the Hub, and returns them.

    Raises:
        ValueError: `proxies` was given.
    """
    arguments = {key: kwargs.pop(key) for key in HUB_ARGUMENTS if key in kwargs}
    if arguments.pop("proxies", None):
        raise ValueError("`proxies` is not supported: set the environment variable HTTPS_PROXY.")
    return arguments


def may_be_hub_id(source: str) -> bool:
    """Whether a name has the form of a repository's, "user/name" or "name", and not that of a path."""
    return source.count("/") <= 1 and not source.startswith((".", "/", "~"))


def download(
    repo_id: str,
    allow_patterns: Sequence[str],
    *,
    ignore_patterns: Sequence[str] | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    force_download: bool | None = False,
    local_files_only: bool | None = False,
    token: str | bool | None = None,
) -> Path:
    """Brings files of a repository, all of the same commit, and gives the folder of that commit.

    Args:
        repo_id: `"user/name"`.
        allow_patterns: Which files, as patterns of the shell.
        ignore_patterns: Which of them not.
        revision: Branch, tag or commit; `main` if not given.
        cache_dir: Folder to keep them in.
        force_download: Download again what is in the cache.
        local_files_only: Take what is in the cache, and ask nobody.
        token: Token to read with; `False` to send none. By default the one logged in with.

    Raises:
        HubError: No such repository or revision, no access, no connection, a broken download.
    """
    with hub_errors(repo_id, revision, token):
        return Path(
            snapshot_download(
                repo_id,
                revision=revision,
                cache_dir=None if cache_dir is None else Path(cache_dir),
                force_download=bool(force_download),
                local_files_only=bool(local_files_only),
                token=token,
                allow_patterns=list(allow_patterns),
                ignore_patterns=None if ignore_patterns is None else list(ignore_patterns),
            )
        )


def describe_repository(
    repo_id: str, revision: str | None, token: str | bool | None = None, local_files_only: bool | None = False
) -> str:
    """What a repository holds and which of its folders are models, for a message; asks the Hub."""
    if local_files_only:
        return "the cache may lack it: load once without local_files_only"
    try:
        with hub_errors(repo_id, revision, token):
            files = HfApi(token=token).list_repo_files(repo_id, revision=revision)
    except HubError as error:
        return f"what else it holds is not known: {error}"
    models = sorted(os.path.dirname(path) for path in files if path.endswith("/config.json"))
    hint = f"; models are in its folders {', '.join(models)}: give one as `subfolder`" if models else ""
    listed = ", ".join(files[:12]) + (f" and {len(files) - 12} more" if len(files) > 12 else "")
    return f"it holds {listed or 'nothing'}{hint}"
