#!/usr/bin/env python
"""Draws the pictures of the documentation, from fixed seeds: python docs/make_images.py [scenes samples ...]."""

import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

from emoji.nearest import nearest_scenes  # noqa: E402 - from the examples folder
from emoji.recipe import recipe_scenes  # noqa: E402 - the same
from emoji.scenes import EmojiScenes  # noqa: E402 - the same
from emoji.score import candidates_of  # noqa: E402 - the same
from mosaics import DallePipeline, default_checkpoint  # noqa: E402 - after the path
from mosaics.demo.codebook import CodebookMosaic  # noqa: E402 - after the path

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
BEST_OF = (1, 8, 64, 512)
GUIDANCE_SCALES = (0.0, 1.0, 1.5, 2.0, 3.0, 5.0)
NUM_COMPARED = 20_000  # training pictures among which the nearest is looked for
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


def to_picture(pixels: torch.Tensor) -> Image.Image:
    """`(3, H, W)` in [0, 1] as a PIL image."""
    return Image.fromarray((pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def load_pipeline() -> DallePipeline:
    """The embedded checkpoint."""
    return DallePipeline.from_pretrained(default_checkpoint())


def draw_samples() -> Image.Image:
    """The first pictures of seed 0: one prompt each, the best of 16 by CLIP, none chosen by hand."""
    pictures = load_pipeline()(list(PROMPTS), num_candidates=16, seed=0).images
    return sheet(pictures, list(PROMPTS), columns=6)


def draw_scenes() -> Image.Image:
    """The first scenes of the training set."""
    items = [EmojiScenes("train", seed=0)[index] for index in range(12)]
    return sheet([to_picture(item["pixel_values"]) for item in items], [item["caption"] for item in items], columns=6)


def draw_best_of() -> Image.Image:
    """A row for each prompt: the best by CLIP of its first 1, 8, 64 and 512 candidates."""
    pipe, pictures, captions = load_pipeline(), [], []
    for number, prompt in enumerate(PROMPTS[:1] + PROMPTS[3:4] + PROMPTS[5:8:2]):
        (drawn,) = candidates_of(pipe, [prompt], number, max(BEST_OF), {})
        for count in BEST_OF:
            pictures.append(to_picture(max(drawn[:count], key=lambda pair: pair[0])[1]))
            captions.append(f"best of {count}: {prompt}")
    return sheet(pictures, captions, columns=len(BEST_OF))


def draw_guidance() -> Image.Image:
    """A row for each prompt: the same random numbers under more and more classifier-free guidance."""
    pipe, pictures, captions = load_pipeline(), [], []
    for prompt in PROMPTS[:3]:
        for scale in GUIDANCE_SCALES:
            pictures += pipe(prompt, guidance_scale=scale, seed=1).images
            captions.append(f"guidance {scale:g}: {prompt}")
    return sheet(pictures, captions, columns=len(GUIDANCE_SCALES))


def draw_completions() -> Image.Image:
    """A row for each held-out scene: what is given of it, the best of 16 completions and two others, and the scene."""
    pipe, pictures, captions = load_pipeline(), [], []
    rows = pipe.transformer.config.image_grid_size // 2
    for index in (0, 1, 3):
        item = recipe_scenes("test", 8)[index]
        scene = to_picture(item["pixel_values"])
        given = Image.new("RGB", scene.size, (225, 225, 225))
        given.paste(scene.crop((0, 0, scene.width, scene.height // 2)))
        output = pipe(
            item["caption"], image=scene, prefix_rows=rows, num_candidates=16, num_images_per_prompt=3, seed=0
        )
        pictures += [given, *output.images, scene]
        captions += [f"given: {item['caption']}", "completed, first by CLIP", "second", "third", "the scene itself"]
    return sheet(pictures, captions, columns=5)


def draw_nearest() -> Image.Image:
    """Samples, and beside each the nearest of 20,000 training pictures."""
    samples = load_pipeline()(list(PROMPTS), num_candidates=16, seed=0, output_type="pt").images
    train = recipe_scenes("train", NUM_COMPARED)
    psnr, numbers = nearest_scenes(samples, train)
    pictures, captions = [], []
    for sample, prompt, near, number in zip(samples, PROMPTS, psnr.tolist(), numbers.tolist(), strict=True):
        pictures += [to_picture(sample), to_picture(train[number]["pixel_values"])]
        captions += [prompt, f"nearest, {near:.1f} dB: {train[number]['caption']}"]
    return sheet(pictures, captions, columns=6)


def draw_codebook() -> Image.Image:
    """What each code paints where all its neighbours are the same code, the brightest codes first."""
    return CodebookMosaic(load_pipeline(), columns=64).picture()


FIGURES = {
    "scenes": draw_scenes,
    "samples": draw_samples,
    "best_of": draw_best_of,
    "guidance": draw_guidance,
    "completions": draw_completions,
    "nearest": draw_nearest,
    "codebook": draw_codebook,
}

if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or FIGURES:
        if name not in FIGURES:
            sys.exit(f"make_images.py: no figure {name!r}; there are {', '.join(FIGURES)}.")
        FIGURES[name]().save(IMAGES / f"{name}.png", optimize=True)
        print(IMAGES / f"{name}.png")
