"""Stage 1: what tokenizers are trained on, and the training that `train_vqvae.py` and `train_vqvae2.py` share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from transformers import set_seed

from emoji.scenes import EmojiScenes
from mosaics import VQVAE, VQVAE2, DiscreteVAEImageProcessor
from mosaics.data import load_eval_data, load_train_data
from mosaics.training import TrainingConfig, TrainingRun, config_from_settings, parse_arguments

Terms = Callable[[Any], dict[str, torch.Tensor]]


@strict
@dataclass
class TokenizerArguments:
    """What to train a tokenizer on, as arguments; the network's follow in the script's own class."""

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


@torch.no_grad()
def evaluate(run: TrainingRun, terms_of: Terms) -> None:
    """Held-out pictures: the terms of the loss, PSNR in dB, and a grid of reconstructions."""
    for batch in run.evaluate_batches():
        pixels = batch["pixel_values"]
        output = run.model(pixels)
        squared_error = (output.reconstruction - pixels).square().mean(dim=(1, 2, 3))
        run.log_evaluation({**terms_of(output), "psnr": -10 * squared_error.log10().mean()})
    run.log_images("reconstructions", torch.cat([pixels[:8], output.reconstruction[:8]]), columns=8)


def train(
    model_class: type[VQVAE] | type[VQVAE2],
    arguments_class: type[TokenizerArguments],
    terms_of: Terms,
    description: str | None,
    start: Callable[[Any, Any, Any], None] | None = None,
    prepare_step: Callable[[Any, Any], None] | None = None,
) -> None:
    """Trains a tokenizer as the command line says.

    Args:
        model_class: The model.
        arguments_class: The script's arguments, with `model`, the fields of the model's configuration.
        terms_of: What of its output is logged.
        description: The script's docstring, for `--help`.
        start: Gives the new model its first weights, from the training data and the arguments.
        prepare_step: Called with the model and the arguments before every step.
    """
    arguments, config = parse_arguments(arguments_class, TrainingConfig, description=description)
    set_seed(config.seed)
    size = arguments.image_size
    model = model_class(config_from_settings(model_class.config_class, arguments.model, image_size=size))
    model.to(memory_format=torch.channels_last)  # the faster layout of convolutions, on CPU and GPU
    processor = DiscreteVAEImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    source = (arguments.dataset, size, arguments.dataset_options, {"emoji": EmojiScenes})
    train_data = load_train_data(*source)
    eval_data = load_eval_data(*source, split=arguments.eval_split, num_samples=arguments.num_eval_samples)
    if start is not None:
        start(model, train_data, arguments)
    run = TrainingRun(config, model, train_data, eval_data, processing_class=processor, script_arguments=arguments)
    for batch in run:
        if prepare_step is not None:
            prepare_step(run.unwrapped_model, arguments)
        output = run.model(batch["pixel_values"].contiguous(memory_format=torch.channels_last))
        run.optimize(output.loss, log=terms_of(output))
        if run.should_evaluate:
            evaluate(run, terms_of)
