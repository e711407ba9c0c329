"""The layers of the DALL-E transformer: attention, feed-forward, and the embeddings of text and image tokens."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mosaics.models.dalle.configuration_dalle import DalleTransformerConfig


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention in three lines, softmax in float32. `attention_mask` is added to the scores (B, H, S, S)."""
    scores = query @ key.transpose(-1, -2)
    weights = torch.add(attention_mask, scores, alpha=scaling).softmax(dim=-1, dtype=torch.float32)
    weights = F.dropout(weights.to(value.dtype), p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2), weights


class ResidualProjection(nn.Linear):
    """The linear layer that ends a residual branch: initialised smaller, by 1 / sqrt(2 layers), as in GPT-2."""


class DalleAttention(nn.Module):
    """Multi-head self-attention under one of the patterns, queries and keys normalised per head if `qk_norm`."""

    def __init__(self, config: DalleTransformerConfig, layer_index: int):
        super().__init__()
        self.config = config
        self.pattern = config.layer_patterns[layer_index]
        self.is_causal = True  # what sdpa does when it is given no mask, that is, in "full" layers
        self.scaling = config.head_size**-0.5
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = ResidualProjection(config.hidden_size, config.hidden_size)
        norm = nn.LayerNorm if config.qk_norm else nn.Identity
        self.query_norm = norm(config.head_size, eps=config.layer_norm_eps, bias=False)
        self.key_norm = norm(config.head_size, eps=config.layer_norm_eps, bias=False)

    def project(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, S, hidden_size) to queries, keys and values of shape (B, heads, S, head_size)."""
        batch, length, _ = hidden_states.shape
        qkv = self.qkv(hidden_states).view(batch, length, 3, self.config.num_attention_heads, self.config.head_size)
        query, key, value = qkv.unbind(dim=2)
        query = self.query_norm(query).to(value.dtype)
        key = self.key_norm(key).to(value.dtype)
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attention of the sequence to itself, and its weights if `config._attn_implementation` is eager.

        `attention_mask` has the form that the implementation takes.
        """
        query, key, value = self.project(hidden_states)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation or "eager", eager_attention_forward
        )
        attended, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            scaling=self.scaling,
            dropout=self.config.attention_dropout if self.training else 0.0,
        )
        return self.output(attended.flatten(start_dim=2)), weights


class DalleFeedForward(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, config: DalleTransformerConfig):
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.feed_forward_size)
        self.activation = ACT2FN[config.hidden_act]
        self.down = ResidualProjection(config.feed_forward_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(..., hidden_size) to (..., hidden_size)."""
        return self.down(self.activation(self.up(hidden_states)))


class DalleLayer(GradientCheckpointingLayer):
    """Attention, then feed-forward, each on the normalised residual stream (pre-LN).

    With `sandwich_norm`, what they add to the stream is normalised too.
    """

    def __init__(self, config: DalleTransformerConfig, layer_index: int):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = DalleAttention(config, layer_index)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = DalleFeedForward(config)
        output_norm = nn.LayerNorm if config.sandwich_norm else nn.Identity
        self.attention_output_norm = output_norm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward_output_norm = output_norm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """(B, S, hidden_size) to (B, S, hidden_size)."""
        attended, _ = self.attention(self.attention_norm(hidden_states), attention_mask)
        hidden_states = hidden_states + self.dropout(self.attention_output_norm(attended))
        inner = self.feed_forward(self.feed_forward_norm(hidden_states))
        return hidden_states + self.dropout(self.feed_forward_output_norm(inner))


class TextEmbedding(nn.Module):
    """Text tokens to vectors. Every position has a pad vector of its own, and a position vector for both."""

    def __init__(self, config: DalleTransformerConfig):
        super().__init__()
        self.pad_token_id = config.pad_token_id
        self.tokens: nn.Module = nn.Embedding(config.text_vocab_size, config.hidden_size)
        self.pads = nn.Embedding(config.max_text_length, config.hidden_size)
        self.positions = nn.Embedding(config.max_text_length, config.hidden_size)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(B, T) to (B, T, hidden_size)."""
        is_pad = (input_ids == self.pad_token_id)[..., None]
        return torch.where(is_pad, self.pads.weight, self.tokens(input_ids)) + self.positions.weight


class ImageEmbedding(nn.Module):
    """Image tokens to vectors: the token, and its row and column, or its position if `image_positions="learned"`."""

    def __init__(self, config: DalleTransformerConfig):
        super().__init__()
        self.tokens = nn.Embedding(config.image_vocab_size, config.hidden_size)
        self.is_axial = config.image_positions == "axial"
        if self.is_axial:
            self.rows = nn.Embedding(config.image_grid_size, config.hidden_size)
            self.columns = nn.Embedding(config.image_grid_size, config.hidden_size)
        else:
            self.positions = nn.Embedding(config.num_image_tokens, config.hidden_size)

    def position_table(self) -> torch.Tensor:
        """(W * W, hidden_size): what is added at each raster position."""
        if not self.is_axial:
            return self.positions.weight
        return (self.rows.weight[:, None] + self.columns.weight[None, :]).flatten(end_dim=1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, N) tokens of the first N raster positions to (B, N, hidden_size)."""
        return self.tokens(tokens) + self.position_table()[: tokens.shape[1]]
