r"""What a lower level of VQ-VAE-2 knows of the levels above: their codes, embedded and brought to its own grid."""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import nn

from mosaics.layers import CodeEmbedding, ResidualBlock
from mosaics.models.pixelcnn.configuration_pixelcnn import PixelCNNConfig
from mosaics.models.sampling_request import check_codes


class UpperGridStack(nn.Sequential):
    r"""The codes of one upper grid as features on this level's grid.

    Embedding, residual blocks, then one transposed convolution for each doubling: the residual conditioning stack of
    *Generating Diverse High-Fidelity Images with VQ-VAE-2* (https://arxiv.org/abs/1906.00446), Appendix A.

    Shape:
        - Input: codes `(B, h / factor, w / factor)`.
        - Output: `(B, hidden_size, h, w)`.
    """

    def __init__(self, config: PixelCNNConfig, num_embeddings: int, factor: int):
        width = config.hidden_size
        blocks = [ResidualBlock(width, width, config.dropout) for _ in range(config.num_conditioning_blocks)]
        doublings = factor.bit_length() - 1
        upsampling = [nn.ConvTranspose2d(width, width, 4, stride=2, padding=1) for _ in range(doublings)]
        super().__init__(CodeEmbedding(num_embeddings, width), ChannelsFirst(), *blocks, *upsampling)


class ChannelsFirst(nn.Module):
    """(B, h, w, C) to (B, C, h, w)."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Moves the last dimension behind the first."""
        return features.movedim(-1, 1)


class ConditioningStack(nn.ModuleList):
    """The features of all upper grids, added: the location-dependent s = m(h) of Eq. 5 of the gated PixelCNN."""

    def __init__(self, config: PixelCNNConfig):
        super().__init__([UpperGridStack(config, size, factor) for size, factor in config.upper_grids])

    def forward(self, conditions: Sequence[torch.Tensor]) -> torch.Tensor:
        """Upper code grids, top first, to (B, hidden_size, h, w)."""
        return reduce(torch.add, [stack(codes) for stack, codes in zip(self, conditions, strict=True)])


def check_conditions(
    config: PixelCNNConfig, conditions: Sequence[torch.Tensor] | None, grid_size: tuple[int, int] | None
) -> tuple[int, int] | None:
    """Raises if the upper grids are not those of the config, or of another size than this level's grid needs.

    Args:
        config: Says which upper grids there are.
        conditions: The upper grids, each (batch, rows, columns), top first.
        grid_size: Rows and columns of this level's grid; what the first upper grid says if not given.

    Returns:
        Rows and columns of this level's grid; `None` if there are no upper grids and no size was given.
    """
    if not config.upper_grids:
        if conditions:
            raise ValueError(
                "conditions were given to a model without upper grids (config.condition_factors is None)."
            )
        return grid_size
    if isinstance(conditions, torch.Tensor) or conditions is None or len(conditions) != len(config.upper_grids):
        found = type(conditions).__name__ if isinstance(conditions, torch.Tensor) else len(conditions or ())
        raise ValueError(
            f"conditions must be a tuple of {len(config.upper_grids)} upper code grids, top first "
            f"(config.condition_factors={config.condition_factors}), got {found}."
        )
    for level, (codes, (num_embeddings, factor)) in enumerate(zip(conditions, config.upper_grids, strict=True)):
        if codes.dim() != 3:
            raise ValueError(f"conditions[{level}] must be of shape (batch, rows, columns), got {tuple(codes.shape)}.")
        size = (codes.shape[1] * factor, codes.shape[2] * factor)
        if grid_size is None:
            grid_size = size
        if size != grid_size:
            raise ValueError(
                f"conditions[{level}] has {codes.shape[1]} x {codes.shape[2]} codes, which belong to a grid of "
                f"{size[0]} x {size[1]} (config.condition_factors={config.condition_factors}), not of "
                f"{grid_size[0]} x {grid_size[1]}."
            )
        check_codes(f"conditions[{level}]", codes, num_embeddings, f"condition_num_embeddings[{level}]")
    return grid_size
