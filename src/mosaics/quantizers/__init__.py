"""Quantizers: one published algorithm a file."""

from mosaics.quantizers.gumbel import GumbelQuantizer, GumbelQuantizerOutput, gumbel_softmax, kl_to_uniform
from mosaics.quantizers.kmeans import kmeans
from mosaics.quantizers.nearest import nearest_codes
from mosaics.quantizers.usage import code_statistics

__all__ = [
    "GumbelQuantizer",
    "GumbelQuantizerOutput",
    "code_statistics",
    "gumbel_softmax",
    "kl_to_uniform",
    "kmeans",
    "nearest_codes",
]
