"""The layers of DALLE-pytorch's transformer."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from mosaics.models.dalle.dalle_pytorch.configuration_dalle_pytorch import DallePytorchTransformerConfig

Branch = Callable[[torch.Tensor], torch.Tensor]
Streams = tuple[torch.Tensor, ...]


def rotary_angles(config: DallePytorchTransformerConfig) -> torch.Tensor:
    """The angles (positions, rotary_size) by which channels are rotated, in the project's arrangement.

    The first third counts positions of the text, the image being far behind it; the other two count rows and columns
    from -1 to 1, the text being far above and left of it. Each angle stands twice, for the two channels of a pair.
    """
    if config.rotary_size is None:
        raise ValueError("rotary_size is None: this model has learned position vectors and no angles.")
    size, text_length, grid_size = config.rotary_size // 3, config.text_length, config.image_grid_size
    text_frequencies = 10000.0 ** -(torch.arange(0, size, 2, device="cpu") / size)
    image_frequencies = torch.linspace(1.0, 5.0, size // 2, device="cpu") * math.pi
    places = torch.arange(text_length, dtype=torch.float32, device="cpu")
    places = F.pad(places, (0, config.num_image_tokens), value=8192.0)
    sides = torch.linspace(-1, 1, grid_size, device="cpu")
    outside = torch.full((text_length,), -10.0, device="cpu")
    rows = torch.cat([outside, sides.repeat_interleave(grid_size)])
    columns = torch.cat([outside, sides.repeat(grid_size)])
    parts = [
        torch.outer(places, text_frequencies),
        torch.outer(rows, image_frequencies),
        torch.outer(columns, image_frequencies),
    ]
    return torch.cat([part.repeat_interleave(2, dim=1) for part in parts], dim=1)


def rotate(vectors: torch.Tensor, angles: torch.Tensor | None) -> torch.Tensor:
    """Rotates the first channels (..., head_size), in adjacent pairs, by angles (..., rotary_size)."""
    if angles is None:
        return vectors
    turning, rest = vectors.split([angles.shape[-1], vectors.shape[-1] - angles.shape[-1]], dim=-1)
    first, second = turning.unflatten(-1, (-1, 2)).unbind(dim=-1)
    quarter_turn = torch.stack([-second, first], dim=-1).flatten(start_dim=-2)
    cosine, sine = angles.cos().to(vectors.dtype), angles.sin().to(vectors.dtype)
    return torch.cat([turning * cosine + quarter_turn * sine, rest], dim=-1)


def shift_text(states: torch.Tensor) -> torch.Tensor:
    """(..., T, hidden_size): the first half of the channels comes from the position before."""
    before, own = states.chunk(2, dim=-1)
    return torch.cat([F.pad(before, (0, 0, 1, -1)), own], dim=-1)


def shift_image(states: torch.Tensor, grid_size: int) -> torch.Tensor:
    """(..., n, hidden_size): a quarter of the channels comes from above, and a quarter from the left."""
    length = states.shape[-2]
    if not length:
        return states
    grid = F.pad(states, (0, 0, 0, -length % grid_size)).unflatten(-2, (-1, grid_size))
    above, left, *own = grid.chunk(4, dim=-1)
    shifted = torch.cat([F.pad(above, (0, 0, 0, 0, 1, -1)), F.pad(left, (0, 0, 1, -1)), *own], dim=-1)
    return shifted.flatten(start_dim=-3, end_dim=-2)[..., :length, :]


def add_branches(streams: Streams, attend: Branch, feed: Branch) -> Streams:
    """One residual stream, or the two of a reversible network (Gomez et al. 2017), after both branches of a layer."""
    if len(streams) == 1:
        hidden = streams[0] + attend(streams[0])
        return (hidden + feed(hidden),)
    first = streams[0] + attend(streams[1])
    return first, streams[1] + feed(first)


class LayerScale(nn.Module):
    """Multiplies each channel by a learned number, small at first (Touvron et al. 2021)."""

    def __init__(self, config: DallePytorchTransformerConfig, layer_index: int):
        super().__init__()
        depth = layer_index + 1
        self.initial_scale = 0.1 if depth <= 18 else 1e-5 if depth <= 24 else 1e-6
        self.scale = nn.Parameter(torch.empty(config.hidden_size))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(..., hidden_size) to the same."""
        return states * self.scale


class DallePytorchAttention(nn.Module):
    """Attention whose queries, keys and values are all rotated by the position."""

    def __init__(self, config: DallePytorchTransformerConfig, layer_index: int):
        super().__init__()
        self.config = config
        self.pattern = config.layer_attention_types[layer_index]
        self.scaling = config.head_size**-0.5
        inner_size = config.num_attention_heads * config.head_size
        self.qkv = nn.Linear(config.hidden_size, 3 * inner_size, bias=False)
        self.output = nn.Linear(inner_size, config.hidden_size)
        self.dropout = nn.Dropout(config.attention_dropout)

    def split_heads(self, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(..., S, 3 * inner size) to queries, keys and values (..., heads, S, head_size)."""
        qkv = qkv.unflatten(-1, (3, self.config.num_attention_heads, self.config.head_size))
        query, key, value = (part.transpose(-2, -3) for part in qkv.unbind(dim=-3))
        return query, key, value

    def forward(self, states: torch.Tensor, attention_mask: torch.Tensor, angles: torch.Tensor | None) -> torch.Tensor:
        """(B, S, hidden_size) to the same, under a mask (S, S)."""
        query, key, value = (rotate(part, angles) for part in self.split_heads(self.qkv(states)))
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=self.scaling)
        return self.dropout(self.output(attended.transpose(1, 2).flatten(start_dim=2)))


class DallePytorchFeedForward(nn.Module):
    """A linear layer, half of it gated by the GELU of the other half (Shazeer 2020), and another linear layer."""

    def __init__(self, config: DallePytorchTransformerConfig):
        super().__init__()
        self.up = nn.Linear(config.hidden_size, 2 * config.feed_forward_size)
        self.down = nn.Linear(config.feed_forward_size, config.hidden_size)
        self.dropout = nn.Dropout(config.feed_forward_dropout)

    def gate(self, states: torch.Tensor) -> torch.Tensor:
        """(..., 2 n) to (..., n)."""
        values, gates = states.chunk(2, dim=-1)
        return values * F.gelu(gates)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(..., hidden_size) to the same."""
        return self.down(self.dropout(self.gate(self.up(states))))


class DallePytorchLayer(GradientCheckpointingLayer):
    """Attention and feed-forward, each on the normalised and shifted stream, scaled before it is added."""

    def __init__(self, config: DallePytorchTransformerConfig, layer_index: int):
        super().__init__()
        self.config = config
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = DallePytorchAttention(config, layer_index)
        self.attention_scale = LayerScale(config, layer_index)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = DallePytorchFeedForward(config)
        self.feed_forward_scale = LayerScale(config, layer_index)
        output_norm = nn.LayerNorm if config.sandwich_norm else nn.Identity
        self.attention_output_norm = output_norm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward_output_norm = output_norm(config.hidden_size, eps=config.layer_norm_eps)

    def shift(self, states: torch.Tensor) -> torch.Tensor:
        """(B, S, hidden_size), the text and the first image tokens, to the same."""
        if not self.config.shift_tokens:
            return states
        length = self.config.text_length
        return torch.cat(
            [shift_text(states[:, :length]), shift_image(states[:, length:], self.config.image_grid_size)], dim=1
        )

    def forward(self, streams: Streams, attention_mask: torch.Tensor, angles: torch.Tensor | None) -> Streams:
        """The streams (B, S, hidden_size) after both branches."""

        def attend(states: torch.Tensor) -> torch.Tensor:
            attended = self.attention(self.shift(self.attention_norm(states)), attention_mask, angles)
            return self.attention_scale(self.attention_output_norm(attended))

        def feed(states: torch.Tensor) -> torch.Tensor:
            inner = self.feed_forward(self.shift(self.feed_forward_norm(states)))
            return self.feed_forward_scale(self.feed_forward_output_norm(inner))

        return add_branches(streams, attend, feed)
