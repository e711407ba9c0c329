r"""The gated PixelCNN a row, then a column at a time: what `generate` runs instead of `forward`.

The vertical stack of row i depends on the codes of the rows above only, so it is computed once a row, from the last
rows of each layer's input. The horizontal stack is computed a column at a time, from the last columns of each layer's
input in this row and from what the vertical stack adds to its gates. Attention keeps the keys and values of all
positions so far. The logits are those of `forward`, up to rounding.

Convolutions are written as products of gathered windows with a matrix, in which every row of the batch is treated
alike. Features are (B, ..., hidden_size) here: channels come last.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from mosaics.layers.inference import InferenceLinear, bias_of, halve_gates, halved_gate

if TYPE_CHECKING:
    from mosaics.models.pixelcnn.gated_layer import GatedPixelLayer, PixelAttention
    from mosaics.models.pixelcnn.modeling_pixelcnn import PixelCNN


def _taps_first(conv: nn.Conv2d) -> torch.Tensor:
    """The weight as a matrix (out, taps * in), for windows gathered tap by tap."""
    return conv.weight.movedim(1, -1).flatten(start_dim=1)


class AttentionDecoder:
    """Attention with the keys and values of all positions so far."""

    def __init__(self, attention: "PixelAttention"):
        self.attention = attention
        self.qkv = InferenceLinear(attention.qkv.weight, attention.qkv.bias)
        self.output = InferenceLinear(attention.output.weight, attention.output.bias)
        self.table = attention.position_table()

    def allocate(self, batch: int) -> None:
        """Room for every position."""
        config = self.attention.config
        shape = (batch, config.num_attention_heads, len(self.table), config.head_size)
        self.keys, self.values = self.table.new_empty(shape), self.table.new_empty(shape)

    def step(self, features: torch.Tensor, position: int) -> torch.Tensor:
        """(B, n, hidden_size) of the n positions from `position` on, to what is added to them."""
        batch, count, width = features.shape
        stop = position + count
        inputs = self.attention.norm(features) + self.table[position:stop]
        qkv = self.qkv(inputs.flatten(end_dim=1)).view(batch, count, 3 * width)
        query, key, value = self.attention.split_heads(qkv)
        self.keys[:, :, position:stop] = key
        self.values[:, :, position:stop] = value
        keys, values = self.keys[:, :, :stop].flatten(end_dim=1), self.values[:, :, :stop].flatten(end_dim=1)
        query = query.flatten(end_dim=1) * query.shape[-1] ** -0.5
        scores = torch.bmm(query, keys.transpose(1, 2))  # (B * heads, n, stop)
        if count > 1:
            later = torch.ones(count, stop, dtype=torch.bool, device=scores.device).triu(position + 1)
            scores = scores.masked_fill(later, float("-inf"))
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(values.dtype)
        attended = torch.bmm(weights, values).view(batch, -1, count, query.shape[-1])
        attended = attended.transpose(1, 2).reshape(batch * count, width)
        return self.output(attended).view(batch, count, width)


class LayerDecoder:
    """One layer with the last rows of its vertical input and this row of its horizontal input."""

    def __init__(self, layer: "GatedPixelLayer"):
        self.layer = layer
        vertical, horizontal = layer.vertical_conv, layer.horizontal_conv
        self.reach = vertical.reach
        self.num_rows, self.num_taps = vertical.kernel_size[0], horizontal.kernel_size[1]
        self.vertical = InferenceLinear(_taps_first(vertical), vertical.bias)
        self.to_horizontal = InferenceLinear(layer.vertical_to_horizontal.weight.flatten(1), None)
        self.horizontal_bias = bias_of(horizontal) + bias_of(layer.vertical_to_horizontal)  # added once a row
        self.horizontal = InferenceLinear(halve_gates(_taps_first(horizontal)), None)
        self.output = InferenceLinear(layer.output.weight.flatten(1) / 2, layer.output.bias)  # of a doubled gate
        self.condition = None
        if layer.condition_bias is not None:
            self.condition = InferenceLinear(layer.condition_bias.weight.flatten(1), None)
        self.attention = None if layer.attention is None else AttentionDecoder(layer.attention)

    def allocate(self, batch: int, width: int, class_labels: torch.Tensor | None) -> None:
        """Zeros, which are what the convolutions see outside the grid."""
        bias = self.horizontal_bias
        channels = len(bias) // 2
        self.above = bias.new_zeros(batch, self.num_rows, width + 2 * self.reach, channels)
        self.row = bias.new_zeros(batch, self.reach + width, channels)
        self.class_bias = None
        if self.layer.class_bias is not None:
            self.class_bias = self.layer.class_bias(class_labels)[:, None]  # (B, 1, 4 * hidden_size)
        if self.attention is not None:
            self.attention.allocate(batch)

    def begin_row(self, above: torch.Tensor | None, condition: torch.Tensor | None) -> torch.Tensor:
        """Computes the vertical stack of a row, and from it `self.gates`, what is added to the horizontal gates.

        Args:
            above: The newest row (B, w, hidden_size) of the vertical input; `None` above the grid.
            condition: This row (B, w, hidden_size) of the upper grids' features.

        Returns:
            The vertical stack (B, w, hidden_size).
        """
        batch, width = len(self.row), self.row.shape[1] - self.reach
        if above is not None:
            self.above = torch.cat([self.above[:, 1:], F.pad(above, (0, 0, self.reach, self.reach))[:, None]], dim=1)
        windows = self.above.unfold(2, 2 * self.reach + 1, 1)  # (B, rows, w, hidden_size, columns)
        windows = windows.permute(0, 2, 1, 4, 3).reshape(batch * width, -1)
        vertical = self.vertical(windows).view(batch, width, -1)
        bias = self.horizontal_bias
        for added in self._biases(condition):
            vertical = vertical + added[..., : vertical.shape[2]]
            bias = bias + added[..., vertical.shape[2] :]
        gates = self.to_horizontal(vertical.flatten(end_dim=1)).view(vertical.shape) + bias
        gates[..., gates.shape[2] // 2 :] /= 2
        self.gates = gates
        vertical[..., vertical.shape[2] // 2 :] /= 2
        return halved_gate(vertical) / 2

    def _biases(self, condition: torch.Tensor | None) -> list[torch.Tensor]:
        """What class and condition add to the gates of both stacks."""
        biases = [] if self.class_bias is None else [self.class_bias]
        if self.condition is not None and condition is not None:  # a model has both or neither
            biases.append(self.condition(condition.flatten(end_dim=1)).view(*condition.shape[:2], -1))
        return biases

    def write(self, features: torch.Tensor, column: int) -> None:
        """Takes the horizontal input (B, n, hidden_size) of the columns from `column` on."""
        first = self.reach + column
        self.row[:, first : first + features.shape[1]] = features

    def columns(self, column: int, count: int, row_start: int) -> torch.Tensor:
        """The horizontal stack (B, n, hidden_size) of the n = `count` columns from `column` on."""
        batch, channels = len(self.row), self.row.shape[2]
        # With mask A the window ends before the column, with mask B at it.
        windows = self.row[:, column : column + self.num_taps + count - 1]
        if count > 1:
            windows = windows.unfold(1, self.num_taps, 1).transpose(2, 3)
        gates = self.horizontal(windows.reshape(batch * count, -1))
        gates += self.gates[:, column : column + count].reshape(batch * count, -1)
        features = self.output(halved_gate(gates)).view(batch, count, channels)
        if not self.layer.is_first:
            first = self.reach + column
            features = features + self.row[:, first : first + count]
        if self.attention is not None:
            features = features + self.attention.step(features, row_start + column)
        return features


class Decoder:
    """The PixelCNN while it draws: weights made ready once, then any number of batches."""

    def __init__(self, model: "PixelCNN"):
        self.model = model
        self.layers = [LayerDecoder(layer) for layer in model.layers]
        self.output_layers = [InferenceLinear(layer.weight.flatten(1), layer.bias) for layer in model.output_layers]
        self.head = InferenceLinear(model.head.weight.flatten(1), model.head.bias)
        self.earlier = model.earlier_latents
        self.needs_all_columns = any(layer.attention is not None for layer in self.layers)

    def start(
        self, batch: int, width: int, class_labels: torch.Tensor | None, conditions: tuple[torch.Tensor, ...]
    ) -> None:
        """Empty caches for grids of `width` columns."""
        self.width = width
        self.condition = self._conditioning(conditions)
        for layer in self.layers:
            layer.allocate(batch, width, class_labels)

    def _conditioning(self, conditions: tuple[torch.Tensor, ...]) -> torch.Tensor | None:
        """(B, h, w, hidden_size). On the CPU sample by sample: the order of addition in convolutions varies else."""
        stack = self.model.conditioning
        if stack is None:
            return None
        training = stack.training
        stack.eval()
        try:
            size = 1 if conditions[0].device.type == "cpu" else len(conditions[0])
            parts = [stack(part) for part in zip(*(codes.split(size) for codes in conditions), strict=True)]
        finally:
            stack.train(training)
        return torch.cat(parts).movedim(1, -1)

    def begin_row(self, row: int) -> None:
        """Computes the vertical stack of a row, after all columns of the rows above were written."""
        first = self.layers[0]
        features = first.row[:, first.reach :].clone() if row else None  # the embedded codes of the row above
        condition = None if self.condition is None else self.condition[:, row]
        for layer in self.layers:
            features = layer.begin_row(features, condition)
        self.row_start = row * self.width

    def write(self, codes: torch.Tensor, column: int) -> None:
        """Takes the codes (B, n), or (B, n, L), of this row from `column` on."""
        self.layers[0].write(self.model.embedding(codes), column)

    def columns(self, column: int, count: int = 1) -> torch.Tensor:
        """The last layer (B, n, hidden_size) at `count` columns, after all columns before the last were written."""
        features = self.layers[0].columns(column, count, self.row_start)
        for layer in self.layers[1:]:
            layer.write(features, column)
            features = layer.columns(column, count, self.row_start)
        return features

    def logits(self, features: torch.Tensor, codes: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, K) of the next code at a position.

        Args:
            features: (B, hidden_size), the last layer at the position.
            codes: (B, n), its codes so far, if it has several.
        """
        if self.earlier is not None and codes is not None:
            features = self.earlier.step(features, codes)
        for layer in self.output_layers:
            features = features + layer(F.relu(features))
        return self.head(F.relu(features)).float()

    def read_row(self, row: int, codes: torch.Tensor) -> None:
        """Takes a whole row of given codes (B, w), or (B, w, L), at once."""
        self.begin_row(row)
        self.write(codes, 0)
        if self.needs_all_columns:
            self.columns(0, self.width)
