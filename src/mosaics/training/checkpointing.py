"""Checkpoints that are whole or absent.

A checkpoint is written into a temporary folder beside its final place, described by a manifest with the size and
SHA-256 of every file, flushed to disk and renamed. Only then are older ones pruned. Whatever kills the process, the
newest checkpoint that verifies is a whole one, and none that was good before is lost.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = [
    "CheckpointError",
    "find_checkpoint",
    "list_checkpoints",
    "prune_checkpoints",
    "save_checkpoint",
    "verify_checkpoint",
]

MANIFEST = "manifest.json"
FORMAT = 1
_NAME = re.compile(r"checkpoint-(\d+)")


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, or is damaged; the message names the folder or file and what to do."""


def checkpoint_path(root: Path, step: int) -> Path:
    """The folder of the checkpoint of `step`."""
    return root / f"checkpoint-{step:08d}"


def list_checkpoints(root: Path) -> list[tuple[int, Path]]:
    """Steps and folders of the checkpoints in `root`, newest first, verified or not."""
    if not root.is_dir():
        return []
    matches = ((_NAME.fullmatch(path.name), path) for path in root.iterdir())
    return sorted(((int(match[1]), path) for match, path in matches if match), reverse=True)


def save_checkpoint(
    root: Path,
    step: int,
    write_files: Callable[[Path], None],
    *,
    description: dict[str, Any] | None = None,
    is_main_process: bool = True,
    barrier: Callable[[], None] = lambda: None,
    needed_bytes: int = 0,
) -> Path:
    """Writes the checkpoint of `step`; it appears under its final name only when it is complete and on disk.

    Args:
        root: Folder that holds the checkpoints.
        step: Optimizer step, part of the name.
        write_files: Called on every process with the temporary folder, in which it writes its own files.
        description: JSON values added to the manifest.
        is_main_process: Whether this process writes the manifest and renames.
        barrier: Waits for all processes.
        needed_bytes: Refuse to begin when the disk has less than this free.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: If it cannot be written. Checkpoints written earlier are untouched.
    """
    final, temporary = checkpoint_path(root, step), root / f".tmp-checkpoint-{step:08d}"
    try:
        if is_main_process:
            root.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            _check_free_space(root, needed_bytes)
            temporary.mkdir()
        barrier()
        write_files(temporary)
        barrier()
        if is_main_process:
            _seal(temporary, {"format": FORMAT, "step": step, **(description or {})})
            if final.exists():  # only an unusable one is ever written again: set it aside, never destroy it
                os.rename(final, _free_name(final))
            os.rename(temporary, final)
            _fsync(root)
        barrier()
    except OSError as error:
        raise CheckpointError(
            f"Could not write the checkpoint of step {step} to {root}: {error}. It needs {_megabytes(needed_bytes)}; "
            f"{_megabytes(_free_bytes(root))} are free. Checkpoints written earlier are intact. Free some space, or "
            "check the permissions, and run the same command again."
        ) from error
    return final


def verify_checkpoint(path: Path) -> dict[str, Any]:
    """Checks every file of a checkpoint against its manifest and returns the manifest.

    Raises:
        CheckpointError: Naming the folder, the file and how it differs.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files, step = dict(manifest["files"]), int(manifest["step"])
    except FileNotFoundError:
        raise CheckpointError(f"{path.name}: {MANIFEST} is missing, so it was never completed") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path.name}: {MANIFEST} cannot be read ({error!r})") from error
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{path.name}: format {manifest.get('format')!r} is not {FORMAT}, the one known here")
    match = _NAME.fullmatch(path.name)
    if match and int(match[1]) != step:
        raise CheckpointError(f"{path.name}: the manifest is that of step {step}")
    found = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()} - {MANIFEST}
    if missing := sorted(set(files) - found):
        raise CheckpointError(f"{path.name}: missing files: {', '.join(missing)}")
    for name, (size, digest) in sorted(files.items()):
        actual = (path / name).stat().st_size
        if actual != size:
            raise CheckpointError(f"{path.name}: {name} has {actual} bytes, the manifest says {size}")
        if _sha256(path / name) != digest:
            raise CheckpointError(f"{path.name}: {name} differs from its SHA-256 in the manifest")
    return manifest


def find_checkpoint(root: Path, report: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint in `root` that verifies, with its manifest; `None` if there are none at all.

    Args:
        root: Folder that holds the checkpoints.
        report: Called with the name and the reason of each one that is passed over. They are never deleted.

    Raises:
        CheckpointError: If there are checkpoints and none of them verifies.
    """
    reasons = []
    for _, path in list_checkpoints(root):
        try:
            return path, verify_checkpoint(path)
        except CheckpointError as error:
            reasons.append(str(error))
            report(str(error))
    if reasons:
        raise CheckpointError(
            f"None of the {len(reasons)} checkpoints in {root} is usable: {'; '.join(reasons)}. "
            "To train from the beginning, use another output_dir or move them away."
        )
    return None


def prune_checkpoints(root: Path, keep: int | None, verified: Path) -> None:
    """Deletes all but the newest `keep` checkpoints, never `verified`, and abandoned temporary folders.

    A folder loses its manifest first, so one half-deleted is known as unusable.
    """
    for leftover in root.glob(".tmp-checkpoint-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if keep is None:
        return
    for _, path in list_checkpoints(root)[max(keep, 1) :]:
        if path != verified:
            (path / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)


def _seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest of a folder's files and flushes all of it to disk."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    manifest["files"] = {str(file.relative_to(folder)): [file.stat().st_size, _sha256(file)] for file in files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    folders = [path for path in folder.rglob("*") if path.is_dir()]
    for path in (*files, folder / MANIFEST, *folders, folder):
        _fsync(path)


def _fsync(path: Path) -> None:
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _free_name(path: Path) -> Path:
    number = 1
    while (candidate := path.with_name(f"damaged-{path.name}-{number}")).exists():
        number += 1
    return candidate


def _free_bytes(root: Path) -> int:
    while not root.exists():
        root = root.parent
    return shutil.disk_usage(root).free


def _check_free_space(root: Path, needed_bytes: int) -> None:
    if _free_bytes(root) < needed_bytes:
        raise OSError(f"only {_megabytes(_free_bytes(root))} free in {root}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
