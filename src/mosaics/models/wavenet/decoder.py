r"""WaveNet one code at a time: what `generate` runs instead of `forward`.

A layer with k taps and dilation d needs its inputs at t, t - d, ..., t - (k - 1) d. It keeps the last R = (k - 1) d of
them in a ring: the input at time t has the slot t mod R, where the oldest one, just read, is no longer needed. The
logits are those of `forward`, up to rounding. Features are (B, ..., channels) here: channels come last.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from mosaics.layers.inference import InferenceLinear, bias_of, halve_gates, halved_gate

if TYPE_CHECKING:
    from mosaics.models.wavenet.dilated_layer import DilatedLayer
    from mosaics.models.wavenet.modeling_wavenet import WaveNet

READ_AT_ONCE = 1024  # given codes that are computed together


class LayerDecoder:
    """One layer with the ring of its last inputs."""

    def __init__(self, layer: "DilatedLayer"):
        self.layer = layer
        self.width = layer.conv.in_channels
        self.dilation, self.reach = layer.conv.dilation[0], layer.conv.reach
        weights = [layer.conv.weight.movedim(1, -1).flatten(start_dim=1)]  # (out, taps * in)
        if layer.condition_bias is not None:
            weights.append(layer.condition_bias.weight.flatten(start_dim=1))
        self.gates = InferenceLinear(halve_gates(torch.cat(weights, dim=1)), None)
        paths = [layer.skip] if layer.residual is None else [layer.skip, layer.residual]
        self.skip_size = layer.skip.out_channels
        self.paths = InferenceLinear(
            torch.cat([path.weight.flatten(start_dim=1) for path in paths]) / 2,  # of a doubled gate
            torch.cat([bias_of(path) for path in paths]),
        )

    def allocate(self, batch: int, class_labels: torch.Tensor | None) -> None:
        """Zeros, which are what the convolution sees before the first time; and what the class adds to the gates."""
        bias = bias_of(self.layer.conv)
        self.ring = bias.new_zeros(self.reach, batch, self.width)
        bias = bias.expand(batch, -1)
        if self.layer.class_bias is not None:
            bias = bias + self.layer.class_bias(class_labels)
        self.bias = halve_gates(bias.T).T.contiguous()  # (B, 2 * hidden_size)

    def step(self, features: torch.Tensor, condition: list[torch.Tensor], time: int) -> tuple[torch.Tensor, ...]:
        """The input (B, hidden_size) at a time to the input of the next layer and the skip path."""
        taps = [self.ring[(time - back) % self.reach] for back in range(self.reach, 0, -self.dilation)]
        gates = self.gates(torch.cat([*taps, features, *condition], dim=-1))
        self.ring[time % self.reach] = features
        gates += self.bias
        return self._paths(features, halved_gate(gates))

    def read(self, features: torch.Tensor, condition: list[torch.Tensor], time: int) -> tuple[torch.Tensor, ...]:
        """The same for the n times (B, n, hidden_size) from `time` on."""
        batch, count, _ = features.shape
        slots = torch.arange(time, time + self.reach, device=features.device) % self.reach  # from the oldest on
        known = torch.cat([self.ring[slots].transpose(0, 1), features], dim=1)
        taps = [known[:, start : start + count] for start in range(0, self.reach + 1, self.dilation)]
        windows = torch.cat([*taps, *condition], dim=-1).flatten(end_dim=1)
        gates = self.gates(windows).view(batch, count, -1) + self.bias[:, None]
        self.ring[(slots + count) % self.reach] = known[:, count:].transpose(0, 1)
        following, skip = self._paths(features.flatten(end_dim=1), halved_gate(gates).flatten(end_dim=1))
        return following.view(features.shape), skip.view(batch, count, -1)

    def _paths(self, features: torch.Tensor, gated: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        paths = self.paths(gated)
        skip = paths[:, : self.skip_size]
        if self.layer.residual is not None:
            features = features + paths[:, self.skip_size :]
        return features, skip


class Decoder:
    """The WaveNet while it draws: weights made ready once, then any number of batches."""

    def __init__(self, model: "WaveNet"):
        self.model = model
        self.layers = [LayerDecoder(layer) for layer in model.layers]
        self.output_layer = InferenceLinear(model.output_layer.weight.flatten(1), model.output_layer.bias)
        self.head = InferenceLinear(model.head.weight.flatten(1), model.head.bias)

    def start(self, batch: int, class_labels: torch.Tensor | None, conditions: tuple[torch.Tensor, ...]) -> None:
        """Empty rings. What predicts the first code is zeros."""
        self.time = 0
        weight, conditioning = self.model.head.weight, self.model.conditioning
        self.features = weight.new_zeros(batch, self.model.config.hidden_size)  # of the code before the one to predict
        self.condition = None
        if conditioning is not None:
            # On the CPU sequence by sequence: the order of addition in convolutions varies with their number.
            parts = conditions[0].split(1 if weight.device.type == "cpu" else batch)
            self.condition = torch.cat([conditioning(part) for part in parts]).transpose(1, 2)
        for layer in self.layers:
            layer.allocate(batch, class_labels)

    def logits(self) -> torch.Tensor:
        """Logits (B, K) of the next code. To be called once for each code, before it is written."""
        condition = [] if self.condition is None else [self.condition[:, self.time]]
        features, skips = self.layers[0].step(self.features, condition, self.time)
        for layer in self.layers[1:]:
            features, skip = layer.step(features, condition, self.time)
            skips = skips + skip
        return self.head(F.relu(self.output_layer(F.relu(skips)))).float()

    def write(self, codes: torch.Tensor) -> None:
        """Takes the code (B,) that was predicted."""
        self.features = self.model.embedding(codes)
        self.time += 1

    def read(self, codes: torch.Tensor) -> None:
        """Takes given codes (B, n) at once, in place of `logits` and `write` for each."""
        for some in codes.split(READ_AT_ONCE, dim=1):
            embedded = self.model.embedding(some)
            features = torch.cat([self.features[:, None], embedded[:, :-1]], dim=1)
            condition = []
            if self.condition is not None:
                condition = [self.condition[:, self.time : self.time + some.shape[1]]]
            for layer in self.layers:
                features, _ = layer.read(features, condition, self.time)
            self.features = embedded[:, -1]
            self.time += some.shape[1]
