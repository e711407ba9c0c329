"""Draws what `mosaics generate` was asked for, into one sheet or into a folder."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm.auto import tqdm

from mosaics.cli.picture_folder import PictureFolder, PictureRecord
from mosaics.cli.whole_files import write_picture
from mosaics.pipelines.many_pictures import Drawn, draw_many, is_text_to_image
from mosaics.training.image_grid import image_grid
from mosaics.training.output_lock import OutputLock

DEFAULT_CANDIDATES = 16
ENLARGE_SHEET = 4


@dataclass(frozen=True)
class Order:
    """What to draw, and how.

    Args:
        requests: Prompts or classes.
        num_candidates: Pictures drawn of each.
        num_images: Pictures kept of each.
        seed: Seed of all.
        sampling: What is handed to the pipeline: temperature and the like, without `None`.
        batch_size: Candidates computed at a time.
    """

    requests: Sequence[str | int | None]
    num_candidates: int
    num_images: int
    seed: int
    sampling: dict[str, Any]
    batch_size: int | None = None

    def arguments(self) -> dict[str, Any]:
        """The arguments of [`draw_many`] beside the requests."""
        return {
            "num_candidates": self.num_candidates,
            "num_images": self.num_images,
            "seed": self.seed,
            "batch_size": self.batch_size,
            **self.sampling,
        }


def candidates_to_draw(pipe: Any, num_candidates: int | None, num_images: int) -> int:
    """The number asked for; if none was, 16, or as many as are kept where nothing can choose."""
    if num_candidates is None:
        judge = pipe.clip if is_text_to_image(pipe) else pipe.classifier
        num_candidates = num_images if judge is None else DEFAULT_CANDIDATES
    return max(num_candidates, num_images)


def draw_sheet(pipe: Any, order: Order, path: Path, enlarge: int | None) -> list[PictureRecord]:
    """Draws everything in one call, and writes it as one picture: a row for each request, the best first."""
    drawn = list(draw_many(pipe, dict(enumerate(order.requests)), together=len(order.requests), **order.arguments()))
    pictures = [picture for call in drawn for pictures in call.values() for picture in pictures]
    sheet = image_grid(torch.stack([picture.pixels for picture in pictures]), columns=order.num_images)
    factor = enlarge or ENLARGE_SHEET
    sheet = sheet.resize((sheet.width * factor, sheet.height * factor), Image.Resampling.LANCZOS)
    write_picture(path, sheet)
    return [PictureRecord(path.name, picture.number, fields_of(pipe, order, picture)) for picture in pictures]


def draw_folder(pipe: Any, order: Order, folder: Path, checkpoint: str) -> tuple[list[PictureRecord], int]:
    """Fills a folder with what is not there yet.

    Args:
        pipe: The pipeline.
        order: What to draw.
        folder: New, or half-done with the same settings.
        checkpoint: Hash of the checkpoint, one of the settings.

    Returns:
        What the folder holds, and how many requests were drawn now.
    """
    settings = {
        "checkpoint": checkpoint,
        "requests": list(order.requests),
        "num_candidates": order.num_candidates,
        "num_images_per_prompt": order.num_images,
        "seed": order.seed,
        "sampling": {name: pipe.config.get(name) for name in ("temperature", "guidance_scale")} | order.sampling,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with OutputLock(folder):
        target = PictureFolder(folder, settings, len(order.requests), order.num_images)
        missing = target.missing
        pipe.set_progress_bar_config(disable=True)
        calls = draw_many(pipe, {number: order.requests[number] for number in missing}, **order.arguments())
        with tqdm(total=len(order.requests), initial=len(order.requests) - len(missing), unit=" prompts") as bar:
            for call in _only_complete(calls):
                for number, pictures in call.items():
                    target.add(number, [(_to_image(item), fields_of(pipe, order, item)) for item in pictures])
                    bar.update()
        return target.finish(), len(missing)


def fields_of(pipe: Any, order: Order, picture: Drawn) -> dict[str, Any]:
    """What a picture's line says. The seed is text: it may be too large for the integers of a table."""
    request = order.requests[picture.number]
    text = is_text_to_image(pipe)
    asked = {"prompt": request} if text else {"class_label": request}
    if not text and request in pipe.class_names:
        asked["class_name"] = pipe.class_names[request]
    score = {"clip_score" if text else "score": None if picture.score is None else round(picture.score, 6)}
    return {**asked, "seed": str(picture.seed), "candidate": picture.candidate, **score}


def _only_complete(calls: Any) -> Any:
    """The calls that draw all their candidates: what a stopped one kept is not what the settings say."""
    from mosaics.pipelines.running import IncompleteResultWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", IncompleteResultWarning)
        try:
            yield from calls
        except IncompleteResultWarning as stopped:
            if isinstance(stopped.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from stopped
            raise RuntimeError(
                f"{stopped} What is written is whole: the same command goes on from there."
            ) from stopped


def _to_image(picture: Drawn) -> Image.Image:
    pixels = (picture.pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
