"""Embedding of codes."""

from torch import nn


class CodeEmbedding(nn.Embedding):
    """Vectors of codes that feed a convolution. A class of its own, so that a model can give it unit variance."""
