"""The numbers and options a user hands to a VQ-VAE pipeline, checked at the door."""

from typing import Any

OUTPUT_TYPES = ("pil", "np", "pt")
MAX_COUNT = 1_000_000


def check_count(name: str, count: int) -> None:
    """Raises `ValueError` if `count` is not an integer from 1 to a million."""
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_COUNT:
        raise ValueError(f"{name} must be an integer from 1 to {MAX_COUNT:,}, got {count!r}.")


def count_candidates(num_candidates: int, num_images: int, has_classifier: bool) -> int:
    """The number of candidates to draw of each class.

    Raises:
        ValueError: A number is out of range, or there is nothing to choose the best by.
    """
    check_count("num_candidates", num_candidates)
    check_count("num_images", num_images)
    if num_candidates == 1:
        return num_images
    if num_images > num_candidates:
        raise ValueError(f"num_images={num_images} pictures cannot be kept of num_candidates={num_candidates}.")
    if num_candidates > num_images and not has_classifier:
        raise ValueError(
            f"num_candidates={num_candidates} pictures would be drawn to keep num_images={num_images}, but this "
            "pipeline has no classifier to choose by: load it with one, or ask for equal numbers."
        )
    return num_candidates


def check_output_type(output_type: str, num_channels: int) -> None:
    """Raises `ValueError` if pictures cannot be given in this form."""
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type must be one of {', '.join(map(repr, OUTPUT_TYPES))}, got {output_type!r}.")
    if output_type == "pil" and num_channels not in (1, 3):
        raise ValueError(f"output_type='pil' shows 1 or 3 channels, the vqvae has {num_channels}: use 'np' or 'pt'.")


def check_completion(image: Any, prefix_rows: int, grid_size: int) -> None:
    """Raises `ValueError` if `image` and `prefix_rows` do not name a part of a picture to complete."""
    if isinstance(prefix_rows, bool) or not isinstance(prefix_rows, int) or not 0 <= prefix_rows < grid_size:
        raise ValueError(
            f"prefix_rows must be an integer from 0 to {grid_size - 1}: of {grid_size} rows of top codes at least one "
            f"is drawn; got {prefix_rows!r}."
        )
    if (image is None) != (prefix_rows == 0):
        given = f"prefix_rows={prefix_rows} without image" if image is None else "image with prefix_rows=0"
        raise ValueError(f"to complete a picture, give image and prefix_rows of 1 to {grid_size - 1}; got {given}.")
