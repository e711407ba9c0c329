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

from mosaics import VQVAE2
from mosaics.models.vqvae2 import VQVAE2Output
from tokenizer_training import TokenizerArguments, train


@strict
@dataclass
class Arguments(TokenizerArguments):
    """What to train on, and the network."""

    model: dict[str, Any] | None = field(
        default=None, metadata={"help": "Fields of VQVAE2Config: a mapping in a recipe, JSON here."}
    )


def terms_of(output: VQVAE2Output) -> dict[str, torch.Tensor]:
    """The terms of the loss, and the health of each codebook, level 0 the top."""
    terms = {name: output[name] for name in ("reconstruction_loss", "commitment_loss")}
    for level, (perplexity, usage) in enumerate(zip(output.perplexity, output.codebook_usage, strict=True)):
        terms |= {f"perplexity_{level}": perplexity, f"codebook_usage_{level}": usage}
    return terms


if __name__ == "__main__":
    train(VQVAE2, Arguments, terms_of, __doc__)
