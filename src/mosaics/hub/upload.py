"""A folder as a repository of the Hub, with a model card."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from mosaics.hub.errors import hub_errors, without_tokens

README = "README.md"
MARK = "<!-- Written by Mosaics, and written anew at every push for as long as nobody changes it: "


def upload_folder(
    folder: str | os.PathLike,
    repo_id: str,
    card: ModelCard | Callable[[str], ModelCard],
    *,
    commit_message: str,
    commit_description: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    ignore_patterns: Sequence[str] | None = None,
) -> str:
    """Uploads a folder to a repository, which is made if needed; large files go by Git LFS or Xet.

    Args:
        folder: The folder.
        repo_id: `"user/name"`, or `"name"` under your own account.
        card: The model card; it replaces any there is. A function that makes one of the repository's id is called if
            neither the folder nor the repository has a card that somebody wrote or changed.
        commit_message: First line of the commit's message.
        commit_description: The rest of it.
        private: Make a new repository a private one.
        token: Token to write with; by default the one logged in with.
        revision: Branch to upload to, made if needed; `main` by default.
        create_pr: Open a pull request with the upload.
        ignore_patterns: Files to leave out, as patterns of the shell.

    Returns:
        The address of the commit.

    Raises:
        HubError: The repository cannot be made or written. Nothing of the upload is visible there then.
    """
    folder, left_out = Path(folder), list(ignore_patterns or ())
    with hub_errors(repo_id, revision, token):
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not revision.startswith("refs/pr"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        if isinstance(card, ModelCard):
            (folder / README).write_text(str(card), encoding="utf-8")
        elif is_unchanged(_card_in(folder)):
            if is_unchanged(_card_of(api, repo_id, revision)):
                (folder / README).write_text(sign(without_tokens(str(card(repo_id)), token)), encoding="utf-8")
            else:
                left_out.append(README)
        commit: Any = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message,
            commit_description=commit_description,
            revision=revision,
            create_pr=create_pr,
            ignore_patterns=left_out,
        )
    return str(commit)


def sign(text: str) -> str:
    """A generated card with a last line by which [`is_unchanged`] knows it again."""
    text = text.rstrip() + "\n"
    return f"{text}\n{MARK}{_digest(text)} -->\n"


def is_unchanged(text: str | None) -> bool:
    """Whether a card is a generated one that nobody has changed since; `None`, no card, counts as one."""
    if text is None:
        return True
    body, mark, digest = text.rstrip().rpartition(f"\n{MARK}")
    return bool(mark) and digest == f"{_digest(body)} -->"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _card_in(folder: Path) -> str | None:
    return (folder / README).read_text(encoding="utf-8") if (folder / README).is_file() else None


def _card_of(api: HfApi, repo_id: str, revision: str | None) -> str | None:
    try:
        with tempfile.TemporaryDirectory() as cache:  # in the user's, one file would look like a whole snapshot
            path = api.hf_hub_download(repo_id, README, revision=revision, cache_dir=cache)
            return Path(path).read_text(encoding="utf-8")
    except LocalEntryNotFoundError:  # the Hub was not reached, which says nothing about the file
        raise
    except EntryNotFoundError:
        return None
