r"""The layer of WaveNet (Figure 4 of https://arxiv.org/abs/1609.03499) and its local conditioning."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from mosaics.layers import CausalConv1d, CodeEmbedding, gated_activation
from mosaics.models.wavenet.configuration_wavenet import WaveNetConfig


class DilatedLayer(GradientCheckpointingLayer):
    r"""A dilated causal convolution, a gate, and a 1 x 1 convolution each for the residual and the skip path.

    With f and g the halves of the channels, h the class and y the slower sequence at this rate (Sections 2.3 to 2.5):

        z = tanh(W_f * x + V_f h + U_f * y) sigmoid(W_g * x + V_g h + U_g * y)

    Args:
        config: Sizes.
        dilation: Distance between two taps.
        is_last: The last layer has no residual path: nothing would read it.
    """

    def __init__(self, config: WaveNetConfig, dilation: int, is_last: bool):
        super().__init__()
        width = config.hidden_size
        self.conv = CausalConv1d(width, 2 * width, config.kernel_size, dilation)
        self.class_bias = None if config.num_classes is None else nn.Embedding(config.num_classes, 2 * width)
        self.condition_bias = None
        if config.condition_factor is not None:
            self.condition_bias = nn.Conv1d(width, 2 * width, 1, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.residual = None if is_last else nn.Conv1d(width, width, 1)
        self.skip = nn.Conv1d(width, config.skip_size, 1)

    def forward(
        self, features: torch.Tensor, class_labels: torch.Tensor | None, condition: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, hidden_size, T), labels (B,), condition (B, hidden_size, T) to the residual and the skip path."""
        gate = self.conv(features)
        if self.class_bias is not None:
            gate = gate + self.class_bias(class_labels)[:, :, None]
        if self.condition_bias is not None:
            gate = gate + self.condition_bias(condition)
        gated = self.dropout(gated_activation(gate))
        if self.residual is not None:
            features = features + self.residual(gated)
        return features, self.skip(gated)


class LocalConditioning(nn.Module):
    r"""A slower sequence of codes as features at this model's rate: y = f(h) of Section 2.5, learned upsampling.

    Embedding, a residual convolution over the neighbours in time, both past and future, and a transposed convolution.

    Shape:
        - Input: codes `(B, T / factor)`.
        - Output: `(B, hidden_size, T)`.
    """

    def __init__(self, hidden_size: int, num_embeddings: int, factor: int):
        super().__init__()
        self.embedding = CodeEmbedding(num_embeddings, hidden_size)
        self.conv = nn.Conv1d(hidden_size, hidden_size, 3, padding=1)
        self.upsampling = nn.ConvTranspose1d(hidden_size, hidden_size, factor, stride=factor)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """(B, T / factor) to (B, hidden_size, T)."""
        features = self.embedding(codes).transpose(1, 2)
        return self.upsampling(features + self.conv(F.relu(features)))
