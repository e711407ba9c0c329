#!/usr/bin/env python
"""Draws pictures of sentences, with the embedded checkpoint or any other.

    python examples/generate.py "a lion on a blue background"
    python examples/generate.py "two copies of cat on green" "a beetle above a balloon" --num_candidates 64
    python examples/generate.py "a lion" --model user/name --num_images_per_prompt 4 --seed 7 --output lions.png

Draws `num_candidates` pictures of each sentence, lets CLIP choose the best, and saves one sheet.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from PIL import Image

from mosaics import DallePipeline, default_checkpoint
from mosaics.training.image_grid import image_grid


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("prompts", nargs="+", metavar="PROMPT", help="What to draw.")
    parser.add_argument("--model", help="Folder or Hub repository of a DallePipeline; the embedded one if not given.")
    parser.add_argument("--num_candidates", type=int, default=16, help="Pictures drawn of each prompt (16).")
    parser.add_argument("--num_images_per_prompt", type=int, default=1, help="Pictures kept of each prompt (1).")
    parser.add_argument("--temperature", type=float, help="Below 1: safer, less varied; the model's own if not given.")
    parser.add_argument("--top_k", type=int, help="Draw from the k most likely codes only.")
    parser.add_argument("--top_p", type=float, help="Draw from the most likely codes that hold this probability.")
    parser.add_argument(
        "--guidance_scale", type=float, help="Above 1: closer to the prompt; the model's own if not given."
    )
    parser.add_argument("--seed", type=int, default=0, help="The same seed draws the same pictures (0).")
    parser.add_argument("--batch_size", type=int, help="Candidates computed at a time, to bound the memory.")
    parser.add_argument("--output", type=Path, default=Path("outputs/generated.png"), help="Picture file to write.")
    parser.add_argument("--enlarge", type=int, default=4, help="Times that the saved sheet is enlarged (4).")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    started = time.perf_counter()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipe = DallePipeline.from_pretrained(arguments.model or default_checkpoint()).to(device)
    sampling = ("temperature", "top_k", "top_p", "guidance_scale", "seed", "batch_size")
    try:
        output = pipe(
            arguments.prompts,
            num_candidates=max(arguments.num_candidates, arguments.num_images_per_prompt),
            num_images_per_prompt=arguments.num_images_per_prompt,
            output_type="pt",
            **{name: getattr(arguments, name) for name in sampling},
        )
    except ValueError as error:  # a prompt or a number that cannot be used; the message names it
        sys.exit(f"generate.py: error: {error}")
    sheet = image_grid(output.images, columns=arguments.num_images_per_prompt)
    size = (sheet.width * arguments.enlarge, sheet.height * arguments.enlarge)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize(size, Image.Resampling.LANCZOS).save(arguments.output)
    count = len(arguments.prompts) * arguments.num_candidates
    print(
        f"{arguments.output}: {count} candidates, {time.perf_counter() - started:.1f} s to load, draw and rank them."
    )


if __name__ == "__main__":
    main()
