"""Initial weights that keep the variance of what passes through."""

import math
from typing import TypeGuard

from torch import nn
from transformers import initialization as init

# tanh(f) sigmoid(g) of independent standard normal f and g has mean 0 and variance E[tanh^2] E[sigmoid^2] = 0.3943 x
# 0.2934. A layer that reads it multiplies by this, so that a stack of gated layers neither fades nor grows.
GATE_GAIN = 1 / math.sqrt(0.3943 * 0.2934)
LinearLayer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d


def init_fan_in_(module: LinearLayer, gain: float = 1.0) -> None:
    r"""Normal weights of standard deviation `gain / sqrt(n)` for the n inputs of an output unit; biases of zero.

    *Efficient BackProp*, LeCun et al. 1998, Section 4.6: inputs of unit variance give outputs of variance `gain**2`.

    Args:
        module: A linear layer, or a convolution, transposed or not.
        gain: Standard deviation of the output.
    """
    weight = module.weight
    fan_in = math.prod(weight.shape[1:])
    if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d):
        # The taps of an output unit are shared among the strides.
        fan_in = weight.shape[0] * math.prod(weight.shape[2:]) / math.prod(module.stride)
    init.normal_(weight, mean=0.0, std=gain / math.sqrt(fan_in))
    if module.bias is not None:
        init.zeros_(module.bias)


def is_linear(module: nn.Module) -> TypeGuard[LinearLayer]:
    """Whether [`init_fan_in_`] applies."""
    return isinstance(module, LinearLayer)
