"""Blocks with a name in the literature, shared by the models."""

from mosaics.layers.causal_conv import CausalConv1d
from mosaics.layers.embedding import CodeEmbedding
from mosaics.layers.gated_activation import gated_activation
from mosaics.layers.masked_conv import HorizontalConv2d, VerticalConv2d
from mosaics.layers.residual import ResidualBlock

__all__ = [
    "CausalConv1d",
    "CodeEmbedding",
    "HorizontalConv2d",
    "ResidualBlock",
    "VerticalConv2d",
    "gated_activation",
]
