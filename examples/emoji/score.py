#!/usr/bin/env python
"""Measures how often a pipeline draws what the caption says, by the judge, for the best of N candidates by CLIP.

    python examples/emoji/score.py outputs/emoji/dalle/pipeline --best_of 1 8 64 --num_prompts 500
    python examples/emoji/score.py --scenes '{"mix": {"object": 1}, "named_style": 1}'  # captions with a style

The prompts are captions of held-out scenes, drawn by a fixed hash; candidate i of prompt p has the seed p * 10000 + i.
Beside every score stands what the judge reads right on the real pictures of the same scenes.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm.auto import tqdm

from mosaics import DallePipeline, default_checkpoint

sys.path.insert(0, str(Path(__file__).parents[1]))

from emoji.judge import Judge
from emoji.recipe import recipe_scenes

STATEMENTS = ("object", "colour", "relation", "count", "style", "all")
SEEDS_OF_A_PROMPT = 10_000
CANDIDATES_OF_A_CALL = 128


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("pipeline", nargs="?", help="Folder or Hub repository; the embedded checkpoint if not given.")
    parser.add_argument("--judge", default="outputs/emoji/judge", help="Folder that train_judge.py wrote.")
    parser.add_argument("--split", default="test", choices=("test", "test_concepts"), help="Which held-out scenes.")
    parser.add_argument("--num_prompts", type=int, default=500, help="Held-out captions to draw (500).")
    parser.add_argument(
        "--scenes", type=json.loads, default={}, help="Arguments of EmojiScenes before the recipe's, as JSON."
    )
    parser.add_argument("--best_of", type=int, nargs="+", default=[1, 8], help="Numbers of candidates (1 8).")
    parser.add_argument("--temperature", type=float, help="Below 1: safer, less varied; the model's own if not given.")
    parser.add_argument("--top_p", type=float, help="Draw from the most likely codes that hold this probability.")
    parser.add_argument(
        "--guidance_scale", type=float, help="Above 1: closer to the prompt; the model's own if not given."
    )
    parser.add_argument("--output", type=Path, help="JSON file for the scores.")
    return parser.parse_args()


def candidates_of(
    pipe: DallePipeline, captions: Sequence[str], first: int, count: int, sampling: dict
) -> list[list[tuple]]:
    """For each prompt `(clip score, picture)` of its candidates, in the order of their seeds.

    `first` is the number of the first prompt, which decides the seeds.
    """
    numbers = range(first, first + len(captions))
    seeds = [number * SEEDS_OF_A_PROMPT + candidate for number in numbers for candidate in range(count)]
    output = pipe(
        list(captions), num_candidates=count, num_images_per_prompt=count, seed=seeds, output_type="pt", **sampling
    )
    drawn = sorted(zip(output.seeds, output.clip_scores, output.images, strict=True), key=lambda item: item[0])
    pairs = [(score, image) for _, score, image in drawn]
    return [pairs[start : start + count] for start in range(0, len(pairs), count)]


def table(scores: dict[str, dict[str, list[bool]]]) -> str:
    """The shares of correct statements, a row each for the real pictures and for every number of candidates."""
    lines = [f"{'':14}" + "".join(f"{name:>10}" for name in STATEMENTS)]
    for row, by_name in scores.items():
        cells = [f"{100 * sum(v) / len(v):.1f} %" if (v := by_name.get(name)) else "-" for name in STATEMENTS]
        lines.append(f"{row:14}" + "".join(f"{cell:>10}" for cell in cells))
    counts = next(iter(scores.values()))
    return "\n".join(
        [*lines, f"{'statements':14}" + "".join(f"{len(counts.get(name, ())):>10}" for name in STATEMENTS)]
    )


def read_scene(judge: Judge, item: dict, candidates: list[tuple], best_of: list[int], scores: dict) -> None:
    """Adds to `scores` what the judge reads right on a scene and on the best of N candidates for it."""
    pictures = {"real": item["pixel_values"]}
    for count in best_of:
        pictures[f"best of {count}"] = max(candidates[:count], key=lambda pair: pair[0] or 0.0)[1]
    readings = judge.read(torch.stack(list(pictures.values())))
    for row, reading in zip(pictures, readings, strict=True):
        for statement, right in judge.correct(item["scene"], reading).items():
            scores[row][statement] += right


def main() -> None:
    arguments = parse_arguments()
    scenes = recipe_scenes(arguments.split, arguments.num_prompts, **arguments.scenes)
    pipe = DallePipeline.from_pretrained(arguments.pipeline or default_checkpoint())
    pipe.set_progress_bar_config(disable=True)
    judge = Judge.from_pretrained(arguments.judge).eval()
    sampling = {name: getattr(arguments, name) for name in ("temperature", "top_p", "guidance_scale")}
    scores: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    most = max(arguments.best_of)
    together = max(1, CANDIDATES_OF_A_CALL // most)
    bar = tqdm(total=len(scenes), unit=" prompts")
    for first in range(0, len(scenes), together):
        items = [scenes[number] for number in range(first, min(first + together, len(scenes)))]
        drawn = candidates_of(pipe, [item["caption"] for item in items], first, most, sampling)
        for item, candidates in zip(items, drawn, strict=True):
            read_scene(judge, item, candidates, sorted(arguments.best_of), scores)
        bar.update(len(items))
    bar.close()
    print(table(scores))
    if arguments.output is not None:
        shares = {row: {name: sum(v) / len(v) for name, v in names.items()} for row, names in scores.items()}
        arguments.output.write_text(
            json.dumps({"split": arguments.split, "scenes": arguments.scenes, **sampling, "shares": shares}, indent=2)
        )


if __name__ == "__main__":
    main()
