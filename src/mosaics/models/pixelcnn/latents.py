r"""Several codes at each position of a grid: how the PixelCNN reads them, and predicts one after the other.

*Neural Discrete Representation Learning* (https://arxiv.org/abs/1711.00937), Section 4.1, has ten codes of one
codebook at each of 8 x 8 positions. The stacks see a position as the sum of its codes' vectors. What they make of the
positions before it meets the codes already drawn at the position only behind the last layer, so that all L codes of a
position cost one step of the stacks.
"""

import torch
import torch.nn.functional as F
from torch import nn

from mosaics.layers import CodeEmbedding
from mosaics.models.pixelcnn.configuration_pixelcnn import PixelCNNConfig


class LatentTable(nn.Module):
    """A vector for each code in each of the L places of a position, scaled so that a sum of L has unit variance."""

    def __init__(self, config: PixelCNNConfig):
        super().__init__()
        self.num_embeddings, self.num_latents = config.num_embeddings, config.latents_per_position
        self.codes = CodeEmbedding(self.num_latents * self.num_embeddings, config.hidden_size)

    def vectors(self, indices: torch.Tensor) -> torch.Tensor:
        """Codes (..., n), the first n <= L of each position, to (..., n, hidden_size)."""
        places = torch.arange(indices.shape[-1], device=indices.device) * self.num_embeddings
        return self.codes(indices + places) * self.num_latents**-0.5


class LatentEmbedding(LatentTable):
    """What the first layer sees of a position: the sum of the vectors of its codes."""

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        """(..., L) to (..., hidden_size)."""
        return self.vectors(indices).sum(dim=-2)


class EarlierLatents(LatentTable):
    r"""Adds to the features of a position what is known when its l-th code is drawn.

    h_l = h + place_l + sum_{m < l} E_m[z_m]
    """

    def __init__(self, config: PixelCNNConfig):
        super().__init__(config)
        self.places = nn.Embedding(self.num_latents, config.hidden_size)

    def forward(self, features: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) and all codes (B, h, w, L), to the features of each code, (B, C, h, w L)."""
        earlier = F.pad(self.vectors(indices[..., :-1]).cumsum(dim=-2), (0, 0, 1, 0))  # (B, h, w, L, C)
        known = (earlier + self.places.weight).movedim(-1, 1)
        return (features[..., None] + known).flatten(start_dim=3)

    def step(self, features: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """(B, C) and the first codes (B, n) of a position, to the features (B, C) of the next code."""
        return features + self.vectors(codes).sum(dim=-2) + self.places.weight[codes.shape[1]]
