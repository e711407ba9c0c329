#!/usr/bin/env python
"""Trains the judge of emoji scenes on real scenes, and prints how well it reads held-out ones.

    accelerate launch examples/emoji/train_judge.py

Its accuracy is the limit of what `score.py` can measure.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch.utils.data import ConcatDataset, default_collate
from transformers import set_seed

from mosaics.training import TrainingConfig, TrainingRun, parse_arguments

sys.path.insert(0, str(Path(__file__).parents[1]))

from degradation import degrade
from emoji.judge import COLOUR_NAMES, MAX_OBJECTS, Judge, JudgeConfig, layout_of, object_classes, objects_of
from emoji.scenes import EmojiScenes

DEFAULT_RECIPE = Path(__file__).parents[1] / "recipes" / "emoji" / "judge.yaml"


@strict
@dataclass
class Arguments:
    """Which scenes the judge has to read."""

    dataset_options: dict[str, Any] | None = field(
        default=None, metadata={"help": "Arguments of EmojiScenes: the groups, styles and mix of the generator's."}
    )
    num_eval_samples: int = field(default=2000, metadata={"help": "Held-out scenes to evaluate on."})
    width: int = field(default=32, metadata={"help": "Channels of the first convolutions."})


def labels_of(judge: Judge, samples: list[dict]) -> dict[str, torch.Tensor]:
    """Pictures and what they show, as numbers."""
    scenes = [sample["scene"] for sample in samples]
    objects = torch.full((len(scenes), MAX_OBJECTS), -1)
    for row, scene in zip(objects, scenes, strict=True):
        classes = [judge.class_of[name] for name in objects_of(scene)]
        row[: len(classes)] = torch.tensor(classes)
    return {
        "pixel_values": default_collate([sample["pixel_values"] for sample in samples]),
        "layouts": torch.tensor([layout_of(scene) for scene in scenes]),
        "colours": torch.tensor([COLOUR_NAMES.index(scene["colour"]) for scene in scenes]),
        "styles": torch.tensor([judge.config.styles.index(scene["style"]) for scene in scenes]),
        "objects": objects,
    }


def main() -> None:
    arguments, config = parse_arguments(Arguments, TrainingConfig, default_recipe=DEFAULT_RECIPE, description=__doc__)
    set_seed(config.seed)
    options = arguments.dataset_options or {}
    train, rare = (EmojiScenes(split, seed=1, **{**options, "length": n}) for split, n in
                   (("train", 1_000_000), ("test_concepts", 60_000)))  # fmt: skip
    judge = Judge(JudgeConfig(
        names=object_classes(options.get("groups", ()), list(train.styles)), styles=list(train.styles),
        width=arguments.width,
    ))  # fmt: skip
    held_out = EmojiScenes("test", **{**options, "length": arguments.num_eval_samples})
    run = TrainingRun(
        config,
        judge,
        ConcatDataset([train, rare]),
        held_out,
        collate_fn=lambda samples: labels_of(judge, samples),
        script_arguments=arguments,
    )
    for batch in run:
        output = run.model(**{**batch, "pixel_values": degrade(batch["pixel_values"])})
        run.optimize(output.loss, log={name: output[name] for name in ("layout", "colour", "object", "style")})
        if run.should_evaluate:
            for test_batch in run.evaluate_batches():
                output = run.model(**test_batch)
                run.log_evaluation({name: output[name] for name in ("layout", "colour", "object", "style")})


if __name__ == "__main__":
    main()
