"""The VQ-VAE-2 of rosinality: the same features, codes and pixels as a second implementation."""

import argparse

import pytest
import torch

from converters.rosinality_reference import BLOCKS, CHANNEL, CODES, DIM, RESIDUAL, RosinalityReference
from mosaics.converters import convert, detect
from mosaics.converters.errors import KeyMismatchError, UnsupportedVariantError
from mosaics.converters.rosinality import PAST_UPDATES
from mosaics.models.vqvae2 import VQVAE2


def pictures():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_its_state_dict_converts(tmp_path, prefix):
    reference = RosinalityReference()
    torch.save({prefix + key: tensor for key, tensor in reference.state.items()}, tmp_path / "vqvae_560.pt")
    assert detect(tmp_path / "vqvae_560.pt") == "rosinality-vqvae2"
    report = convert(tmp_path / "vqvae_560.pt", tmp_path / "vqvae")
    assert report.num_compared == sum(tensor.numel() for tensor in reference.state.values()) and not report.dropped
    model = VQVAE2.from_pretrained(tmp_path / "vqvae").eval()
    sizes = model.config.hidden_size, model.config.upper_downsample_size, model.config.residual_hidden_size
    assert sizes == (CHANNEL, CHANNEL // 2, RESIDUAL) and model.config.num_residual_layers == BLOCKS
    assert (model.config.num_embeddings, model.config.embedding_dim) == (CODES, DIM)

    with torch.no_grad():
        for ours, theirs in zip(model._features(pictures()), reference.features(pictures()), strict=True):
            assert (ours - theirs).abs().max() <= 1e-5
        indices = model.encode(pictures())
        expected = reference.indices(pictures())
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(indices, expected, strict=True))
        assert all(len(grid.unique()) > 5 for grid in indices)
        pixels = reference.pixels(*indices)
        assert (model.decode(indices) - pixels).abs().max() <= 1e-4 and 0.05 < pixels.std()


def test_training_goes_on_with_its_codebooks(tmp_path):
    reference = RosinalityReference()
    torch.save(reference.state, tmp_path / "vqvae.pt")
    convert(tmp_path / "vqvae.pt", tmp_path / "vqvae")
    model = VQVAE2.from_pretrained(tmp_path / "vqvae").train()
    model(pictures())
    quantizer = model.levels[1].quantizer
    assert quantizer.num_updates == PAST_UPDATES + 1
    used = model.levels[1].quantizer.cluster_size < 0.99 * reference.state["quantize_t.cluster_size"] + 1e-6
    moved = (quantizer.codebook - reference.state["quantize_t.embed"].T).abs().amax(dim=1)
    assert used.any() and moved[used].max() < 1e-3  # codes that no vector chose stay, up to the smoothing


def test_missing_and_left_over_tensors_are_named(tmp_path):
    state = RosinalityReference().state
    torch.save({key: tensor for key, tensor in state.items() if key != "dec.blocks.6.bias"}, tmp_path / "lacking.pt")
    with pytest.raises(KeyMismatchError, match=r"no tensor 'dec.blocks.6.bias'"):
        convert(tmp_path / "lacking.pt", tmp_path / "vqvae")
    torch.save(state | {"enc_b.blocks.9.weight": torch.ones(2)}, tmp_path / "more.pt")
    with pytest.raises(KeyMismatchError, match=r"no place for: 'enc_b.blocks.9.weight'"):
        convert(tmp_path / "more.pt", tmp_path / "vqvae")
    torch.save(state | {"quantize_b.embed": torch.ones(DIM, CODES + 1)}, tmp_path / "wrong.pt")
    with pytest.raises(KeyMismatchError, match=r"'quantize_b.embed' has the shape"):
        convert(tmp_path / "wrong.pt", tmp_path / "vqvae")


def test_a_pixelsnail_is_recognised_and_refused_with_the_reason(tmp_path):
    weights = {"background": torch.zeros(1, 2, 4, 4), "horizontal.conv.conv.weight_v": torch.ones(2, 2, 2, 5)}
    torch.save({"model": weights, "args": argparse.Namespace(hier="top")}, tmp_path / "pixelsnail.pt")
    assert detect(tmp_path) == "rosinality-vqvae2"
    with pytest.raises(UnsupportedVariantError, match="is a PixelSNAIL prior"):
        convert(tmp_path, tmp_path / "out")
