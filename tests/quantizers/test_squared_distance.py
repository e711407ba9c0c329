"""The mean squared distance: value and both gradients."""

import torch
import torch.nn.functional as F

from mosaics.quantizers.squared_distance import mean_squared_distance


def test_value_and_gradients_are_those_of_the_mean_squared_error():
    generator = torch.Generator().manual_seed(0)
    ours = [torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.double).requires_grad_() for _ in range(2)]
    theirs = [tensor.detach().clone().requires_grad_() for tensor in ours]
    loss, expected = mean_squared_distance(*ours), F.mse_loss(*theirs)
    (3 * loss).backward()
    (3 * expected).backward()
    torch.testing.assert_close(loss.double(), expected, atol=1e-6, rtol=1e-6)
    for got, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got.grad, wanted.grad, atol=1e-6, rtol=1e-5)


def test_half_precision_is_computed_in_float32():
    features = torch.full((4, 4), 1.0, dtype=torch.bfloat16, requires_grad=True)
    loss = mean_squared_distance(features, torch.full((4, 4), 1.001))
    assert loss.dtype == torch.float32 and abs(loss.item() - 1e-6) < 1e-8
    loss.backward()
    assert features.grad.dtype == torch.bfloat16
