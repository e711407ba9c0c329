#!/usr/bin/env python
"""Says how many pictures of a pipeline are near copies of training scenes.

    python examples/emoji/nearest.py outputs/emoji/dalle/pipeline --num_prompts 100

Draws one candidate for each of the first held-out captions and looks for the nearest of many training scenes by their
squared error; a near copy is one at 30 dB or more. The real held-out scenes are compared alike: that share is to be
expected: scenes that differ in one small object from a training scene are near it without any copying.
"""

import argparse
import sys
from pathlib import Path

import torch
from tqdm.auto import tqdm

from mosaics import DallePipeline, default_checkpoint

sys.path.insert(0, str(Path(__file__).parents[1]))

from emoji.recipe import recipe_scenes
from emoji.scenes import EmojiScenes

NEAR_COPY_PSNR = 30.0
SCENES_OF_A_BATCH = 500


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("pipeline", nargs="?", help="Folder or Hub repository; the embedded checkpoint if not given.")
    parser.add_argument("--num_prompts", type=int, default=100, help="Held-out captions to draw (100).")
    parser.add_argument("--num_compared", type=int, default=20_000, help="Training scenes to compare with (20,000).")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the pictures (0).")
    return parser.parse_args()


@torch.no_grad()
def nearest_scenes(pictures: torch.Tensor, scenes: EmojiScenes) -> tuple[torch.Tensor, torch.Tensor]:
    """For each of some pictures `(N, 3, H, W)` the PSNR in dB of the nearest scene, `(N,)`, and its number, `(N,)`."""
    best = pictures.new_full((len(pictures),), torch.inf)
    number = torch.zeros(len(pictures), dtype=torch.int64)
    for start in tqdm(range(0, len(scenes), SCENES_OF_A_BATCH), unit=" batches", leave=False):
        items = scenes.__getitems__(list(range(start, min(start + SCENES_OF_A_BATCH, len(scenes)))))
        others = torch.stack([item["pixel_values"] for item in items]).flatten(1)
        least, index = (torch.cdist(pictures.flatten(1), others) ** 2 / others.shape[1]).min(dim=1)
        closer = least < best
        best, number = torch.where(closer, least, best), torch.where(closer, index + start, number)
    return -10 * best.clamp(min=1e-10).log10(), number


def main() -> None:
    arguments = parse_arguments()
    pipe = DallePipeline.from_pretrained(arguments.pipeline or default_checkpoint())
    held_out = recipe_scenes("test", arguments.num_prompts)
    train = recipe_scenes("train", arguments.num_compared)
    items = held_out.__getitems__(list(range(len(held_out))))
    captions = [item["caption"] for item in items]
    drawn = {
        "drawn": pipe(captions, seed=arguments.seed, output_type="pt").images,
        "real, held out": torch.stack([item["pixel_values"] for item in items]),
    }
    for name, pictures in drawn.items():
        psnr, _ = nearest_scenes(pictures, train)
        share = (psnr >= NEAR_COPY_PSNR).float().mean().item()
        print(f"{name:15} near copies: {share:6.1%}   nearest scene, median: {psnr.median():.1f} dB")


if __name__ == "__main__":
    main()
