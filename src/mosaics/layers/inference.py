r"""Products for sampling, in which a row does not depend on the rows beside it, to the last bit.

Matrix products on the CPU in float32 run through kernels that treat every row alike whatever their number, once there
are at least [`MIN_ROWS`]. So a sample is the same in any batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

MIN_ROWS = 4  # matrix-vector kernels add in another order than matrix-matrix ones; those with 2 and 3 rows vary too


@contextmanager
def row_wise_products(device: torch.device) -> Iterator[None]:
    """Keeps products on the CPU to kernels that treat rows alike, whatever `set_float32_matmul_precision` says."""
    precision = torch.get_float32_matmul_precision()
    if device.type != "cpu" or precision == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)


class InferenceLinear:
    """`inputs @ weight.T + bias` for inference. On the CPU in float32 the weight is packed for oneDNN: exact, faster.

    Args:
        weight: (out, in).
        bias: (out,).
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None):
        self.weight = weight.detach()
        self.bias = None if bias is None else bias.detach()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, 32) if _can_pack(weight) else None

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """(rows, in) to (rows, out)."""
        if self.packed is None:
            return F.linear(inputs, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(inputs, self.packed, self.bias, "none", [], "")


def bias_of(layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> torch.Tensor:
    """The bias (out,) of a layer; zeros if it has none."""
    return layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias


def _can_pack(weight: torch.Tensor) -> bool:
    return bool(
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


def halve_gates(parameter: torch.Tensor) -> torch.Tensor:
    """Halves the second half of the rows, the gates, for [`halved_gate`]: exact in floating point."""
    filters, gates = parameter.chunk(2, dim=0)
    return torch.cat([filters, gates / 2])


def halved_gate(features: torch.Tensor) -> torch.Tensor:
    r"""`2 tanh(f) sigmoid(g)` from `(f, g / 2)`, (rows, 2 n) to (rows, n).

    `2 sigmoid(g) = 1 + tanh(g / 2)`: one function for both halves. torch's tanh gives the same bits wherever a number
    stands in a tensor; its sigmoid rounds the last few numbers of a tensor otherwise, which would tie a sample to its
    batch.
    """
    filters, gates = torch.tanh(features).chunk(2, dim=-1)
    return torch.addcmul(filters, filters, gates)
