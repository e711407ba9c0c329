"""Quantizers: one published algorithm a file."""

from mosaics.quantizers.ema import EMAVectorQuantizer
from mosaics.quantizers.fsq import FiniteScalarQuantizer
from mosaics.quantizers.gradient_estimators import GRADIENT_ESTIMATORS, straight_through
from mosaics.quantizers.gumbel import GumbelQuantizer, GumbelQuantizerOutput, gumbel_softmax, kl_to_uniform
from mosaics.quantizers.kmeans import kmeans
from mosaics.quantizers.nearest import nearest_codes
from mosaics.quantizers.normalized import NormalizedVectorQuantizer
from mosaics.quantizers.output import QuantizerOutput
from mosaics.quantizers.product import ProductQuantizer
from mosaics.quantizers.rotation import rotation_trick
from mosaics.quantizers.usage import code_statistics
from mosaics.quantizers.vector import VectorQuantizer

__all__ = [
    "GRADIENT_ESTIMATORS",
    "EMAVectorQuantizer",
    "FiniteScalarQuantizer",
    "GumbelQuantizer",
    "GumbelQuantizerOutput",
    "NormalizedVectorQuantizer",
    "ProductQuantizer",
    "QuantizerOutput",
    "VectorQuantizer",
    "code_statistics",
    "gumbel_softmax",
    "kl_to_uniform",
    "kmeans",
    "nearest_codes",
    "rotation_trick",
    "straight_through",
]
