"""Which codebook a prior was trained on: a name for it that survives a change of precision."""

import hashlib
from typing import Any

import numpy as np
import torch
from torch import nn

from mosaics.quantizers import FiniteScalarQuantizer, ProductQuantizer


def codebook_id(tokenizer: nn.Module) -> str:
    """A digest of the codebook of an image tokenizer, such as `"512x64-1f0a..."`.

    Two tokenizers of equal sizes give codes of the same range and different meaning; a prior that is joined with the
    wrong one draws noise. Only the signs of the codebook's numbers are hashed: rounding to half precision keeps every
    sign, so the digest is the same for a model saved or loaded in float32, float16 or bfloat16.

    A tokenizer with finite scalar quantization has no codebook: there the first weights of the decoder, which give
    the codes their meaning, are hashed.

    Args:
        tokenizer: A model with exactly one module that owns a parameter or buffer `codebook` of shape (K, D), with
            one `ProductQuantizer` of such modules, or with one `FiniteScalarQuantizer`.

    Raises:
        ValueError: There is no such module, or more than one.
    """
    scalar = [module for module in tokenizer.modules() if isinstance(module, FiniteScalarQuantizer)]
    products = [module for module in tokenizer.modules() if isinstance(module, ProductQuantizer)]
    codebooks = _codebooks(tokenizer)
    if len(products) == 1 and not scalar and len(codebooks) == len(products[0].parts):
        return _identity(tuple(codebooks[0].shape), torch.cat(codebooks))
    if len(codebooks) + len(scalar) != 1:
        raise ValueError(
            f"expected one codebook of shape (K, D) in {type(tokenizer).__name__}, found "
            f"{len(codebooks) + len(scalar)}: only image tokenizers with a single codebook have an identity."
        )
    if scalar:
        sizes = (scalar[0].num_embeddings, scalar[0].embedding_dim)
        return _identity(sizes, tokenizer.get_submodule("decoder.input").get_parameter("weight"))
    return _identity(tuple(codebooks[0].shape), codebooks[0])


def _codebooks(tokenizer: nn.Module) -> list[torch.Tensor]:
    return [
        module.codebook
        for module in tokenizer.modules()
        if isinstance(getattr(module, "codebook", None), torch.Tensor) and module.codebook.ndim == 2
    ]


def _identity(sizes: tuple[int, ...], weights: torch.Tensor) -> str:
    signs = np.packbits(torch.signbit(weights.detach()).cpu().numpy())
    return f"{sizes[0]}x{sizes[1]}-{hashlib.sha256(signs.tobytes()).hexdigest()[:16]}"


def level_codebook_ids(tokenizer: nn.Module) -> tuple[str, ...]:
    """The [`codebook_id`] of every level of a tokenizer, top first; a single one unless it is a VQ-VAE-2."""
    levels: Any = getattr(tokenizer, "levels", (tokenizer,))  # of a VQ-VAE-2, bottom first
    return tuple(codebook_id(owner) for owner in reversed(levels))
