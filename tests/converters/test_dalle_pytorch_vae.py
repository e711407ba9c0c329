"""DALLE-pytorch's image tokenizer: the same codes and the same pixels as a second implementation."""

import pytest
import torch

from converters.dalle_pytorch_reference import CODES, vae_decode, vae_logits, vae_weights
from mosaics.converters import convert, detect
from mosaics.converters.errors import ForeignFileError, KeyMismatchError, UnsupportedVariantError
from mosaics.models.dalle_pytorch_vae import DallePytorchVAE

PIXELS = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def settings(layers=2, blocks=1, **changes):
    sizes = {"num_layers": layers, "num_resnet_blocks": blocks, "hidden_dim": 6, "codebook_dim": 7}
    return {"image_size": 16, "num_tokens": CODES} | sizes | changes


def save(path, weights, hparams):
    torch.save({"hparams": hparams, "weights": weights}, path)
    return path


@pytest.mark.parametrize(("layers", "blocks"), [(1, 0), (2, 0), (2, 1), (3, 2)])
@torch.no_grad()
def test_codes_and_pixels_are_those_of_the_project(tmp_path, layers, blocks):
    weights = vae_weights(layers, blocks)
    path = save(tmp_path / "vae.pt", weights, settings(layers, blocks))
    assert detect(path) == "dalle-pytorch-vae"
    report = convert(path, tmp_path / "vae")
    assert report.num_compared == sum(tensor.numel() for tensor in weights.values())
    vae = DallePytorchVAE.from_pretrained(tmp_path / "vae").eval()
    logits = vae_logits(weights, PIXELS)
    assert (vae.logits(PIXELS) - logits).abs().max() <= 1e-5
    indices = logits.argmax(dim=1)
    assert torch.equal(vae.encode(PIXELS), indices) and len(indices.unique()) > 2
    expected = vae_decode(weights, indices) * 0.5 + 0.5
    assert (vae.decode(indices) - expected.clamp(0, 1)).abs().max() <= 1e-5 and expected.std() > 0.02
    output = vae(PIXELS)
    error = (vae_decode(weights, indices) - (PIXELS - 0.5) / 0.5).square().mean()
    torch.testing.assert_close(output.loss, error)
    assert vae.config.grid_size == 16 // 2**layers and torch.equal(output.indices, indices)


def test_settings_and_tensors_must_agree(tmp_path):
    weights = vae_weights()
    with pytest.raises(KeyMismatchError, match="hparams say num_layers=3, the tensors 2"):
        convert(save(tmp_path / "a.pt", weights, settings(layers=3)), tmp_path / "vae")
    with pytest.raises(UnsupportedVariantError, match="made with reinmax=True"):
        convert(save(tmp_path / "b.pt", weights, settings(reinmax=True)), tmp_path / "vae")
    with pytest.raises(KeyMismatchError, match="does not say the size of its pictures"):
        convert(save(tmp_path / "c.pt", weights, {}), tmp_path / "vae")


def test_leftovers_and_missing_layers_are_refused(tmp_path):
    weights = vae_weights()
    with pytest.raises(KeyMismatchError, match=r"no place for: 'decoder.9.weight'"):
        convert(save(tmp_path / "a.pt", weights | {"decoder.9.weight": torch.ones(1)}, settings()), tmp_path / "vae")
    del weights["encoder.2.net.2.bias"]
    with pytest.raises(KeyMismatchError, match=r"lacks 1 tensors .*encoder.residual_blocks.0.convolutions.1.bias"):
        convert(save(tmp_path / "b.pt", weights, settings()), tmp_path / "vae")
    assert not (tmp_path / "vae").exists()


def test_the_auxiliary_file_of_deepspeed_says_what_to_do(tmp_path):
    torch.save({"hparams": settings(), "weights": "use the script"}, tmp_path / "auxiliary.pt")
    with pytest.raises(ForeignFileError, match=r"auxiliary.pt goes with a DeepSpeed checkpoint.*zero_to_fp32"):
        detect(tmp_path / "auxiliary.pt")


@pytest.mark.peer
@torch.no_grad()
def test_the_project_itself_gives_the_same_codes_and_pixels(tmp_path):
    dalle_pytorch = pytest.importorskip("dalle_pytorch", reason="needs the package dalle-pytorch")
    torch.manual_seed(0)
    hparams = settings(2, 2)
    theirs = dalle_pytorch.DiscreteVAE(**hparams).eval()
    vae_path = save(tmp_path / "vae.pt", theirs.state_dict(), hparams)
    convert(vae_path, tmp_path / "vae")
    vae = DallePytorchVAE.from_pretrained(tmp_path / "vae").eval()
    indices = theirs.get_codebook_indices(PIXELS)
    assert torch.equal(vae.encode(PIXELS).flatten(1), indices)
    assert (theirs(PIXELS, return_logits=True) - vae.logits(PIXELS)).abs().max() == 0
    assert ((theirs.decode(indices) * 0.5 + 0.5).clamp(0, 1) - vae.decode(indices.view(2, 4, 4))).abs().max() <= 1e-6
