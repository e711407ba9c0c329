import pytest
import torch

from mosaics.layers import CausalConv1d


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (2, 1), (2, 4), (3, 2), (4, 5)])
def test_it_sees_the_present_and_the_dilated_past(kernel, dilation):
    torch.manual_seed(0)
    conv = CausalConv1d(2, 3, kernel, dilation).double()
    features = torch.randn(1, 2, 17, dtype=torch.double, requires_grad=True)
    output = conv(features)
    assert output.shape == (1, 3, 17) and conv.reach == (kernel - 1) * dilation
    for time in range(17):
        gradient = torch.autograd.grad(output[0, :, time].sum(), features, retain_graph=True)[0][0].abs().sum(dim=0)
        expected = {time - tap * dilation for tap in range(kernel)} & set(range(17))
        assert set(gradient.nonzero().flatten().tolist()) == expected


def test_the_last_tap_is_the_present():
    conv = CausalConv1d(1, 1, 3, dilation=2)
    torch.nn.init.zeros_(conv.bias)
    conv.weight.data[:] = torch.tensor([100.0, 10.0, 1.0])
    assert conv(torch.arange(1.0, 6.0)[None, None]).tolist() == [[[1, 2, 13, 24, 135]]]


@pytest.mark.parametrize("sizes", [(0, 1), (2, 0)])
def test_a_bad_size_is_named(sizes):
    with pytest.raises(ValueError, match="kernel_size and a dilation of at least 1, got"):
        CausalConv1d(1, 1, *sizes)
