"""The prompts and pictures a user hands to a pipeline, checked at the door."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from mosaics.data.captions import CaptionError, check_caption, tokenize
from mosaics.data.images import ImageError, read_image, to_pixel_values

MAX_PROMPTS = 4096


def read_prompts(prompt: str | Sequence[str]) -> list[str]:
    """A prompt or a list of them as a list of clean strings.

    Raises:
        CaptionError: A prompt is no string, empty, far too long, or not valid Unicode; the message names it.
    """
    if isinstance(prompt, str):
        return [check_caption(prompt, "prompt")]
    if not isinstance(prompt, list | tuple):
        raise CaptionError(f"prompt must be a string or a list of strings, got {type(prompt).__name__}.")
    if not 1 <= len(prompt) <= MAX_PROMPTS:
        raise CaptionError(f"prompt must be a list of 1 to {MAX_PROMPTS} strings, got {len(prompt)}.")
    return [check_caption(text, f"prompt[{number}]") for number, text in enumerate(prompt)]


def tokenize_prompts(tokenizer: PreTrainedTokenizerFast, prompts: list[str], max_length: int) -> torch.Tensor:
    """Token ids `(P, max_length)`, padded on the right. Too long a prompt is an error that gives the counts."""
    try:
        return tokenize(tokenizer, prompts, max_length=max_length)
    except CaptionError as error:
        message = str(error).replace("captions[0]" if len(prompts) == 1 else "captions", "prompt")
        raise CaptionError(message.replace(", or allow truncation", "")) from error


def read_pictures(image: Any, num_prompts: int, image_size: int, prompts: str = "prompts") -> torch.Tensor:
    """The pictures to be completed, `(1 or P, 3, image_size, image_size)` in [0, 1].

    Args:
        image: One picture for all prompts or a list of one for each: PIL, path, array, or float tensors; a tensor
            `(P, 3, H, W)` counts as a list.
        num_prompts: Prompts P.
        image_size: Side the pipeline draws.
        prompts: What to call the prompts in a message.

    Raises:
        ImageError: A picture is unreadable, of another size, or there are not 1 or P of them.
    """
    if isinstance(image, torch.Tensor) and image.ndim == 4:
        image = list(image)
    pictures = list(image) if isinstance(image, list | tuple) else [image]
    if len(pictures) not in (1, num_prompts):
        raise ImageError(
            f"image must be one picture or one for each of the {num_prompts} {prompts}, got {len(pictures)}."
        )
    pixels = []
    for number, picture in enumerate(pictures):
        try:
            picture = read_image(picture)
        except ImageError as error:
            raise ImageError(f"image[{number}]: {error}") from error
        if picture.size != (image_size, image_size):
            raise ImageError(
                f"image[{number}] has {picture.width} x {picture.height} pixels; this pipeline completes pictures of "
                f"{image_size} x {image_size}: crop or resize it first."
            )
        pixels.append(to_pixel_values(picture, image_size))
    return torch.stack(pixels)
