"""The VQ-VAE's quantizer, its losses and what they move; and the l2-normalised one."""

import math

import pytest
import torch
import torch.nn.functional as F

from mosaics.quantizers import NormalizedVectorQuantizer, VectorQuantizer


def features(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantizer(num_embeddings=12, embedding_dim=4, cls=VectorQuantizer, **options):
    torch.manual_seed(1)
    module = cls(num_embeddings, embedding_dim, **options)
    torch.nn.init.normal_(module.codebook)
    return module


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 7), (2, 4, 3, 5), (2, 4, 3, 2, 2)])
def test_each_vector_becomes_the_nearest_code_of_brute_force(shape):
    module, z = quantizer(), features(*shape)
    output = module(z)
    rows = z.movedim(1, -1).reshape(-1, 4)
    nearest = (rows[:, None] - module.codebook).square().sum(-1).argmin(1)
    assert output.indices.shape == (shape[0], *shape[2:]) and output.indices.dtype == torch.int64
    assert torch.equal(output.indices.flatten(), nearest)
    assert output.quantized.shape == z.shape
    assert torch.equal(output.quantized, module.lookup(output.indices))
    assert torch.equal(output.quantized.movedim(1, -1).reshape(-1, 4), module.codebook[nearest])
    assert torch.equal(module.encode(z), output.indices)


def test_the_losses_are_the_mean_squared_distance_and_each_moves_its_side_alone():
    module, z = quantizer(), features(2, 4, 3, 3).requires_grad_()
    output = module(z)
    expected = (z - module.lookup(output.indices)).square().mean()
    torch.testing.assert_close(output.codebook_loss, expected)
    torch.testing.assert_close(output.commitment_loss, expected)
    (codebook,) = torch.autograd.grad(output.codebook_loss, module.codebook, retain_graph=True)
    (encoder,) = torch.autograd.grad(output.commitment_loss, z, retain_graph=True)
    assert torch.autograd.grad(output.codebook_loss, z, retain_graph=True, allow_unused=True) == (None,)
    assert torch.autograd.grad(output.commitment_loss, module.codebook, allow_unused=True) == (None,)
    difference = (z - module.lookup(output.indices)).detach()
    torch.testing.assert_close(encoder, 2 * difference / z.numel())
    sums = torch.zeros_like(codebook).index_add_(0, output.indices.flatten(), difference.movedim(1, -1).reshape(-1, 4))
    torch.testing.assert_close(codebook, -2 * sums / z.numel())


def auxiliary_loss_gradients(commitment_cost):
    module, z = quantizer(), features(2, 4, 3, 3).requires_grad_()
    output = module(z)
    (output.codebook_loss + commitment_cost * output.commitment_loss).backward()
    return z.grad, module.codebook.grad


def test_beta_scales_the_encoder_gradient_and_not_the_codebook_gradient():
    encoder, codebook = auxiliary_loss_gradients(commitment_cost=0.25)
    encoder_x4, codebook_x4 = auxiliary_loss_gradients(commitment_cost=1.0)
    torch.testing.assert_close(encoder_x4, 4 * encoder)
    torch.testing.assert_close(codebook_x4, codebook)


def test_the_gradient_of_the_decoder_passes_straight_through():
    module, z = quantizer(), features(2, 4, 3, 3).requires_grad_()
    weights = features(2, 4, 3, 3, seed=5)
    (module(z).quantized * weights).sum().backward()
    assert torch.equal(z.grad, weights) and module.codebook.grad is None


def test_perplexity_and_usage_are_those_of_the_batch():
    module = quantizer()
    output = module(features(2, 4, 9, 9))
    frequencies = torch.bincount(output.indices.flatten(), minlength=12) / 162
    entropy = -sum(f * math.log(f) for f in frequencies.tolist() if f > 0)
    assert output.perplexity.item() == pytest.approx(math.exp(entropy), rel=1e-4)
    assert output.codebook_usage.item() == pytest.approx((frequencies > 0).float().mean().item())


def test_half_precision_features_are_searched_in_float32_and_come_back_in_their_dtype():
    module, z = quantizer(), features(2, 4, 3, 3).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = module(z)
    assert output.quantized.dtype == torch.bfloat16 and output.commitment_loss.dtype == torch.float32
    assert torch.equal(output.indices, module(z.float()).indices)


def test_features_that_are_not_finite_are_an_error_but_in_training_they_reach_the_loss():
    for module in (quantizer(), quantizer(cls=NormalizedVectorQuantizer)):
        z = features(2, 4, 3, 3)
        z[1, 2, 0, 0] = torch.nan
        output = module.train()(z)
        assert output.commitment_loss.isnan() and output.indices.max() < 12
        with pytest.raises(ValueError, match="NaN"):
            module.eval()(z)
        with pytest.raises(ValueError, match="NaN"):
            module.train().encode(z)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(2, 5, 3), r"\(batch, 4, \.\.\.\)"),
        (torch.zeros(4), "batch"),
        (torch.zeros(0, 4, 3), "at least one vector"),
        (torch.zeros(2, 4, 3, dtype=torch.long), "floating point"),
    ],
)
@pytest.mark.parametrize("cls", [VectorQuantizer, NormalizedVectorQuantizer])
def test_wrong_features_are_refused(bad, message, cls):
    with pytest.raises(ValueError, match=message):
        quantizer(cls=cls)(bad)


@pytest.mark.parametrize("cls", [VectorQuantizer, NormalizedVectorQuantizer])
@pytest.mark.parametrize("sizes", [(1, 4), (8, 0)])
def test_impossible_sizes_are_refused(cls, sizes):
    with pytest.raises(ValueError, match=f"got {sizes[0]} and {sizes[1]}"):
        cls(*sizes)


def test_a_new_quantizer_is_ready_for_use():
    assert VectorQuantizer(512, 4).codebook.abs().max() <= 1 / 512
    assert NormalizedVectorQuantizer(512, 16).encode(features(8, 16, 8, 8)).unique().numel() > 50


def test_normalised_codes_are_chosen_by_cosine_and_length_does_not_matter():
    module, z = quantizer(cls=NormalizedVectorQuantizer, code_dim=3), features(2, 4, 5, 5)
    projected = module.project_in(z.movedim(1, -1))
    cosine = F.cosine_similarity(projected[..., None, :], module.codebook, dim=-1)
    output = module(z)
    assert torch.equal(output.indices, cosine.argmax(-1))
    with torch.no_grad():
        module.codebook *= torch.rand(12, 1) + 0.5
    assert torch.equal(module(z).indices, output.indices)
    # Between unit vectors, ||z - e||^2 = 2 - 2 cos, spread over code_dim numbers.
    torch.testing.assert_close(output.commitment_loss, (2 - 2 * cosine.amax(-1)).mean() / 3)


def test_normalised_codes_come_back_as_looked_up_and_train_every_parameter():
    module, z = quantizer(cls=NormalizedVectorQuantizer, code_dim=3), features(2, 4, 5, 5).requires_grad_()
    output = module(z)
    torch.testing.assert_close(output.quantized, module.lookup(output.indices))
    (output.quantized.square().sum() + output.codebook_loss + output.commitment_loss).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    assert z.grad.abs().max() > 0
