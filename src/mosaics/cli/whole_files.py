"""Files that are whole or absent: written under another name first, and then renamed."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file; whatever stops it, `path` holds all of `content` or what it held before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_picture(path: Path, image: "Image.Image") -> None:
    """Writes a picture in the format its suffix names."""
    buffer = io.BytesIO()
    image.save(buffer, format=picture_format(path))
    write_whole(path, buffer.getvalue())


def picture_format(path: Path) -> str:
    """Pillow's name for the format of a picture file.

    Raises:
        ValueError: Pillow writes no such files.
    """
    from PIL import Image

    Image.preinit()  # the common formats
    suffix = path.suffix.lower()
    found = Image.EXTENSION.get(suffix) or Image.registered_extensions().get(suffix)
    if found not in Image.SAVE:
        raise ValueError(f"{path} has the suffix {path.suffix!r}; name a picture file such as {path.stem}.png.")
    return found
