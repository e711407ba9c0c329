#!/usr/bin/env python
"""Draws the pictures of the documentation, from fixed seeds: python docs/make_images.py."""

import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

from emoji.scenes import EmojiScenes  # noqa: E402 - from the examples folder
from mosaics import DallePipeline, default_checkpoint  # noqa: E402

IMAGES = ROOT / "docs" / "pages" / "images"
PROMPTS = (
    "a lion on a blue background",
    "a pizza on a white background",
    "a grinning face on a pink background",
    "two copies of cat on green",
    "three strawberries on a yellow background",
    "a dog to the left of a rose, white background",
    "a banana above a monkey face, blue background",
    "a unicorn on a purple background",
    "a 3d emoji of a sloth",
    "four copies of cherries on black",
    "a fox on a green background",
    "a hamburger on a red background",
)
SCALE, LINES = 3, 3


def sheet(pictures: list[Image.Image], captions: list[str], columns: int) -> Image.Image:
    """Pictures in rows, enlarged, each with its caption below."""
    font = ImageFont.load_default(size=15)
    side = pictures[0].width * SCALE
    width, height = side + 16, side + LINES * 18 + 12
    canvas = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height), "white")
    draw = ImageDraw.Draw(canvas)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        row, column = divmod(number, columns)
        left, top = column * width + 8, row * height + 8
        canvas.paste(picture.resize((side, side), Image.Resampling.LANCZOS), (left, top))
        draw.rectangle((left, top, left + side - 1, top + side - 1), outline=(200, 200, 200))
        draw.multiline_text((left, top + side + 3), wrap(caption, font, side), fill="black", font=font, spacing=3)
    return canvas


def wrap(text: str, font: ImageFont.ImageFont, width: int) -> str:
    """Breaks a caption into lines of at most `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if font.getlength(longer) <= width else [*lines, word]
    return "\n".join(lines)


def draw_samples() -> None:
    """The first pictures of seed 0: one prompt each, the best of 16 by CLIP, none chosen by hand."""
    pipe = DallePipeline.from_pretrained(default_checkpoint())
    pictures = pipe(list(PROMPTS), num_candidates=16, seed=0).images
    sheet(pictures, list(PROMPTS), columns=6).save(IMAGES / "samples.png", optimize=True)


def draw_scenes() -> None:
    """The first scenes of the training set."""
    items = [EmojiScenes("train", seed=0)[index] for index in range(12)]
    pictures = [
        Image.fromarray((item["pixel_values"] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
        for item in items
    ]
    sheet(pictures, [item["caption"] for item in items], columns=6).save(IMAGES / "scenes.png", optimize=True)


if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    draw_scenes()
    draw_samples()
