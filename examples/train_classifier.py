#!/usr/bin/env python
"""Trains a small classifier of labelled pictures, a ResNet of transformers.

    accelerate launch examples/train_classifier.py --recipe examples/recipes/mnist/classifier.yaml

It says how often a class-conditional pipeline draws the class it was asked for (`score_classes.py`), or chooses among
the candidates of one (`VQVAEPipeline(..., classifier=...)`); one that scores must not be one that chose.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from transformers import ResNetConfig, ResNetForImageClassification, set_seed

from mosaics.data import load_eval_data, load_train_data
from mosaics.training import TrainingConfig, TrainingRun, parse_arguments


@strict
@dataclass
class Arguments:
    """What to train on, and the network."""

    dataset: str = field(default="mnist", metadata={"help": '"mnist", "fashion-mnist" or "cifar10".'})
    dataset_options: dict[str, Any] | None = field(
        default=None, metadata={"help": "More arguments of LabelledPictures, as JSON: source and so on."}
    )
    image_size: int = field(default=28, metadata={"help": "Side of the square pictures in pixels."})
    num_eval_samples: int = field(default=10_000, metadata={"help": "Held-out samples to evaluate on, at most."})
    model: dict[str, Any] | None = field(
        default=None, metadata={"help": "Fields of transformers' ResNetConfig: a mapping in a recipe, JSON here."}
    )


def main() -> None:
    arguments, config = parse_arguments(Arguments, TrainingConfig, description=__doc__)
    set_seed(config.seed)
    source = (arguments.dataset, arguments.image_size, arguments.dataset_options)
    train_data = load_train_data(*source)
    eval_data = load_eval_data(*source, split="test", num_samples=arguments.num_eval_samples)
    model = ResNetForImageClassification(
        ResNetConfig(
            num_channels=train_data[0]["pixel_values"].shape[0],
            id2label=dict(enumerate(train_data.class_names)),
            label2id={name: number for number, name in enumerate(train_data.class_names)},
            **(arguments.model or {}),
        )
    )
    run = TrainingRun(config, model, train_data, eval_data, script_arguments=arguments)
    for batch in run:
        output = run.model(pixel_values=batch["pixel_values"], labels=batch["class_labels"])
        run.optimize(output.loss)
        if run.should_evaluate:
            for batch in run.evaluate_batches():
                with torch.no_grad():
                    output = run.model(pixel_values=batch["pixel_values"], labels=batch["class_labels"])
                right = (output.logits.argmax(dim=1) == batch["class_labels"]).float().mean()
                run.log_evaluation({"loss": output.loss, "accuracy": right})


if __name__ == "__main__":
    main()
