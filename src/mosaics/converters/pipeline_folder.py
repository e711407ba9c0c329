"""What makes converted parts a `DallePipeline`: codes that fit, and the files beside the models."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from mosaics.converters.errors import KeyMismatchError
from mosaics.models.codebook_identity import codebook_id


def id_of_codebook(codebook: torch.Tensor) -> str:
    """The [`codebook_id`][mosaics.models.codebook_identity.codebook_id] of a codebook (K, D) alone."""
    holder = nn.Module()
    holder.codebook = codebook
    return codebook_id(holder)


def check_codes(transformer: Any, transformer_name: str, image_tokenizer: Any, tokenizer_name: str) -> None:
    """Compares the codes that a transformer draws with those of an image tokenizer.

    Args:
        transformer: Config of the transformer.
        transformer_name: What to call it: its file's name.
        image_tokenizer: Config of the image tokenizer.
        tokenizer_name: What to call that.

    Raises:
        KeyMismatchError: Their number or their grid differs.
    """
    if (transformer.image_vocab_size, transformer.image_grid_size) != (
        image_tokenizer.num_embeddings,
        image_tokenizer.grid_size,
    ):
        drawn, read = transformer.image_grid_size, image_tokenizer.grid_size
        raise KeyMismatchError(
            f"{transformer_name} draws {drawn} x {drawn} codes of {transformer.image_vocab_size}; {tokenizer_name} "
            f"has {read} x {read} of {image_tokenizer.num_embeddings} (pictures of {image_tokenizer.image_size} "
            "pixels): they do not belong together."
        )


def use_of_pipeline(prompt: str = "a lion on a blue background") -> str:
    """Lines of Python for the card that draw a picture; there is no CLIP to choose among several."""
    return (
        "from mosaics import DallePipeline\n\n"
        'pipe = DallePipeline.from_pretrained(".")\n'
        f'pipe("{prompt}", seed=0).images[0].save("picture.png")'
    )


def write_dalle_pipeline(
    folder: Path, tokenizer: PreTrainedTokenizerBase, image_tokenizer: str, transformer: str = "DalleTransformer"
) -> None:
    """Writes the tokenizer, model_index.json, and the config.json that transformers looks for.

    Args:
        folder: Holds `transformer` and `dvae`.
        tokenizer: The text tokenizer.
        image_tokenizer: Name of the class of `dvae`.
        transformer: Name of the class of `transformer`.
    """
    import diffusers  # here, because it imports a good part of transformers

    tokenizer.save_pretrained(folder / "tokenizer")
    index = {
        "_class_name": "DallePipeline",
        "_diffusers_version": diffusers.__version__,
        "clip": [None, None],
        "clip_processor": [None, None],
        "dvae": ["mosaics", image_tokenizer],
        "guidance_scale": 1.0,
        "temperature": 1.0,
        "tokenizer": ["transformers", type(tokenizer).__name__],
        "transformer": ["mosaics", transformer],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    config = {"model_type": "mosaics_dalle_pipeline"}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
