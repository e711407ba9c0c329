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
from torch.utils.data import Dataset

from mosaics import VQVAE
from mosaics.models.vqvae import VQVAEOutput
from tokenizer_training import TokenizerArguments, train

TERMS = ("reconstruction_loss", "codebook_loss", "commitment_loss", "bits_per_dim", "perplexity", "codebook_usage")


@strict
@dataclass
class Arguments(TokenizerArguments):
    """What to train on, and the network."""

    model: dict[str, Any] | None = field(
        default=None, metadata={"help": "Fields of VQVAEConfig: a mapping in a recipe, JSON here."}
    )
    vqvae: str | None = field(default=None, metadata={"help": "Trained VQVAE to start from."})
    principal_images: int = field(
        default=0,
        metadata={"help": "Start as principal components and k-means of this many pictures; 0: random weights."},
    )
    decoder_only: bool = field(default=False, metadata={"help": "Leave the encoder and the codes as they start."})


def start(model: VQVAE, data: Dataset, arguments: Arguments) -> None:
    """The weights of a trained model, or the principal components of pictures that are always the same."""
    if arguments.vqvae is not None:
        model.load_state_dict(VQVAE.from_pretrained(arguments.vqvae, config=model.config).state_dict())
    elif arguments.principal_images:
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randperm(len(data), generator=generator)[: arguments.principal_images].tolist()
        model.initialize_from(torch.stack([data[index]["pixel_values"] for index in chosen]), generator)
    model.encoder.requires_grad_(not arguments.decoder_only)


def prepare_step(model: VQVAE, arguments: Arguments) -> None:
    """Keeps the codes as they are where only the decoder learns."""
    model.quantizer.train(not arguments.decoder_only)


def terms_of(output: VQVAEOutput) -> dict[str, torch.Tensor]:
    """Every term of the loss that the likelihood has, and the health of the codebook."""
    return {name: output[name] for name in TERMS if output.get(name) is not None}


if __name__ == "__main__":
    train(VQVAE, Arguments, terms_of, __doc__, start, prepare_step)
