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


def terms_of(output: VQVAEOutput) -> dict[str, torch.Tensor]:
    """Every term of the loss that the likelihood has, and the health of the codebook."""
    return {name: output[name] for name in TERMS if output.get(name) is not None}


if __name__ == "__main__":
    train(VQVAE, Arguments, terms_of, __doc__)
