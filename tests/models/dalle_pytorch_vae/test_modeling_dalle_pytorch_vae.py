"""The discrete VAE of DALLE-pytorch: losses, training, files. (Parity with the project: tests/converters.)"""

import math

import pytest
import torch

from mosaics.models.codebook_identity import codebook_id
from mosaics.models.dalle_pytorch_vae import DallePytorchVAE, DallePytorchVAEConfig


def tiny_vae(**fields) -> DallePytorchVAE:
    torch.manual_seed(0)
    sizes = {"image_size": 16, "num_embeddings": 12, "codebook_dim": 7, "num_layers": 2, "hidden_size": 6}
    return DallePytorchVAE(DallePytorchVAEConfig(**(sizes | {"num_residual_blocks": 1} | fields)))


def pixels(channels=3):
    return torch.rand(4, channels, 16, 16, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_the_loss_is_the_error_of_normalised_pixels_and_the_kl_of_a_position():
    vae = tiny_vae(kl_weight=0.3).eval()
    output = vae(pixels())
    decoded = vae.decoder(vae.quantizer.lookup(vae.encode(pixels())))
    error = (decoded - (pixels() - 0.5) / 0.5).square().mean()
    probabilities = vae.logits(pixels()).softmax(dim=1)
    kl = (probabilities * (probabilities * 12).log()).sum(dim=1).mean()
    torch.testing.assert_close(output.reconstruction_loss, error)
    torch.testing.assert_close(output.kl, kl)
    torch.testing.assert_close(output.loss, error + 0.3 * kl)
    assert 0 < output.codebook_usage <= 1 <= output.perplexity <= 12
    smooth = tiny_vae(reconstruction_loss="smooth_l1").eval()(pixels()).reconstruction_loss
    torch.testing.assert_close(smooth, torch.nn.functional.smooth_l1_loss(decoded, (pixels() - 0.5) / 0.5))


def test_training_mixes_codes_and_straight_through_takes_single_ones():
    for straight_through in (False, True):
        vae = tiny_vae(straight_through=straight_through).train()
        seen = []
        hook = vae.decoder.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0].detach()))
        vae(pixels()).loss.backward()
        hook.remove()
        vectors = seen[0].permute(0, 2, 3, 1).flatten(0, 2)
        distances = (vectors[:, None] - vae.quantizer.codebook.detach()).abs().amax(dim=2)
        assert (distances.amin(dim=1) < 1e-5).all() == straight_through
        assert all(parameter.grad.abs().sum() > 0 for parameter in vae.parameters())


def test_it_learns():
    vae = tiny_vae(hidden_size=16).train()
    optimizer = torch.optim.Adam(vae.parameters(), lr=5e-3)
    losses = []
    for _ in range(40):
        loss = vae(pixels()[:1], temperature=0.5).loss
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]


def test_a_fourth_channel_is_not_normalised():
    vae = tiny_vae(num_channels=4)
    assert vae.config.pixel_mean == [0.5, 0.5, 0.5, 0.0] and vae.config.pixel_std == [0.5, 0.5, 0.5, 1.0]
    assert vae.eval().decode(vae.encode(pixels(4))).shape == (4, 4, 16, 16)


def test_a_saved_model_is_the_same_model(tmp_path):
    vae = tiny_vae(temperature=0.5, kl_weight=0.1).eval()
    vae.save_pretrained(tmp_path)
    loaded = DallePytorchVAE.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(pixels()).reconstruction, vae(pixels()).reconstruction)
    assert loaded.config.temperature == 0.5 and codebook_id(loaded) == codebook_id(vae)
    assert isinstance(vae(pixels(), return_dict=False), tuple)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 18}, r"divisible by 2\*\*num_layers = 4, got 18"),
        ({"num_embeddings": 1}, "num_embeddings must be at least 2, got 1"),
        ({"pixel_std": [0.5, 0.5]}, "pixel_std must hold a finite number for each"),
        ({"pixel_std": [0.5, 0.5, 0.0]}, "pixel_std must be positive"),
        ({"reconstruction_loss": "l1"}, "must be one of mse, smooth_l1, got 'l1'"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"kl_weight": math.inf}, "kl_weight must be finite"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, message):
    with pytest.raises(Exception, match=message):
        DallePytorchVAEConfig(**({"image_size": 16, "num_layers": 2} | fields))


def test_pictures_and_codes_are_checked():
    vae = tiny_vae().eval()
    with pytest.raises(ValueError, match=r"\(batch, 3, height, width\)"):
        vae.encode(torch.rand(1, 1, 16, 16))
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        vae.encode(pixels() * 2)
    with pytest.raises(ValueError, match=r"indices must lie in \[0, 12\)"):
        vae.decode(torch.full((1, 4, 4), 12))
