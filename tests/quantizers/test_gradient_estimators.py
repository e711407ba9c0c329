"""Straight-through and rotation: exact values, and the gradients of their papers."""

import pytest
import torch

from mosaics.quantizers import GRADIENT_ESTIMATORS, VectorQuantizer, rotation_trick, straight_through


def pair(count=20, size=5):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(count, size, generator=generator)
    return vectors.requires_grad_(), torch.randn(count, size, generator=generator)


@pytest.mark.parametrize("name", GRADIENT_ESTIMATORS)
def test_the_values_are_exactly_the_codes_and_no_gradient_goes_to_them(name):
    vectors, entries = pair()
    entries.requires_grad_()
    quantized = GRADIENT_ESTIMATORS[name](vectors, entries)
    assert torch.equal(quantized, entries)
    quantized.sum().backward()
    assert entries.grad is None and vectors.grad is not None


def test_straight_through_passes_the_gradient_unchanged():
    vectors, entries = pair()
    gradient = torch.randn_like(vectors)
    straight_through(vectors, entries).backward(gradient)
    assert torch.equal(vectors.grad, gradient)


def test_the_rotation_gradient_is_the_transposed_rotation_that_takes_the_vector_to_its_code():
    vectors, entries = pair()
    gradient = torch.randn_like(vectors)
    rotation_trick(vectors, entries).backward(gradient)
    for e, q, g, got in zip(vectors.detach().double(), entries.double(), gradient.double(), vectors.grad, strict=True):
        unit_e, unit_q = e / e.norm(), q / q.norm()
        r = (unit_e + unit_q) / (unit_e + unit_q).norm()
        rotation = torch.eye(len(e)).double() - 2 * torch.outer(r, r) + 2 * torch.outer(unit_q, unit_e)
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(len(e)).double())
        assert torch.linalg.det(rotation).item() == pytest.approx(1)
        scale = q.norm() / e.norm()
        torch.testing.assert_close(scale * rotation @ e, q)
        torch.testing.assert_close(got.double(), scale * rotation.T @ g, atol=1e-5, rtol=1e-4)


def test_the_rotation_keeps_the_angle_between_gradient_and_code():
    vectors, entries = pair()
    gradient = torch.randn_like(vectors)
    rotation_trick(vectors, entries).backward(gradient)
    before = torch.cosine_similarity(gradient, entries)
    after = torch.cosine_similarity(vectors.grad, vectors.detach())
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)


def test_vectors_without_a_direction_pass_the_gradient_and_opposite_ones_stay_finite():
    vectors = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]], requires_grad=True)
    entries = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    quantized = rotation_trick(vectors, entries)
    assert torch.equal(quantized, entries)
    gradient = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    quantized.backward(gradient)
    assert torch.equal(vectors.grad[:2], gradient[:2])
    assert vectors.grad.isfinite().all() and vectors.grad[2].norm() == pytest.approx(0.5 * gradient[2].norm().item())


def test_an_unknown_estimator_is_refused_by_name():
    with pytest.raises(ValueError, match="straight_through, rotation, got 'gumbel'"):
        VectorQuantizer(4, 2, gradient_estimator="gumbel")
