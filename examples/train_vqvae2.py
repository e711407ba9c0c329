#!/usr/bin/env python
"""Trains a VQ-VAE-2: pictures to grids of codes at two or more resolutions and back (stage 1).

    accelerate launch examples/train_vqvae2.py                                  # the emoji scenes
    accelerate launch examples/train_vqvae2.py --dataset path/or/hub-id --image_size 256 --output_dir outputs/my-vqvae2

*Generating Diverse High-Fidelity Images with VQ-VAE-2* (https://arxiv.org/abs/1906.00446).
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from transformers import set_seed

from emoji.scenes import EmojiScenes
from mosaics import VQVAE2, DiscreteVAEImageProcessor, VQVAE2Config
from mosaics.data import load_eval_data, load_train_data
from mosaics.training import TrainingConfig, TrainingRun, config_from_settings, parse_arguments


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
        default=None, metadata={"help": "Fields of VQVAE2Config: a mapping in a recipe, JSON here."}
    )


def terms_of(output) -> dict[str, torch.Tensor]:
    """The terms of the loss, and the health of each codebook, level 0 the top."""
    terms = {name: output[name] for name in ("reconstruction_loss", "commitment_loss")}
    for level, (perplexity, usage) in enumerate(zip(output.perplexity, output.codebook_usage, strict=True)):
        terms |= {f"perplexity_{level}": perplexity, f"codebook_usage_{level}": usage}
    return terms


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
    model = VQVAE2(config_from_settings(VQVAE2Config, arguments.model, image_size=size))
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
