"""The layer of the gated PixelCNN (Figure 2 of https://arxiv.org/abs/1606.05328), with or without attention."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from mosaics.layers import HorizontalConv2d, VerticalConv2d, gated_activation
from mosaics.models.pixelcnn.configuration_pixelcnn import PixelCNNConfig


class PixelAttention(nn.Module):
    r"""Multi-head self-attention of each position to itself and the earlier ones, as in PixelSNAIL and VQ-VAE-2.

    *PixelSNAIL*, Chen et al. 2018 (https://arxiv.org/abs/1712.09763). Features of the horizontal stack at a position
    depend on the codes before it only, so that attention may look at the position itself. Rows and columns have
    vectors, for attention to know where it is.
    """

    def __init__(self, config: PixelCNNConfig):
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.rows = nn.Embedding(config.grid_height, config.hidden_size)
        self.columns = nn.Embedding(config.grid_width, config.hidden_size)
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    def position_table(self) -> torch.Tensor:
        """(h * w, hidden_size): row plus column vector of each raster position."""
        return (self.rows.weight[:, None] + self.columns.weight[None, :]).flatten(end_dim=1)

    def split_heads(self, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, n, 3 * hidden_size) to queries, keys and values (B, heads, n, head_size)."""
        qkv = qkv.unflatten(2, (3, self.config.num_attention_heads, self.config.head_size))
        query, key, value = qkv.transpose(1, 3).unbind(dim=2)
        return query, key, value

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, hidden_size, h, w) to what is added to it."""
        sequence = features.flatten(start_dim=2).transpose(1, 2)  # (B, h * w, hidden_size)
        query, key, value = self.split_heads(self.qkv(self.norm(sequence) + self.position_table()))
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        attended = self.output(attended.transpose(1, 2).flatten(start_dim=2))
        return attended.transpose(1, 2).unflatten(2, features.shape[2:])


class GatedPixelLayer(GradientCheckpointingLayer):
    r"""A vertical convolution, a horizontal one that also reads the vertical one, and a gate for each.

    With f and g the halves of the channels, h the class and s the condition (Eqs. 2, 4 and 5 of the paper):

        y = tanh(W_f * x + V_f h + U_f * s) sigmoid(W_g * x + V_g h + U_g * s)

    Features of the vertical stack in row i depend on the codes of the rows above, those of the horizontal stack at
    (i, j) on these and on the codes to the left. Only the horizontal stack has a residual connection, and none in the
    first layer, where the input is the code itself.

    Args:
        config: Sizes.
        layer_index: 0 is the first layer, with mask A.
    """

    def __init__(self, config: PixelCNNConfig, layer_index: int):
        super().__init__()
        width = config.hidden_size
        self.is_first = layer_index == 0
        kernel_size, mask_type = (config.first_kernel_size, "A") if self.is_first else (config.kernel_size, "B")
        self.vertical_conv = VerticalConv2d(width, 2 * width, kernel_size, mask_type)
        self.horizontal_conv = HorizontalConv2d(width, 2 * width, kernel_size, mask_type)
        self.vertical_to_horizontal = nn.Conv2d(2 * width, 2 * width, 1)
        self.output = nn.Conv2d(width, width, 1)
        # What class and condition add to the gates of both stacks: 2 * width channels for each.
        self.class_bias = None if config.num_classes is None else nn.Embedding(config.num_classes, 4 * width)
        self.condition_bias = nn.Conv2d(width, 4 * width, 1, bias=False) if config.upper_grids else None
        self.dropout = nn.Dropout(config.dropout)
        self.attention = PixelAttention(config) if layer_index in config.attention_layers else None

    def forward(
        self,
        vertical: torch.Tensor,
        horizontal: torch.Tensor,
        class_labels: torch.Tensor | None,
        condition: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Both stacks, each (B, hidden_size, h, w); class labels (B,); the condition (B, hidden_size, h, w)."""
        vertical_gate, horizontal_gate = self.vertical_conv(vertical), self.horizontal_conv(horizontal)
        if self.class_bias is not None:
            of_vertical, of_horizontal = self.class_bias(class_labels)[:, :, None, None].chunk(2, dim=1)
            vertical_gate, horizontal_gate = vertical_gate + of_vertical, horizontal_gate + of_horizontal
        if self.condition_bias is not None:
            of_vertical, of_horizontal = self.condition_bias(condition).chunk(2, dim=1)
            vertical_gate, horizontal_gate = vertical_gate + of_vertical, horizontal_gate + of_horizontal
        horizontal_gate = horizontal_gate + self.vertical_to_horizontal(vertical_gate)
        branch = self.output(self.dropout(gated_activation(horizontal_gate)))
        horizontal = branch if self.is_first else horizontal + branch
        if self.attention is not None:
            horizontal = horizontal + self.dropout(self.attention(horizontal))
        return gated_activation(vertical_gate), horizontal
