"""Tiny instances of the real classes, shared by the tests."""

import torch

from mosaics.models.dvae import DiscreteVAE, DiscreteVAEConfig


def tiny_dvae(**fields) -> DiscreteVAE:
    """A discrete VAE of 16x16 pictures and 4x4 codes."""
    defaults = {
        "image_size": 16,
        "num_embeddings": 32,
        "codebook_dim": 8,
        "hidden_size": 16,
        "num_groups": 3,
        "residual_gain": 0.5,
    }
    torch.manual_seed(0)
    return DiscreteVAE(DiscreteVAEConfig(**(defaults | fields)))
