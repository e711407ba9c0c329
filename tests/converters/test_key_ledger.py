"""Nothing is forgotten on the way, and what was written can be compared with what was read."""

import pytest
import torch
from torch import nn

from mosaics.converters.errors import KeyMismatchError
from mosaics.converters.key_ledger import (
    CONVOLUTION_TO_CODEBOOK,
    CONVOLUTION_TO_LINEAR,
    LINEAR_TO_CONVOLUTION,
    TRANSPOSED,
    KeyLedger,
    Layout,
    same_bits,
)


def model():
    return nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(2, 3, bias=False)})


def ledger(**tensors):
    defaults = {"w": torch.rand(2, 3), "c": torch.rand(2), "v": torch.rand(3, 2)}
    return KeyLedger(defaults | tensors, source="x.pt")


def move_all(ledger):
    ledger.move("w", "a.weight")
    ledger.move("c", "a.bias")
    ledger.move("v", "b.weight")
    return ledger


def test_moved_tensors_are_the_models():
    books = move_all(ledger())
    weights = books.finish(model())
    assert set(weights) == set(model().state_dict())
    assert torch.equal(weights["b.weight"], books.tensors["v"])
    assert books.compare(weights) == 14


def test_a_key_left_over_is_an_error_and_a_dropped_one_is_not():
    books = move_all(ledger(extra=torch.zeros(1)))
    with pytest.raises(KeyMismatchError, match=r"x\.pt has 1 tensors .*'extra'"):
        books.finish(model())
    books.drop("extra", "a counter")
    assert set(books.finish(model())) == set(model().state_dict())
    assert books.dropped == {"extra": "a counter"}


def test_a_missing_key_is_an_error_that_shows_what_there_is():
    with pytest.raises(KeyMismatchError, match=r"no tensor 'u.w'; it has 'w'"):
        ledger().move("u.w", "a.weight")
    books = ledger()
    books.move("w", "a.weight")
    books.drop(["c", "v"], "no reason")
    with pytest.raises(KeyMismatchError, match=r"lacks 2 tensors .*'a.bias', 'b.weight'"):
        books.finish(model())


def test_a_wrong_shape_names_the_key_what_came_and_what_was_expected():
    books = move_all(ledger(v=torch.rand(4, 2)))
    with pytest.raises(KeyMismatchError, match=r"'v' has the shape \(4, 2\).*expects \(3, 2\) \(b.weight\)"):
        books.finish(model())
    with pytest.raises(KeyMismatchError, match=r"'c' must have 4 axes, got the shape \(2,\)"):
        ledger().shape("c", dim=4)
    with pytest.raises(KeyMismatchError, match="'c' of shape"):
        ledger().move("c", "a.weight", CONVOLUTION_TO_LINEAR)


def test_a_key_is_used_once_and_a_target_once():
    books = move_all(ledger())
    with pytest.raises(KeyMismatchError, match="twice"):
        books.move("w", "a.other")
    books = ledger()
    books.move("w", "a.weight")
    with pytest.raises(KeyMismatchError, match="two tensors"):
        books.move("v", "a.weight")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(value):
    with pytest.raises(KeyMismatchError, match=r"'w' has 1 of 6 values"):
        move_all(ledger(w=torch.tensor([[1.0, 2, 3], [4, 5, value]]))).finish(model())


def test_a_copy_must_be_one():
    books = move_all(ledger(w2=torch.rand(2, 3)))
    with pytest.raises(KeyMismatchError, match="'w2' and 'w' must be equal"):
        books.drop_copy("w2", of="w")
    books = ledger()
    books.tensors["w2"] = books.tensors["w"].clone()
    books.drop_copy("w2", of="w")
    assert books.dropped == {"w2": "a copy of w"}


def test_joined_and_split_tensors_are_compared_with_their_sources():
    q, k, v = torch.rand(2, 3), torch.rand(2, 3), torch.rand(2, 3)
    books = KeyLedger({"q": q, "k": k, "v": v}, "x")
    books.join(["q", "k", "v"], "weight")
    linear = nn.Linear(3, 6, bias=False)
    weights = books.finish(linear)
    assert torch.equal(weights["weight"], torch.cat([q, k, v])) and books.compare(weights) == 18
    weights["weight"] = torch.cat([q, v, k])
    with pytest.raises(KeyMismatchError, match="'k' was not written as it was read"):
        books.compare(weights)
    books = KeyLedger({"qkv": torch.cat([q, k])}, "x")
    books.split("qkv", ["0.weight", "1.weight"], sizes=[2, 2])
    weights = books.finish(nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(3, 2, bias=False)))
    assert torch.equal(weights["1.weight"], k) and books.compare(weights) == 12


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (TRANSPOSED, (3, 4)),
        (CONVOLUTION_TO_LINEAR, (3, 4, 1, 1)),
        (LINEAR_TO_CONVOLUTION, (3, 4)),
        (CONVOLUTION_TO_CODEBOOK, (3, 4, 1, 1)),
    ],
)
def test_layouts_undo_themselves(layout, shape):
    tensor = torch.rand(shape)
    assert same_bits(layout.backward(layout.forward(tensor)), tensor)


def test_a_mistaken_layout_does_not_pass_the_comparison():
    square = torch.rand(2, 2)
    books = KeyLedger({"w": square}, "x")
    books.move("w", "weight", Layout(torch.t, lambda tensor: tensor))
    weights = books.finish(nn.Linear(2, 2, bias=False))
    with pytest.raises(KeyMismatchError, match="fault of the conversion"):
        books.compare(weights)


def test_one_bit_is_a_difference():
    books = move_all(ledger())
    weights = {key: tensor.clone() for key, tensor in books.finish(model()).items()}
    weights["a.bias"].view(torch.int32)[1] ^= 1
    with pytest.raises(KeyMismatchError, match="'c'"):
        books.compare(weights)
    assert not same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
