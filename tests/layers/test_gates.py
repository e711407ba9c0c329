"""The gate, its form for inference, and initial weights that keep the variance."""

import math

import pytest
import torch
from torch import nn

from mosaics.layers import CausalConv1d, HorizontalConv2d, VerticalConv2d, gated_activation
from mosaics.layers.inference import MIN_ROWS, InferenceLinear, bias_of, halve_gates, halved_gate, row_wise_products
from mosaics.layers.initialization import GATE_GAIN, init_fan_in_


def test_a_layer_without_a_bias_has_one_of_zeros():
    with_bias = nn.Conv1d(3, 5, 2, dtype=torch.float64)
    assert bias_of(with_bias) is with_bias.bias
    zeros = bias_of(nn.Conv2d(3, 5, 2, bias=False, dtype=torch.float64))
    assert torch.equal(zeros, torch.zeros(5, dtype=torch.float64)) and zeros.dtype == torch.float64


def test_the_gate_is_tanh_times_sigmoid():
    features = torch.randn(3, 8, 2, generator=torch.Generator().manual_seed(0))
    gated = gated_activation(features)
    assert gated.shape == (3, 4, 2)
    for batch in range(3):
        for channel in range(4):
            for place in range(2):
                filters, gates = features[batch, channel, place].item(), features[batch, 4 + channel, place].item()
                expected = math.tanh(filters) / (1 + math.exp(-gates))
                assert abs(gated[batch, channel, place].item() - expected) < 1e-6
    torch.testing.assert_close(gated_activation(features.transpose(1, 2), dim=-1), gated.transpose(1, 2))


def test_the_halved_gate_is_twice_the_gate():
    features = 3 * torch.randn(50, 14)
    torch.testing.assert_close(halved_gate(halve_gates(features.T).T) / 2, gated_activation(features))


def test_the_halved_gate_of_a_row_is_bit_equal_in_any_batch():
    features = 3 * torch.randn(64, 14)
    whole = halved_gate(features)
    for first, count in [(0, 1), (3, 4), (7, 5), (11, 33)]:
        assert torch.equal(halved_gate(features[first : first + count].clone()), whole[first : first + count])


@pytest.mark.parametrize("sizes", [(24, 33), (7 * 16, 32), (1920, 64), (30, 20)], ids=str)
@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_rows_of_inference_products_are_bit_equal_in_any_batch(sizes, precision):
    torch.manual_seed(0)
    linear, inputs = nn.Linear(*sizes), torch.randn(300, sizes[0])
    product = InferenceLinear(linear.weight, linear.bias)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with row_wise_products(torch.device("cpu")):
            whole = product(inputs)
            for count in (MIN_ROWS, 5, 7, 16, 33, 128):
                assert torch.equal(product(inputs[:count].clone()), whole[:count])
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(whole, linear(inputs).detach())


def test_inference_products_in_double_and_without_bias():
    weight, inputs = torch.randn(5, 3, dtype=torch.double), torch.randn(4, 3, dtype=torch.double)
    torch.testing.assert_close(InferenceLinear(weight)(inputs), inputs @ weight.T)
    torch.testing.assert_close(InferenceLinear(weight.float())(inputs.float()), (inputs @ weight.T).float())


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(64, 256), (400, 64)),
        (VerticalConv2d(16, 64, 5, "B"), (4, 16, 24, 24)),
        (HorizontalConv2d(64, 64, 5, "A"), (4, 64, 24, 24)),
        (CausalConv1d(64, 64, 3, 2), (4, 64, 200)),
        (nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1), (4, 64, 16, 16)),
        (nn.ConvTranspose1d(64, 64, 5, stride=5), (4, 64, 100)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_initial_weights_multiply_the_deviation_by_the_gain(module, shape):
    torch.manual_seed(0)
    init_fan_in_(module, gain=1.5)
    with torch.no_grad():
        output = module(torch.randn(*shape))
    output = output[..., 8:-8] if output.dim() == 3 else output
    output = output[..., 6:-6, 6:-6] if output.dim() == 4 else output  # away from the zeros outside
    assert abs(float(output.std()) - 1.5) < 0.1
    assert not bool(module.bias.any())


def test_a_stack_of_gated_layers_keeps_its_deviation():
    torch.manual_seed(0)
    features = torch.randn(300, 256)
    deviations = []
    for depth in range(10):
        linear = nn.Linear(256, 512)
        init_fan_in_(linear, gain=GATE_GAIN if depth else 1.0)
        with torch.no_grad():
            features = gated_activation(linear(features))
        deviations.append(float(features.std()))
    assert abs(deviations[0] * GATE_GAIN - 1) < 0.05 and 0.8 < deviations[-1] / deviations[0] < 1.2
