"""Sends pictures through an image tokenizer, and writes what comes back."""

import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from mosaics.cli.whole_files import write_picture, write_whole
from mosaics.data.images import ImageError, to_pixel_values
from mosaics.data.rows import IMAGE_SUFFIXES
from mosaics.pipelines.pictures import to_channels
from mosaics.training.image_grid import image_grid

ROWS_FILE = "reconstructions.jsonl"


def find_pictures(sources: Sequence[Path]) -> list[Path]:
    """The picture files that were named, and those of the folders among them.

    Raises:
        FileNotFoundError: A source is not there, or there is no picture at all.
    """
    found: list[Path] = []
    for source in sources:
        if source.is_dir():
            found += sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        elif source.is_file():
            found.append(source)
        else:
            raise FileNotFoundError(f"There is no file or folder {source}.")
    if not found:
        raise FileNotFoundError(f"There are no pictures in {', '.join(map(str, sources))}.")
    return found


@torch.no_grad()
def write_reconstructions(
    model: Any, paths: Sequence[Path], output: Path, image_size: int, batch_size: int, with_codes: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    """Writes each picture beside its reconstruction, and `reconstructions.jsonl`.

    Args:
        model: An image tokenizer.
        paths: Picture files.
        output: Folder; made if it does not exist.
        image_size: Side that the central squares are resized to.
        batch_size: Pictures computed at a time.
        with_codes: Also write the codes of each.

    Returns:
        A row for each picture: `source`, `file_name`, `psnr` in dB (`None`: exact), `codes`; and what is wrong with
        those that cannot be read.
    """
    rows: list[dict[str, Any]] = []
    refused: list[str] = []
    names = dict(zip(paths, unique_stems(paths), strict=True))
    with tqdm(total=len(paths), unit=" pictures") as bar:
        for batch_paths, pixels in _batches(paths, image_size, batch_size, refused):
            pixels = to_channels(pixels, model.config.num_channels).to(model.device)
            indices = model.encode(pixels)
            restored = model.decode(indices)
            for number, path in enumerate(batch_paths):
                pair = torch.stack([pixels[number], restored[number]])
                row = {"source": str(path), "file_name": f"{names[path]}.png", "psnr": psnr_or_none(pair)}
                write_picture(output / row["file_name"], image_grid(pair, columns=2))
                if with_codes:
                    row["codes"] = f"{names[path]}.npz"
                    write_whole(output / row["codes"], codes_bytes(indices, number))
                rows.append(row)
            bar.update(len(batch_paths))
    write_whole(output / ROWS_FILE, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    return rows, refused


def unique_stems(paths: Sequence[Path]) -> list[str]:
    """For each file its name without the suffix, numbered where names repeat."""
    taken: set[str] = set()
    stems = []
    for path in paths:
        stem, number = path.stem, 2
        while stem in taken:
            stem, number = f"{path.stem}-{number}", number + 1
        taken.add(stem)
        stems.append(stem)
    return stems


def psnr_or_none(pair: torch.Tensor) -> float | None:
    """PSNR in dB of a picture and its reconstruction `(2, C, H, W)`; `None` if it is exact, which JSON cannot say."""
    error = float((pair[0].double() - pair[1].double()).square().mean())
    return -10 * math.log10(error) if error > 0 else None


def codes_bytes(indices: torch.Tensor | tuple[torch.Tensor, ...], number: int) -> bytes:
    """One picture's codes as an npz file: `indices`, or `indices_0`, `indices_1`, ... of several levels, top first."""
    several = isinstance(indices, tuple | list)
    grids = indices if several else (indices,)
    arrays: dict[str, Any] = {
        f"indices_{level}" if several else "indices": grid[number].cpu().numpy().astype(np.int64)
        for level, grid in enumerate(grids)
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _batches(
    paths: Sequence[Path], image_size: int, batch_size: int, refused: list[str]
) -> Iterator[tuple[list[Path], torch.Tensor]]:
    """Pictures that can be read, in batches; what is wrong with the others goes into `refused`."""
    good: list[Path] = []
    pixels: list[torch.Tensor] = []
    for path in paths:
        try:
            pixels.append(to_pixel_values(path, image_size))
            good.append(path)
        except ImageError as error:
            refused.append(str(error))
        if len(good) == batch_size:
            yield good, torch.stack(pixels)
            good, pixels = [], []
    if good:
        yield good, torch.stack(pixels)
