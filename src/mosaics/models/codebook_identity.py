"""Which codebook a prior was trained on: a name for it that survives a change of precision."""

import hashlib
from typing import Any

import numpy as np
import torch
from torch import nn


def codebook_id(tokenizer: nn.Module) -> str:
    """A digest of the codebook of an image tokenizer, such as `"512x64-1f0a..."`.

    Two tokenizers of equal sizes give codes of the same range and different meaning; a prior that is joined with the
    wrong one draws noise. Only the signs of the codebook's numbers are hashed: rounding to half precision keeps every
    sign, so the digest is the same for a model saved or loaded in float32, float16 or bfloat16.

    Args:
        tokenizer: A model with exactly one module that owns a parameter or buffer `codebook` of shape (K, D).

    Raises:
        ValueError: There is no such module, or more than one.
    """
    codebooks = [
        module.codebook
        for module in tokenizer.modules()
        if isinstance(getattr(module, "codebook", None), torch.Tensor) and module.codebook.ndim == 2
    ]
    if len(codebooks) != 1:
        raise ValueError(
            f"expected one codebook of shape (K, D) in {type(tokenizer).__name__}, found {len(codebooks)}: only image "
            "tokenizers with a single codebook have an identity."
        )
    codebook = codebooks[0].detach()
    signs = np.packbits(torch.signbit(codebook).cpu().numpy())
    return f"{codebook.shape[0]}x{codebook.shape[1]}-{hashlib.sha256(signs.tobytes()).hexdigest()[:16]}"


def level_codebook_ids(tokenizer: nn.Module) -> tuple[str, ...]:
    """The [`codebook_id`] of every level of a tokenizer, top first; a single one unless it is a VQ-VAE-2."""
    levels: Any = getattr(tokenizer, "levels", (tokenizer,))  # of a VQ-VAE-2, bottom first
    return tuple(codebook_id(owner) for owner in reversed(levels))
