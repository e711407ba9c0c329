"""What a visitor may ask for, checked at the door of every tab."""

import os

import torch

from mosaics.data.images import ImageError, read_image, to_pixel_values
from mosaics.sampling import MAX_SEED

MAX_CANDIDATES = 512  # as many as the paper draws
MAX_SHOWN = 64
MAX_PROMPT_CHARACTERS = 500
MAX_UPLOAD_BYTES = 10_000_000
MAX_UPLOAD_PIXELS = 20_000_000


def check_count(name: str, count: int, largest: int) -> int:
    """Returns `count` as an integer.

    Raises:
        ValueError: It is no integer from 1 to `largest`.
    """
    if isinstance(count, bool) or not isinstance(count, int | float) or count != count // 1:
        raise ValueError(f"{name} must be an integer from 1 to {largest}, got {count!r}.")
    if not 1 <= count <= largest:
        raise ValueError(f"{name} must be an integer from 1 to {largest}, got {count:g}.")
    return int(count)


def check_prompt(prompt: str) -> str:
    """Returns the prompt; the pipeline checks what is in it.

    Raises:
        ValueError: It is no string or longer than a page here accepts.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError("The prompt is empty: say what to draw.")
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise ValueError(
            f"The prompt has {len(prompt):,} characters; at most {MAX_PROMPT_CHARACTERS} are accepted: shorten it."
        )
    return prompt


def read_seed(text: str) -> int:
    """The seed in a text box.

    Raises:
        ValueError: It is no integer from 0 to 2**64 - 1.
    """
    text = str(text).strip()
    # isdecimal is true of digits of other scripts too, and int() reads them.
    if len(text) > 20 or not text.isdecimal() or int(text) > MAX_SEED:
        raise ValueError(f"The seed must be an integer from 0 to 2**64 - 1, got {text[:30]!r}.")
    return int(text)


def read_upload(path: str | os.PathLike | None, image_size: int) -> torch.Tensor:
    """An uploaded picture, cut to its central square: `(3, image_size, image_size)` in [0, 1].

    The file is read here and handed on as bytes, so that no message names a place on the server.

    Args:
        path: Where the server keeps the upload; `None` if there is none.
        image_size: Side of the result in pixels.

    Raises:
        ImageError: There is no picture, it is too large, or it cannot be read.
    """
    if path is None:
        raise ImageError("There is no picture yet: upload one, or take one from another tab.")
    size = os.path.getsize(path)
    if size > MAX_UPLOAD_BYTES:
        raise ImageError(f"The file has {size:,} bytes; at most {MAX_UPLOAD_BYTES:,} are accepted: shrink it first.")
    with open(path, "rb") as file:
        picture = read_image(file.read(), max_pixels=MAX_UPLOAD_PIXELS)
    return to_pixel_values(picture, image_size)
