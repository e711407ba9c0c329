#!/usr/bin/env python
"""Trains a VQ-VAE of sound: waveforms to sequences of codes and back (stage 1).

    accelerate launch examples/train_audio_vqvae.py --dataset my/sounds --length 16384 --output_dir outputs/audio-vqvae

The folder holds wav files (FLAC and Ogg too, with `pip install mosaics[sound]`) of one sampling rate, that of the
model: 16,000 samples a second, or what `--model '{"sampling_rate": 22050}'` says.
*Neural Discrete Representation Learning* (https://arxiv.org/abs/1711.00937), Section 4.3.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from transformers import set_seed

from mosaics import AudioVQVAE, AudioVQVAEConfig
from mosaics.data import SoundFolder, write_sound
from mosaics.training import TrainingConfig, TrainingRun, config_from_settings, parse_arguments

TERMS = ("reconstruction_loss", "codebook_loss", "commitment_loss", "bits_per_dim", "perplexity", "codebook_usage")
NUM_SOUNDS = 4


@strict
@dataclass
class Arguments:
    """What to train on, and the network."""

    dataset: str = field(metadata={"help": "Folder of sounds, at any depth; the first sub-folders are classes."})
    length: int = field(
        default=16_384, metadata={"help": "Samples of a training crop; a multiple of 2**num_downsamples."}
    )
    num_crops: int | None = field(
        default=None, metadata={"help": "Crops in an epoch; as many as fit into the sounds if not given."}
    )
    max_bad: float = field(default=0.01, metadata={"help": "Share of files that may be unusable or too short."})
    eval_split: str | None = field(default=None, metadata={"help": "Sub-folder of --dataset to evaluate on."})
    num_eval_samples: int = field(default=64, metadata={"help": "Held-out crops to evaluate on, at most."})
    model: dict[str, Any] | None = field(
        default=None, metadata={"help": "Fields of AudioVQVAEConfig: a mapping in a recipe, JSON here."}
    )


def load_data(
    arguments: Arguments, config: TrainingConfig, model_config: AudioVQVAEConfig
) -> tuple[SoundFolder, SoundFolder | None]:
    """Crops to train on, and held-out ones if there is a folder of them."""
    if arguments.length % model_config.downsample_factor:
        raise SystemExit(
            f"train_audio_vqvae.py: error: --length {arguments.length} must be a multiple of "
            f"{model_config.downsample_factor}, the samples of a code."
        )
    sizes = (arguments.dataset, arguments.length, model_config.sampling_rate)
    rest = {"seed": config.seed, "max_bad": arguments.max_bad, "skipped_path": f"{config.output_dir}/skipped.jsonl"}
    train = SoundFolder(*sizes, num_crops=arguments.num_crops, **rest)
    if arguments.eval_split is None:
        return train, None
    return train, SoundFolder(*sizes, split=arguments.eval_split, num_crops=arguments.num_eval_samples, **rest)


def terms_of(output) -> dict[str, torch.Tensor]:
    """Every term of the loss, and the health of the codebook."""
    return {name: output[name] for name in TERMS}


@torch.no_grad()
def evaluate(run: TrainingRun) -> None:
    """Held-out crops: the terms of the loss, the signal-to-noise ratio in dB, and sounds before and after."""
    for batch in run.evaluate_batches():
        waveform = batch["waveform"][:, None]
        output = run.model(waveform)
        noise = (output.reconstruction - waveform).square().mean(dim=(1, 2))
        ratio = waveform.square().mean(dim=(1, 2)) / noise.clamp(min=1e-12)
        run.log_evaluation({**terms_of(output), "snr": 10 * ratio.clamp(min=1e-12).log10().mean()})
    if not run.is_main_process:
        return
    for name, waveforms in (("original", waveform), ("reconstruction", output.reconstruction)):
        for number, sound in enumerate(waveforms[:NUM_SOUNDS]):
            path = run.output_dir / "sounds" / f"{name}-{run.step:08d}-{number}.wav"
            write_sound(path, sound, run.unwrapped_model.config.sampling_rate)


def main() -> None:
    arguments, config = parse_arguments(Arguments, TrainingConfig, description=__doc__)
    set_seed(config.seed)
    model = AudioVQVAE(config_from_settings(AudioVQVAEConfig, arguments.model))
    train_data, eval_data = load_data(arguments, config, model.config)
    run = TrainingRun(config, model, train_data, eval_data, script_arguments=arguments)
    for batch in run:
        output = run.model(batch["waveform"])
        run.optimize(output.loss, log=terms_of(output))
        if run.should_evaluate and eval_data is not None:
            evaluate(run)


if __name__ == "__main__":
    main()
