"""Between encoder and decoder of a VQGAN: features to codes, and codes to what the decoder reads."""

import torch
from torch import nn

from mosaics.models.vqgan.configuration_vqgan import VQGANConfig
from mosaics.quantizers import GumbelQuantizer, NormalizedVectorQuantizer, VectorQuantizer


class VectorBottleneck(nn.Module):
    """The code nearest to a 1x1 convolution of the features; another 1x1 convolution of the code vector goes on."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        self.quant_conv = nn.Conv2d(config.latent_channels, config.embedding_dim, 1)
        self.quantizer = VectorQuantizer(config.num_embeddings, config.embedding_dim)
        self.post_quant_conv = nn.Conv2d(config.embedding_dim, config.latent_channels, 1)

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """`(B, latent_channels, h, w)` to codes `(B, h, w)`."""
        return self.quantizer.encode(self.quant_conv(features))

    def lookup(self, indices: torch.Tensor) -> torch.Tensor:
        """Codes `(B, h, w)` to `(B, latent_channels, h, w)`."""
        return self.post_quant_conv(self.quantizer.lookup(indices))


class GumbelBottleneck(nn.Module):
    """The code of the largest logit: the mode of the distribution that training samples from."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        self.quant_conv = nn.Conv2d(config.latent_channels, config.embedding_dim, 1)
        self.to_logits = nn.Conv2d(config.embedding_dim, config.num_embeddings, 1)
        self.quantizer = GumbelQuantizer(config.num_embeddings, config.embedding_dim)
        self.post_quant_conv = nn.Conv2d(config.embedding_dim, config.latent_channels, 1)

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """`(B, latent_channels, h, w)` to codes `(B, h, w)`."""
        return self.to_logits(self.quant_conv(features)).argmax(dim=1)

    def lookup(self, indices: torch.Tensor) -> torch.Tensor:
        """Codes `(B, h, w)` to `(B, latent_channels, h, w)`."""
        return self.post_quant_conv(self.quantizer.lookup(indices))


def build_bottleneck(config: VQGANConfig) -> VectorBottleneck | GumbelBottleneck | NormalizedVectorQuantizer:
    """The module of `config.quantizer`, with `encode` and `lookup`."""
    if config.quantizer == "vector":
        return VectorBottleneck(config)
    if config.quantizer == "gumbel":
        return GumbelBottleneck(config)
    return NormalizedVectorQuantizer(config.num_embeddings, config.latent_channels, code_dim=config.embedding_dim)
