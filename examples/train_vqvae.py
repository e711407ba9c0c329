#!/usr/bin/env python
"""Trains a VQ-VAE: pictures to grids of codes and back (stage 1).

    accelerate launch examples/train_vqvae.py                                   # the emoji scenes
    accelerate launch examples/train_vqvae.py --dataset path/or/hub-id --image_size 128 --output_dir outputs/my-vqvae

*Neural Discrete Representation Learning* (https://arxiv.org/abs/1711.00937).
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from transformers import set_seed

from emoji.scenes import EmojiScenes
from mosaics import VQVAE, DiscreteVAEImageProcessor, VQVAEConfig
from mosaics.data import load_eval_data, load_train_data
from mosaics.training import TrainingConfig, TrainingRun, config_from_settings, parse_arguments

TERMS = ("reconstruction_loss", "codebook_loss", "commitment_loss", "bits_per_dim", "perplexity", "codebook_usage")


@strict
@dataclass
class Arguments:
    """What to train on, and the network."""

    dataset: str = field(
        default="emoji", metadata={"help": '"emoji", or an image folder, parquet file, webdataset or Hub data set.'}
    )
    dataset_options: dict[str, Any] | None = field(
        default=None, metadata={"help": "More arguments of EmojiScenes or load_captioned_images, as JSON."}
    )
    image_size: int = field(default=64, metadata={"help": "Side of the square training pictures in pixels."})
    eval_split: str | None = field(
        default=None, metadata={"help": 'Split of --dataset to evaluate on; "test" of a named data set if not given.'}
    )
    num_eval_samples: int = field(default=512, metadata={"help": "Held-out samples to evaluate on, at most."})
    model: dict[str, Any] | None = field(
        default=None, metadata={"help": "Fields of VQVAEConfig: a mapping in a recipe, JSON here."}
    )


def terms_of(output) -> dict[str, torch.Tensor]:
    """Every term of the loss that the likelihood has, and the health of the codebook."""
    return {name: output[name] for name in TERMS if output.get(name) is not None}


@torch.no_grad()
def evaluate(run: TrainingRun) -> None:
    """Held-out pictures: the terms of the loss, PSNR in dB, and a grid of reconstructions."""
    for batch in run.evaluate_batches():
        pixels = batch["pixel_values"]
        output = run.model(pixels)
        squared_error = (output.reconstruction - pixels).square().mean(dim=(1, 2, 3))
        run.log_evaluation({**terms_of(output), "psnr": -10 * squared_error.log10().mean()})
    run.log_images("reconstructions", torch.cat([pixels[:8], output.reconstruction[:8]]), columns=8)


def main() -> None:
    arguments, config = parse_arguments(Arguments, TrainingConfig, description=__doc__)
    set_seed(config.seed)
    size = arguments.image_size
    model = VQVAE(config_from_settings(VQVAEConfig, arguments.model, image_size=size))
    model.to(memory_format=torch.channels_last)  # the faster layout of convolutions, on CPU and GPU
    processor = DiscreteVAEImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    source = (arguments.dataset, size, arguments.dataset_options, {"emoji": EmojiScenes})
    train_data = load_train_data(*source)
    eval_data = load_eval_data(*source, split=arguments.eval_split, num_samples=arguments.num_eval_samples)
    run = TrainingRun(config, model, train_data, eval_data, processing_class=processor, script_arguments=arguments)
    for batch in run:
        output = run.model(batch["pixel_values"].contiguous(memory_format=torch.channels_last))
        run.optimize(output.loss, log=terms_of(output))
        if run.should_evaluate:
            evaluate(run)


if __name__ == "__main__":
    main()
