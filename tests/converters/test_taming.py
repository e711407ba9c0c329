"""VQGANs of taming-transformers and LlamaGen: the same layers, codes and pixels as a second implementation."""

import json

import pytest
import torch
import yaml

from converters.taming_reference import LlamaGen, Taming, VQGANReference
from converters.traces import largest_difference, trace
from mosaics.converters import ConversionError, convert, detect
from mosaics.converters.errors import KeyMismatchError, UnsupportedVariantError
from mosaics.models.vqgan import VQGAN

LAYERS = ("ResnetBlock2D", "Attention")
# Like f16 with attention in the last level, like f8 with two blocks a level and attention in two, and one level.
SHAPES = {
    "three levels": {"multipliers": (1, 1, 2), "attention": (2,)},
    "two blocks": {"multipliers": (1, 2), "blocks": 2, "attention": (0, 1)},
    "one level": {"multipliers": (2,), "attention": ()},
}


def pictures(size=16):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(3))


def save_taming(path, reference, **others):
    losses = {"loss.perceptual_loss.lin0.model.1.weight": torch.ones(1, 4, 1, 1), "loss.logvar": torch.zeros(())}
    torch.save({"state_dict": reference.state | losses | others, "epoch": 3, "global_step": 7}, path)
    return path


def save_config(path, resolution=16):
    path.write_text(yaml.safe_dump({"model": {"params": {"ddconfig": {"resolution": resolution}}}}))
    return path


@torch.no_grad()
def assert_parity(model, reference):
    indices = model.encode(pictures())
    assert torch.equal(indices, reference.indices(pictures())) and len(indices.unique()) > 5
    pixels, expected = model.decode(indices), reference.pixels(indices)
    assert (pixels - expected).abs().max() <= 1e-4 and expected.std() > 0.1
    assert ((pixels > 0) & (pixels < 1)).float().mean() > 0.1  # not all of them clipped

    # Layer by layer in float64, where rounding does not add up through the layers.
    model, reference = model.double(), reference.double()
    reference.trace.clear()
    _, layers = trace(model, LAYERS, lambda: model.decode(model.encode(pictures().double())))
    reference.features(pictures().double())
    reference.pixels(indices)
    assert len(layers) > 7 and largest_difference(layers, reference.trace) <= 1e-5


@pytest.mark.parametrize("kind", ["vector", "gumbel"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_checkpoint_of_taming_converts(tmp_path, kind, shape):
    reference = VQGANReference(Taming, kind=kind, **SHAPES[shape])
    checkpoint, config = save_taming(tmp_path / "last.ckpt", reference), save_config(tmp_path / "model.yaml")
    assert detect(checkpoint) == detect([checkpoint, config]) == "taming-vqgan"
    report = convert([checkpoint, config], tmp_path / "vqgan")
    assert report.num_compared == sum(tensor.numel() for tensor in reference.state.values())
    assert set(report.dropped) == {"loss.perceptual_loss.lin0.model.1.weight", "loss.logvar"}
    model = VQGAN.from_pretrained(tmp_path / "vqgan").eval()
    assert (model.config.image_size, model.config.quantizer, model.config.num_embeddings) == (16, kind, 40)
    assert_parity(model, reference)


def test_the_tokenizer_of_llamagen_converts(tmp_path):
    reference = VQGANReference(LlamaGen, kind="normalized", multipliers=(1, 1, 2), attention=(2,))
    weights = reference.state | {"quantize.codebook_used": torch.zeros(65536)}
    torch.save({"model": weights, "optimizer": {"state": {}}, "steps": 4}, tmp_path / "vq_ds4.pt")
    assert detect(tmp_path) == "llamagen-vq"
    report = convert(tmp_path, tmp_path / "out" / "vqgan")
    assert report.dropped == {"quantize.codebook_used": "statistics of training"}
    model = VQGAN.from_pretrained(tmp_path / "out" / "vqgan").eval()
    assert (model.config.quantizer, model.config.image_size, model.config.grid_size) == ("normalized", 256, 64)
    assert_parity(model, reference)


def test_averaged_weights_of_llamagen_come_first_as_in_its_own_program(tmp_path):
    reference = VQGANReference(LlamaGen, kind="normalized")
    noise = {key: tensor + 1 for key, tensor in reference.state.items()}
    torch.save({"model": noise, "ema": reference.state}, tmp_path / "vq.pt")
    convert(tmp_path, tmp_path / "out" / "vqgan")
    assert_parity(VQGAN.from_pretrained(tmp_path / "out" / "vqgan").eval(), reference)


def test_diffusers_model_of_the_converted_one_computes_the_same(tmp_path):
    reference = VQGANReference(multipliers=(1, 2))
    convert(save_taming(tmp_path / "x", reference), tmp_path / "vqgan")
    autoencoder = VQGAN.from_pretrained(tmp_path / "vqgan").to_diffusers()
    autoencoder.save_pretrained(tmp_path / "diffusers")
    saved = json.loads((tmp_path / "diffusers" / "config.json").read_text())
    assert (saved["_class_name"], saved["num_vq_embeddings"], saved["vq_embed_dim"]) == ("VQModel", 40, 5)
    with torch.no_grad():
        decoded = autoencoder(2 * pictures() - 1).sample
    expected = reference.pixels(reference.indices(pictures()))
    assert ((decoded.clamp(-1, 1) + 1) / 2 - expected).abs().max() <= 1e-4


def test_a_missing_and_a_left_over_tensor_are_named(tmp_path):
    reference = VQGANReference()
    lacking = dict(reference.state)
    del lacking["decoder.up.1.block.0.conv2.bias"]
    torch.save({"state_dict": lacking}, tmp_path / "lacking.ckpt")
    with pytest.raises(KeyMismatchError, match=r"no tensor 'decoder.up.1.block.0.conv2.bias'"):
        convert(tmp_path / "lacking.ckpt", tmp_path / "vqgan")
    save_taming(tmp_path / "more.ckpt", reference, **{"encoder.down.0.block.0.temb_proj.weight": torch.ones(2, 2)})
    with pytest.raises(KeyMismatchError, match=r"no place for: 'encoder.down.0.block.0.temb_proj.weight'"):
        convert(tmp_path / "more.ckpt", tmp_path / "vqgan")
    wrong = reference.state | {"decoder.conv_out.weight": torch.ones(3, 16, 3, 3)}
    torch.save({"state_dict": wrong}, tmp_path / "wrong.ckpt")
    with pytest.raises(KeyMismatchError, match=r"'decoder.conv_out.weight' has the shape \(3, 16, 3, 3\)"):
        convert(tmp_path / "wrong.ckpt", tmp_path / "vqgan")
    assert not (tmp_path / "vqgan").exists()


def test_variants_without_a_counterpart_are_refused(tmp_path):
    reference = VQGANReference()
    save_taming(tmp_path / "used.ckpt", reference, **{"quantize.used": torch.arange(3)})
    with pytest.raises(UnsupportedVariantError, match="maps its codes to those in use"):
        convert(tmp_path / "used.ckpt", tmp_path / "vqgan")
    save_taming(tmp_path / "dwt.ckpt", reference, **{"decoder.post_quant_conv.weight": torch.ones(1)})
    with pytest.raises(UnsupportedVariantError, match="decoder over wavelets"):
        convert(tmp_path / "dwt.ckpt", tmp_path / "vqgan")
    prior = {f"first_stage_model.{key}": tensor for key, tensor in reference.state.items()}
    torch.save({"state_dict": prior | {"transformer.tok_emb.weight": torch.ones(2, 2)}}, tmp_path / "prior.ckpt")
    assert detect(tmp_path / "prior.ckpt") == "taming-vqgan"
    with pytest.raises(UnsupportedVariantError, match="Give the checkpoint of its first stage"):
        convert(tmp_path / "prior.ckpt", tmp_path / "vqgan")
    save_taming(tmp_path / "last.ckpt", reference)
    with pytest.raises(ConversionError, match="resolution='large'"):
        convert([tmp_path / "last.ckpt", save_config(tmp_path / "x.yaml", "large")], tmp_path / "vqgan")
    with pytest.raises(KeyMismatchError, match="one file of weights, got"):
        convert([tmp_path / "last.ckpt", tmp_path / "used.ckpt"], tmp_path / "vqgan")
