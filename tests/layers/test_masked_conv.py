import pytest
import torch
import torch.nn.functional as F

from mosaics.layers import HorizontalConv2d, VerticalConv2d

KERNELS = [(3, "A"), (5, "A"), (7, "A"), (1, "B"), (3, "B"), (5, "B")]


def seen(conv, position: tuple[int, int], size: tuple[int, int]) -> set[tuple[int, int]]:
    """The input positions that the output at a position depends on, by gradient."""
    features = torch.randn(1, 2, *size, dtype=torch.double, requires_grad=True)
    output = conv.double()(features)
    assert output.shape == (1, 3, *size)
    gradient = torch.autograd.grad(output[0, :, *position].sum(), features)[0][0].abs().sum(dim=0)
    return {tuple(place) for place in gradient.nonzero().tolist()}


@pytest.mark.parametrize(("kernel", "mask"), KERNELS)
@pytest.mark.parametrize("size", [(6, 5), (1, 1), (1, 9), (9, 1)], ids=str)
def test_the_vertical_convolution_sees_the_rows_above_and_with_mask_b_its_own(kernel, mask, size):
    torch.manual_seed(0)
    conv, reach = VerticalConv2d(2, 3, kernel, mask), kernel // 2
    for i in range(size[0]):
        for j in range(size[1]):
            last = i if mask == "B" else i - 1
            rows, columns = range(max(0, i - reach), last + 1), range(max(0, j - reach), min(size[1], j + reach + 1))
            assert seen(conv, (i, j), size) == {(row, column) for row in rows for column in columns}


@pytest.mark.parametrize(("kernel", "mask"), KERNELS)
@pytest.mark.parametrize("size", [(3, 6), (1, 1)], ids=str)
def test_the_horizontal_convolution_sees_the_columns_to_the_left_and_with_mask_b_its_own(kernel, mask, size):
    torch.manual_seed(0)
    conv, reach = HorizontalConv2d(2, 3, kernel, mask), kernel // 2
    for i in range(size[0]):
        for j in range(size[1]):
            last = j if mask == "B" else j - 1
            assert seen(conv, (i, j), size) == {(i, column) for column in range(max(0, j - reach), last + 1)}


@pytest.mark.parametrize(("kernel", "mask"), KERNELS)
@pytest.mark.parametrize("conv_class", [VerticalConv2d, HorizontalConv2d])
def test_it_equals_a_square_convolution_under_the_mask_of_the_paper(conv_class, kernel, mask):
    torch.manual_seed(0)
    conv, reach = conv_class(2, 3, kernel, mask), kernel // 2
    weight = torch.zeros(3, 2, kernel, kernel)
    if conv_class is VerticalConv2d:
        weight[:, :, : reach + (mask == "B")] = conv.weight
    else:
        weight[:, :, reach, : reach + (mask == "B")] = conv.weight[:, :, 0]
    features = torch.randn(2, 2, 6, 7)
    torch.testing.assert_close(conv(features), F.conv2d(features, weight, conv.bias, padding=reach))


def test_there_is_no_mask_to_lose():
    conv = VerticalConv2d(2, 3, 5, "A")
    assert [name for name, _ in conv.named_parameters()] == ["weight", "bias"] and not list(conv.buffers())
    assert conv.weight.shape == (3, 2, 2, 5) and VerticalConv2d(2, 3, 5, "B").weight.shape == (3, 2, 3, 5)
    assert HorizontalConv2d(2, 3, 5, "A").weight.shape == (3, 2, 1, 2)


@pytest.mark.parametrize("conv_class", [VerticalConv2d, HorizontalConv2d])
@pytest.mark.parametrize(
    ("kernel", "mask", "message"),
    [
        (4, "B", "needs an odd kernel_size"),
        (1, "A", "at least 3 with mask A and at least 1 with mask B; got 1 with mask A"),
        (3, "C", 'mask_type must be "A" or "B", got \'C\''),
    ],
)
def test_a_bad_kernel_is_named(conv_class, kernel, mask, message):
    with pytest.raises(ValueError, match=message):
        conv_class(2, 3, kernel, mask)
