"""The VQ-VAE of sound: sizes, loss, codes, files, and what it refuses."""

import math

import pytest
import torch
from transformers import AutoModel

from mosaics import AudioVQVAE, AudioVQVAEConfig
from mosaics.likelihoods import mu_law_decode, mu_law_encode
from testing_utils import tiny_audio_vqvae

QUANTIZERS = [{"quantizer": "vector"}, {"quantizer": "ema"}, {"gradient_estimator": "rotation"}]


def sound(batch=2, length=64, seed=0):
    return 2 * torch.rand(batch, 1, length, generator=torch.Generator().manual_seed(seed)) - 1


def test_the_default_encoder_is_the_papers_six_strided_convolutions_of_window_four():
    with torch.device("meta"):
        vqvae = AudioVQVAE(AudioVQVAEConfig())
    assert [(layer.kernel_size, layer.stride) for layer in vqvae.encoder.downsamples] == [((4,), (2,))] * 6
    assert vqvae.config.downsample_factor == 64 and vqvae.config.codes_per_second == 250
    assert vqvae.quantizer.codebook.shape[0] == 512
    assert [layer.dilated.dilation[0] for layer in vqvae.decoder.layers] == [2**n for n in range(10)] * 2
    assert vqvae.decoder.head.out_channels == 256


@pytest.mark.parametrize("fields", QUANTIZERS)
def test_the_loss_is_eq_3_with_a_categorical_over_mu_law_values(fields):
    vqvae, x = tiny_audio_vqvae(commitment_cost=0.7, **fields).eval(), sound()
    output = vqvae(x)
    z = vqvae.encoder(x)
    e = vqvae.quantizer.lookup(output.indices)
    logits = vqvae.decoder(e)
    log_p = logits.log_softmax(1).gather(1, mu_law_encode(x, 32))
    torch.testing.assert_close(output.reconstruction_loss, -log_p.mean())
    torch.testing.assert_close(output.commitment_loss, (z - e).square().mean())
    torch.testing.assert_close(output.loss, -log_p.mean() + output.codebook_loss + 0.7 * (z - e).square().mean())
    expected = (-log_p.sum() / 2 + 8 * math.log(16)) / (64 * math.log(2))
    torch.testing.assert_close(output.bits_per_dim, expected)
    torch.testing.assert_close(output.reconstruction, mu_law_decode(logits.argmax(1, keepdim=True), 32))


@pytest.mark.parametrize("fields", QUANTIZERS)
def test_encode_and_decode_are_the_two_halves_of_the_forward_pass(fields):
    vqvae, x = tiny_audio_vqvae(**fields).eval(), sound(3, 40)
    output, indices = vqvae(x), vqvae.encode(x)
    assert indices.shape == (3, 5) and indices.dtype == torch.int64
    assert torch.equal(indices, output.indices) and torch.equal(vqvae.encode(x[:, 0]), indices)
    assert torch.equal(vqvae.decode(indices), output.reconstruction)
    assert output.reconstruction.shape == (3, 1, 40) and output.reconstruction.abs().max() <= 1
    assert torch.equal(vqvae(x[:, 0]).loss, output.loss)
    assert torch.equal(vqvae(x, return_dict=False)[0], output.loss)


def test_a_code_moves_the_sound_around_its_own_samples():
    vqvae = tiny_audio_vqvae().eval()
    indices = torch.zeros(1, 20, dtype=torch.long)
    changed = indices.clone()
    changed[0, 12] = 7
    logits = [vqvae.decoder(vqvae.quantizer.lookup(codes)) for codes in (indices, changed)]
    times = (logits[0] - logits[1]).abs().amax((0, 1)).nonzero()[:, 0]
    reach = (1 + 2 + 4) + 8  # of the dilated layers, and of the transposed convolutions
    assert 96 - reach <= times.min() <= 96 and 103 <= times.max() < 104 + reach


@pytest.mark.parametrize("fields", QUANTIZERS)
def test_training_moves_every_parameter(fields):
    vqvae = tiny_audio_vqvae(**fields).train()
    vqvae(sound()).loss.backward()
    for name, parameter in vqvae.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_a_few_steps_lower_the_loss_on_one_sound():
    vqvae = tiny_audio_vqvae(quantizer="ema", ema_decay=0.8).train()
    optimizer = torch.optim.Adam(vqvae.parameters(), lr=5e-3)
    x = 0.5 * torch.sin(torch.arange(128) * 2 * math.pi / 16).view(1, 1, -1)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = vqvae(x).reconstruction_loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("fields", QUANTIZERS)
def test_saved_and_loaded_models_agree_bit_for_bit(fields, tmp_path):
    vqvae = tiny_audio_vqvae(**fields).train()
    vqvae(sound())
    vqvae.eval().save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert isinstance(loaded, AudioVQVAE)
    state = vqvae.state_dict()
    assert state.keys() == loaded.state_dict().keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    assert torch.equal(vqvae(sound()).loss, loaded(sound()).loss)


def test_bfloat16_training_is_finite():
    vqvae = tiny_audio_vqvae().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = vqvae(sound())
    output.loss.backward()
    assert output.loss.isfinite() and output.loss.dtype == torch.float32
    assert vqvae.eval().bfloat16().decode(output.indices).isfinite().all()


def test_nan_reaches_the_loss_in_training_and_is_refused_otherwise():
    vqvae, x = tiny_audio_vqvae().train(), sound()
    x[0, 0, 3] = torch.nan
    assert vqvae(x).loss.isnan()
    for call in (vqvae.eval(), vqvae.encode):
        with pytest.raises(ValueError, match="finite"):
            call(x)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(2, 2, 64), "stereo"),
        (torch.zeros(64), "shape"),
        (torch.zeros(2, 1, 60), "multiple of 8"),
        (torch.zeros(2, 1, 0), "multiple of 8"),
        (torch.zeros(2, 1, 64, dtype=torch.int16), "floating point"),
        (torch.full((2, 1, 64), 300.0), r"\[-1, 1\], got values from 300"),
    ],
)
def test_wrong_waveforms_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        tiny_audio_vqvae()(bad)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.full((1, 4), 16), r"\[0, 16\)"),
        (torch.zeros(1, 4), "integers"),
        (torch.zeros(1, 4, 4, dtype=torch.long), r"\(batch, time\)"),
    ],
)
def test_wrong_indices_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        tiny_audio_vqvae().decode(bad)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_embeddings": 1},
        {"num_downsamples": 0},
        {"num_sample_values": 1},
        {"quantizer": "fsq"},
        {"gradient_estimator": "none"},
        {"commitment_cost": -1.0},
        {"ema_decay": 1.5},
    ],
)
def test_impossible_configurations_are_refused(fields):
    with pytest.raises(Exception, match=next(iter(fields))):
        AudioVQVAEConfig(**fields)
