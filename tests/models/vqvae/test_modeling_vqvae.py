"""The VQ-VAE: the paper's sizes and loss, codes, files, and what it refuses."""

import math

import pytest
import torch
from transformers import AutoModel

from mosaics import VQVAE, VQVAEConfig
from mosaics.likelihoods import discretized_logistic_mixture_log_prob, gaussian_nll

QUANTIZERS = [
    {"quantizer": "vector"},
    {"quantizer": "vector", "gradient_estimator": "rotation"},
    {"quantizer": "ema"},
    {"quantizer": "normalized", "normalized_dim": 3},
    {"quantizer": "fsq", "fsq_levels": [4, 4, 2], "embedding_dim": 3},
    {"quantizer": "vector", "latents_per_position": 3},
]


def tiny_vqvae(**fields) -> VQVAE:
    """A VQ-VAE of 16x16 pictures and 4x4 positions, its codes spread out."""
    defaults = {"image_size": 16, "num_embeddings": 32, "embedding_dim": 4, "hidden_size": 12}
    torch.manual_seed(0)
    model = VQVAE(VQVAEConfig(**(defaults | {"num_residual_layers": 1, "residual_hidden_size": 6} | fields)))
    if hasattr(model.quantizer, "codebook"):
        with torch.no_grad():
            model.quantizer.codebook.normal_()
    return model


def pixels(batch=2, size=16, seed=0):
    values = torch.randint(256, (batch, 3, size, size), generator=torch.Generator().manual_seed(seed))
    return values / 255


def test_the_default_is_the_papers_imagenet_set_up():
    with torch.device("meta"):
        vqvae = VQVAE(VQVAEConfig())
    assert [tuple(layer.weight.shape) for layer in vqvae.encoder.downsamples] == [(128, 3, 4, 4), (256, 128, 4, 4)]
    assert len(vqvae.encoder.blocks) == len(vqvae.decoder.blocks) == 2
    assert tuple(vqvae.encoder.blocks[0].conv3x3.weight.shape) == (256, 256, 3, 3)
    assert [tuple(layer.weight.shape) for layer in vqvae.decoder.upsamples] == [(256, 128, 4, 4), (128, 3, 4, 4)]
    assert vqvae.config.grid_size == 32 and tuple(vqvae.quantizer.codebook.shape) == (512, 64)


def test_the_papers_cifar_set_up_has_a_field_of_8x8x10_codes():
    config = VQVAEConfig(image_size=32, latents_per_position=10, hidden_size=16, residual_hidden_size=8)
    assert VQVAE(config).eval().encode(pixels(size=32)).shape == (2, 8, 8, 10)


@pytest.mark.parametrize("fields", QUANTIZERS)
def test_the_loss_is_eq_3_and_every_term_is_reported(fields):
    vqvae, x = tiny_vqvae(commitment_cost=0.7, **fields).eval(), pixels()
    output = vqvae(x)
    mean = vqvae.decoder(vqvae.join_latents(vqvae.quantizer(vqvae.features(x)).quantized))
    nll = gaussian_nll(x, (mean + 1) / 2, 0.178)
    torch.testing.assert_close(output.reconstruction_loss, nll)
    torch.testing.assert_close(output.loss, nll + output.codebook_loss + 0.7 * output.commitment_loss)
    if fields["quantizer"] == "vector":
        z = vqvae.features(x)
        distance = (z - vqvae.quantizer.lookup(vqvae.quantizer.encode(z))).square().mean()
        torch.testing.assert_close(output.commitment_loss, distance)
        torch.testing.assert_close(output.codebook_loss, distance)
    frequencies = torch.bincount(output.indices.flatten(), minlength=32) / output.indices.numel()
    entropy = -torch.xlogy(frequencies, frequencies).sum().item()
    assert output.perplexity.item() == pytest.approx(math.exp(entropy), rel=1e-4)
    assert output.codebook_usage.item() == pytest.approx((frequencies > 0).float().mean().item())
    assert "bits_per_dim" not in output


@pytest.mark.parametrize("fields", QUANTIZERS)
def test_encode_and_decode_are_the_two_halves_of_the_forward_pass(fields):
    vqvae, x = tiny_vqvae(**fields).eval(), pixels(size=24)
    output, indices = vqvae(x), vqvae.encode(x)
    latents = fields.get("latents_per_position", 1)
    assert indices.shape == ((2, 6, 6) if latents == 1 else (2, 6, 6, latents)) and indices.dtype == torch.int64
    assert torch.equal(indices, output.indices)
    assert torch.equal(vqvae.decode(indices), output.reconstruction)
    assert output.reconstruction.shape == x.shape
    assert output.reconstruction.min() >= 0 and output.reconstruction.max() <= 1
    assert torch.equal(vqvae(x, return_dict=False)[0], output.loss)


def test_a_code_moves_the_pixels_of_its_own_cell():
    vqvae = tiny_vqvae(num_residual_layers=0).eval()
    indices = torch.zeros(1, 8, 8, dtype=torch.long)
    changed = indices.clone()
    changed[0, 5, 2] = 7
    rows, columns = (vqvae.decode(indices) - vqvae.decode(changed)).abs().amax((0, 1)).nonzero().T
    reach = 4 + 3  # a 3x3 convolution of positions, and the overlap of two transposed ones
    assert rows.min() >= 20 - reach and rows.max() < 24 + reach and rows.unique().numel() >= 4
    assert columns.min() >= 8 - reach and columns.max() < 12 + reach


def test_beta_moves_the_encoder_alone():
    gradients = {}
    for beta in (0.25, 1.25):
        vqvae, x = tiny_vqvae(commitment_cost=beta), pixels()
        vqvae(x).loss.backward()
        gradients[beta] = {name: parameter.grad for name, parameter in vqvae.named_parameters()}
    vqvae = tiny_vqvae()
    commitment = vqvae(pixels()).commitment_loss
    commitment.backward()
    for name, parameter in vqvae.named_parameters():
        difference = gradients[1.25][name] - gradients[0.25][name]
        if name.startswith("encoder"):
            torch.testing.assert_close(difference, parameter.grad, atol=1e-5, rtol=1e-3)
            assert difference.abs().max() > 0
        else:
            assert not difference.any() and parameter.grad is None, name


@pytest.mark.parametrize("likelihood", ["gaussian", "logistic_mixture"])
@pytest.mark.parametrize("fields", QUANTIZERS)
def test_training_moves_every_parameter(fields, likelihood):
    vqvae = tiny_vqvae(likelihood=likelihood, num_mixtures=2, **fields).train()
    vqvae(pixels()).loss.backward()
    for name, parameter in vqvae.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_bits_per_dim_are_the_elbo_of_8_bit_pixels_with_log_k_for_every_code():
    vqvae = tiny_vqvae(likelihood="logistic_mixture", num_mixtures=3, latents_per_position=2).eval()
    x = pixels()
    output = vqvae(x)
    parameters = vqvae.decoder(vqvae.join_latents(vqvae.quantizer.lookup(output.indices)))
    log_prob = discretized_logistic_mixture_log_prob(x, parameters, 3).sum((1, 2))
    codes = 4 * 4 * 2
    expected = (-log_prob + codes * math.log(32)).mean() / (3 * 16 * 16 * math.log(2))
    torch.testing.assert_close(output.bits_per_dim, expected)
    torch.testing.assert_close(output.reconstruction_loss, -log_prob.mean() / (3 * 16 * 16))


def test_a_decoder_that_knows_nothing_pays_for_its_codes_on_top_of_the_pixels():
    vqvae, x = tiny_vqvae(likelihood="logistic_mixture", num_mixtures=1).eval(), pixels(4)
    with torch.no_grad():
        vqvae.decoder.upsamples[-1].weight.zero_()
        vqvae.decoder.upsamples[-1].bias.zero_()  # every pixel logistic, with mean 0 and scale 1 on [-1, 1]
    edges = torch.linspace(-256 / 255, 256 / 255, 257).double().sigmoid()
    edges[0], edges[-1] = 0, 1
    pixel_bits = -edges.diff().log2()[(x * 255).round().long()].mean().item()
    assert vqvae(x).bits_per_dim.item() == pytest.approx(pixel_bits + 4 * 4 * 5 / (3 * 16 * 16), abs=1e-4)


@pytest.mark.parametrize("fields", QUANTIZERS)
def test_a_new_model_uses_more_than_one_code_and_its_decoder_sees_which(fields):
    torch.manual_seed(0)
    vqvae = VQVAE(tiny_vqvae(**fields).config).train()
    vqvae(pixels())
    indices = vqvae.eval().encode(pixels())
    assert indices.unique().numel() > 1
    assert vqvae.decode(indices).unique().numel() > 100


@pytest.mark.parametrize("fields", [{}, {"quantizer": "ema"}, {"likelihood": "logistic_mixture"}])
def test_a_few_steps_lower_the_loss_on_two_pictures(fields):
    vqvae = tiny_vqvae(**fields).train()
    optimizer = torch.optim.Adam(vqvae.parameters(), lr=3e-3)
    x = torch.nn.functional.interpolate(pixels(2, 4), scale_factor=4)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        output = vqvae(x)
        output.loss.backward()
        optimizer.step()
        losses.append(output.reconstruction_loss.item())
    assert losses[-1] < losses[0] - 0.2


@pytest.mark.parametrize("fields", QUANTIZERS)
def test_saved_and_loaded_models_agree_bit_for_bit(fields, tmp_path):
    vqvae = tiny_vqvae(**fields).train()
    vqvae(pixels())
    vqvae.eval().save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert isinstance(loaded, VQVAE) and loaded.config.to_dict().items() >= fields.items()
    state = vqvae.state_dict()
    assert state.keys() == loaded.state_dict().keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    if fields["quantizer"] == "ema":
        assert state["quantizer.num_updates"] == 1 and state["quantizer.cluster_size"].sum() > 0
        for model in (vqvae, loaded):
            model.train()(pixels(seed=1))
        assert torch.equal(vqvae.quantizer.codebook, loaded.quantizer.codebook)
    vqvae.eval(), loaded.eval()
    assert torch.equal(vqvae(pixels()).reconstruction, loaded(pixels()).reconstruction)


def test_half_precision_weights_encode_and_decode():
    vqvae = tiny_vqvae(quantizer="ema").eval().bfloat16()
    assert vqvae.decode(vqvae.encode(pixels())).isfinite().all()


@pytest.mark.parametrize("fields", QUANTIZERS)
def test_bfloat16_training_is_finite(fields):
    vqvae = tiny_vqvae(likelihood="logistic_mixture", **fields).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = vqvae(pixels())
    output.loss.backward()
    assert output.loss.isfinite() and output.loss.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in vqvae.parameters())


@pytest.mark.parametrize("fields", QUANTIZERS)
def test_nan_pixels_reach_the_loss_in_training_and_are_refused_otherwise(fields):
    vqvae, x = tiny_vqvae(**fields).train(), pixels()
    vqvae(x)
    before = {name: buffer.clone() for name, buffer in vqvae.named_buffers()}
    x[0, 0, 0, 0] = torch.nan
    assert vqvae(x).loss.isnan()
    assert all(torch.equal(buffer, before[name]) for name, buffer in vqvae.named_buffers())
    vqvae.eval()
    for call in (vqvae, vqvae.encode):
        with pytest.raises(ValueError, match="finite"):
            call(x)


def test_activations_that_are_not_finite_are_refused():
    vqvae = tiny_vqvae().eval()
    with torch.no_grad():
        vqvae.encoder.output.bias[0] = torch.inf
    with pytest.raises(ValueError, match="NaN or infinite"):
        vqvae.encode(pixels())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(2, 4, 16, 16), "shape"),
        (torch.zeros(3, 16, 16), "shape"),
        (torch.zeros(2, 3, 16, 18), "multiples of 4"),
        (torch.zeros(0, 3, 16, 16), "positive multiples"),
        (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), "floating point"),
        (torch.full((2, 3, 16, 16), 255.0), r"\[0, 1\], got values from 255"),
        (torch.full((2, 3, 16, 16), -1.0), r"\[0, 1\]"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_wrong_pixels_are_refused(bad, message, training):
    with pytest.raises(ValueError, match=message):
        tiny_vqvae().train(training)(bad)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.full((1, 4, 4), 32), r"\[0, 32\), got values from 32"),
        (torch.full((1, 4, 4), -1), r"\[0, 32\)"),
        (torch.zeros(1, 4, 4), "integers"),
        (torch.zeros(4, 4, dtype=torch.long), "shape"),
        (torch.zeros(0, 4, 4, dtype=torch.long), "none of them 0"),
    ],
)
def test_wrong_indices_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        tiny_vqvae().decode(bad)


def test_another_number_of_latents_per_position_is_refused():
    with pytest.raises(ValueError, match="height, width, 3"):
        tiny_vqvae(latents_per_position=3).decode(torch.zeros(1, 4, 4, 2, dtype=torch.long))


@pytest.mark.parametrize(
    "fields",
    [
        {"image_size": 30},
        {"num_embeddings": 1},
        {"hidden_size": 1},
        {"latents_per_position": 0},
        {"commitment_cost": -1.0},
        {"ema_decay": 1.0},
        {"gaussian_scale": 0.0},
        {"quantizer": "gumbel"},
        {"likelihood": "laplace"},
        {"gradient_estimator": "none"},
        {"fsq_levels": [8, 8]},
        {"fsq_levels": [8, 8], "quantizer": "fsq"},
        {"gradient_estimator": "rotation", "fsq_levels": [8, 8], "quantizer": "fsq", "embedding_dim": 2}
        | {"num_embeddings": 64},
    ],
)
def test_impossible_configurations_are_refused(fields):
    with pytest.raises(Exception, match=next(iter(fields))):
        VQVAEConfig(**fields)
