#!/usr/bin/env python
"""Trains a WaveNet on sequences of codes: the prior of an audio VQ-VAE (stage 2).

    accelerate launch examples/train_wavenet.py --codes outputs/codes
    accelerate launch examples/train_wavenet.py --codes outputs/codes --crop_length 2048 --vqvae outputs/audio-vqvae

If the codes have class labels, such as speakers, it is conditioned on them. With `--vqvae` samples of every evaluation
are saved as wav files. A grid of codes (h, w) is read as a sequence of h * w codes in raster order.
*WaveNet: A Generative Model for Raw Audio* (https://arxiv.org/abs/1609.03499).
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from transformers import set_seed

from mosaics import AudioVQVAE, WaveNet, WaveNetConfig
from mosaics.data import PriorCodes, PriorCodesArguments, write_sound
from mosaics.models.codebook_identity import level_codebook_ids
from mosaics.training import TrainingConfig, TrainingRun, config_from_settings, parse_arguments

NUM_SOUNDS = 4


@strict
@dataclass
class Arguments(PriorCodesArguments):
    """The codes, the tokenizer that made them, and the network."""

    crop_length: int | None = field(
        default=None,
        metadata={"help": "Train on random stretches of this many codes; on whole sequences if not given."},
    )
    vqvae: str | None = field(
        default=None, metadata={"help": "The AudioVQVAE that made the codes; writes sounds at every evaluation."}
    )
    model: dict[str, Any] | None = field(
        default=None, metadata={"help": "Fields of WaveNetConfig: a mapping in a recipe, JSON here."}
    )

    def __post_init__(self) -> None:
        if self.crop_length is not None and self.crop_length < 1:
            raise ValueError(f"crop_length must be at least 1, got {self.crop_length}.")


def config_for(arguments: Arguments, data: PriorCodes) -> WaveNetConfig:
    """The configuration whose sizes are those of the codes; the level right above is the slower sequence."""
    grid, above = data.grid, data.upper_grids[-1] if data.upper_grids else None
    if above is not None and (len(above.size) != 1 or grid.num_codes % above.num_codes):
        raise SystemExit(
            f"train_wavenet.py: error: level {arguments.level} of {arguments.codes} has {grid.size} codes and the one "
            f"above {above.size}; a WaveNet is conditioned on sequences that divide its own: see train_pixelcnn.py."
        )
    config = config_from_settings(
        WaveNetConfig,
        arguments.model,
        num_embeddings=grid.num_embeddings,
        num_classes=data.num_classes,
        condition_num_embeddings=None if above is None else above.num_embeddings,
        condition_factor=None if above is None else grid.num_codes // above.num_codes,
        codebook_id=grid.codebook_id,
    )
    if data.class_names is not None:
        config.id2label = dict(enumerate(data.class_names))  # saved with the model
    return config


def inputs(batch: dict, factor: int | None, length: int | None = None) -> dict[str, torch.Tensor | None]:
    """What WaveNet reads; of at least `length` codes a random stretch, the same one for the whole batch."""
    indices, above = batch["indices"].flatten(1), batch["conditions"][-1] if factor is not None else None
    if length is not None and length < indices.shape[1]:
        factor = factor or 1
        blocks = -(-length // factor)  # whole codes of the slower sequence
        start = int(torch.randint(indices.shape[1] // factor - blocks + 1, ()))
        indices = indices[:, start * factor : (start + blocks) * factor]
        above = None if above is None else above[:, start : start + blocks]
    return {"indices": indices, "class_labels": batch.get("class_labels"), "conditions": above}


@torch.no_grad()
def evaluate(run: TrainingRun, vqvae: AudioVQVAE | None) -> None:
    """Bits per code of whole held-out sequences, and sounds of as many codes."""
    model, config = run.unwrapped_model, run.unwrapped_model.config
    for batch in run.evaluate_batches():
        output = run.model(**inputs(batch, config.condition_factor))
        run.log_evaluation({"loss": output.loss, "bits_per_code": output.loss / math.log(2)})
    if vqvae is None or not run.is_main_process:
        return
    labels = None if config.num_classes is None else torch.arange(NUM_SOUNDS) % config.num_classes
    with run.averaged_weights():
        codes = model.eval().generate(NUM_SOUNDS, output.logits.shape[2], class_labels=labels, seed=run.config.seed)
        model.train()
    for number, waveform in enumerate(vqvae.decode(codes)):
        path = run.output_dir / "sounds" / f"samples-{run.step:08d}-{number}.wav"
        write_sound(path, waveform, vqvae.config.sampling_rate)


def main() -> None:
    arguments, config = parse_arguments(Arguments, TrainingConfig, description=__doc__)
    set_seed(config.seed)
    vqvae = None
    if arguments.vqvae is not None:
        vqvae = AudioVQVAE.from_pretrained(arguments.vqvae).eval().requires_grad_(False)
    train_data, eval_data = arguments.load(None if vqvae is None else level_codebook_ids(vqvae))
    model = WaveNet(config_for(arguments, train_data))
    run = TrainingRun(config, model, train_data, eval_data, script_arguments=arguments)
    if vqvae is not None:
        vqvae.to(run.device)
    for batch in run:
        output = run.model(**inputs(batch, model.config.condition_factor, arguments.crop_length))
        run.optimize(output.loss, log={"bits_per_code": output.loss.detach() / math.log(2)})
        if run.should_evaluate:
            evaluate(run, vqvae)


if __name__ == "__main__":
    main()
