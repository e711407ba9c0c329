"""The emoji scenes and their judge, for `mosaics evaluate`.

    mosaics evaluate --plugin examples/emoji/evaluation.py --dataset emoji --judge outputs/emoji/judge

The data set `emoji` has the `dataset_options` of the transformer's recipe, which `--dataset_options` may override; the
judge is the one that train_judge.py trained. `score.py` asks it about several numbers of candidates at once.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from emoji.judge import Judge
from emoji.recipe import recipe_scenes
from emoji.scenes import EmojiScenes

DATASETS = {"emoji": recipe_scenes}


def load_judge(folder: Path, dataset: EmojiScenes) -> Callable:
    """What reads off pictures of the scenes whether the statements of their captions are right."""
    judge = Judge.from_pretrained(folder).eval()

    def read(numbers: Sequence[int], pictures: torch.Tensor) -> list[dict[str, list[bool]]]:
        readings = judge.read(pictures.cpu())
        return [judge.correct(dataset[number]["scene"], one) for number, one in zip(numbers, readings, strict=True)]

    return read
