r"""Which earlier tokens a token sees in DALLE-pytorch.

The names are the project's; the patterns are not those of the paper, nor of `mosaics.models.dalle.attention_patterns`.
The stream is a start token and T text tokens, "the text", and then a grid of image tokens in raster order. Text is
causal to text, and an image token sees all of the text, itself, and of the earlier image tokens

    full       all of them
    axial_row  those of its own row
    axial_col  those of its own column
    conv_like  those up to k - 1 rows above and up to k - 1 columns to the left, the picture's edges kept
"""

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from mosaics.models.dalle.dalle_pytorch.configuration_dalle_pytorch import DallePytorchTransformerConfig

ATTENTION_TYPES = ("full", "axial_row", "axial_col", "conv_like")


def sees(
    kind: str, query: torch.Tensor, key: torch.Tensor, *, text_length: int, grid_size: int, kernel_size: int
) -> torch.Tensor:
    """Whether the token at stream position `query` sees the one at `key`; it broadcasts.

    Args:
        kind: One of `ATTENTION_TYPES`.
        query: Positions in the stream.
        key: Positions in the stream.
        text_length: Positions before the image: the start token and the text.
        grid_size: Columns of the grid.
        kernel_size: Side of the window of `"conv_like"`.
    """
    causal = key <= query
    if kind == "full":
        return causal
    rows = (query - text_length) // grid_size - (key - text_length) // grid_size
    columns = (query - text_length) % grid_size - (key - text_length) % grid_size
    if kind == "axial_row":
        near = rows == 0
    elif kind == "axial_col":
        near = columns == 0
    else:
        near = (rows < kernel_size) & (columns >= 0) & (columns < kernel_size)
    return causal & (near | (key < text_length))


def stream_masks(
    config: "DallePytorchTransformerConfig", query: torch.Tensor, key: torch.Tensor
) -> dict[str, torch.Tensor]:
    """For each attention type of a model, whether the tokens at `query` see those at `key`; see [`sees`]."""
    return {
        kind: sees(
            kind,
            query,
            key,
            text_length=config.text_length,
            grid_size=config.image_grid_size,
            kernel_size=config.conv_kernel_size,
        )
        for kind in set(config.layer_attention_types)
    }
