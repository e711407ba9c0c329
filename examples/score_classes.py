#!/usr/bin/env python
"""Measures how often a class-conditional VQVAEPipeline draws the class it was asked for, by a classifier.

    python examples/score_classes.py outputs/mnist/pixelcnn/pipeline --classifier outputs/mnist/classifier

The classifier must be trained apart from the pipeline (`train_classifier.py`): one that chose among its candidates
would praise itself. Picture i of class c has the seed c * 100000 + i.
"""

import argparse
import json
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import AutoModelForImageClassification

from mosaics import VQVAEPipeline
from mosaics.training.image_grid import image_grid

SEEDS_OF_A_CLASS = 100_000


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("pipeline", help="Folder or Hub repository of a class-conditional VQVAEPipeline.")
    parser.add_argument("--classifier", required=True, help="Folder that train_classifier.py wrote.")
    parser.add_argument("--per_class", type=int, default=100, help="Pictures of each class (100).")
    parser.add_argument("--temperature", type=float, default=1.0, help="Below 1: safer, less varied (1).")
    parser.add_argument("--picture", type=Path, help="PNG file for the first ten pictures of each class, a row each.")
    parser.add_argument("--output", type=Path, help="JSON file for the scores.")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    pipe = VQVAEPipeline.from_pretrained(arguments.pipeline)
    pipe.set_progress_bar_config(disable=True)
    classifier = AutoModelForImageClassification.from_pretrained(arguments.classifier).eval()
    if pipe.num_classes != classifier.config.num_labels:
        raise SystemExit(
            f"score_classes.py: error: {arguments.pipeline} has {pipe.num_classes} classes, {arguments.classifier} "
            f"{classifier.config.num_labels}: train the classifier on the same set."
        )
    right, first = {}, []
    for label in tqdm(range(pipe.num_classes), unit=" classes"):
        seeds = [label * SEEDS_OF_A_CLASS + number for number in range(arguments.per_class)]
        output = pipe(
            class_labels=label,
            num_images=arguments.per_class,
            seed=seeds,
            temperature=arguments.temperature,
            output_type="pt",
        )
        with torch.no_grad():
            found = classifier(output.images).logits.argmax(dim=1)
        right[classifier.config.id2label[label]] = (found == label).float().mean().item()
        first.append(output.images[:10])
    for name, share in right.items():
        print(f"{name:15} {100 * share:6.1f} %")
    mean = sum(right.values()) / len(right)
    print(f"{'all':15} {100 * mean:6.1f} %")
    if arguments.picture is not None:
        image_grid(torch.cat(first), columns=len(first[0])).save(arguments.picture)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps({"temperature": arguments.temperature, **right, "all": mean}, indent=2))


if __name__ == "__main__":
    main()
