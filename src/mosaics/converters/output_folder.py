"""A folder that is complete or absent."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from mosaics.converters.errors import ConversionError, OutputError


def check_output(output: Path) -> None:
    """Raises [`OutputError`] if something is there already, or its parent is no folder."""
    if output.is_symlink() or output.exists():
        if not output.is_dir() or output.is_symlink():
            raise OutputError(f"{output} exists and is not a folder: name another output.")
        if any(output.iterdir()):
            raise OutputError(f"{output} is not empty: name another output, or empty it first.")


def write_folder(output: Path, write: Callable[[Path], None], needed_bytes: int = 0) -> None:
    """Lets `write` fill a folder beside `output`, and renames it when all of it is on disk.

    Args:
        output: Folder to be made; it may exist if it is empty. Missing parents are made.
        write: Called with the folder to fill.
        needed_bytes: Refuse to begin when the disk has less than this free.

    Raises:
        OutputError: It cannot be written, or something is there already. What was there is untouched.
    """
    check_output(output)
    output = output.absolute()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(output.parent).free
        if free < needed_bytes:
            raise OutputError(f"{output} needs about {needed_bytes:,} bytes; the disk has {free:,} free.")
        temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    except OSError as error:
        raise OutputError(f"{output} cannot be written: {error}.") from error
    try:
        write(temporary)
        temporary.chmod(0o777 & ~_umask())
        for path in (*temporary.rglob("*"), temporary):
            _flush(path)
        os.rename(temporary, output)  # replaces an empty folder, refuses any other
        _flush(output.parent)
    except OSError as error:
        if isinstance(error, ConversionError):
            raise
        raise OutputError(f"{output} cannot be written: {error}. Nothing was left there.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush(path: Path) -> None:
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
