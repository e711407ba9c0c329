"""OpenAI's dVAE and FLAVA's codebook: the same codes and the same pixels as a second implementation."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor

from converters.openai_modules import Decoder, Encoder, save_halves
from mosaics.converters import convert, detect
from mosaics.converters.errors import KeyMismatchError, MissingSourceError, RefusedGlobalsError
from mosaics.models.dvae import DiscreteVAE

FORMS = {"zip": {}, "stream": {"_use_new_zipfile_serialization": False}}


def halves(seed=0):
    torch.manual_seed(seed)
    return Encoder(), Decoder()


def pixels():
    """Patches of different colours, with noise."""
    generator = torch.Generator().manual_seed(1)
    colours = torch.rand(3, 3, 4, 6, generator=generator).repeat_interleave(8, 2).repeat_interleave(8, 3)
    return (0.8 * colours + 0.2 * torch.rand(colours.shape, generator=generator)).clamp(0, 1)


def outputs(model, modules, *inputs):
    """What some modules of a model return while it runs."""
    found = {}
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: found.update({name: output}))
        for name, module in modules.items()
    ]
    with torch.no_grad():
        model(*inputs)
    for hook in hooks:
        hook.remove()
    return found


def blocks(half, ours):
    names = [(group, block) for group in range(4) for block in range(2)]
    if ours:
        return {name: half.groups[name[0]][name[1]] for name in names}
    return {name: getattr(getattr(half.blocks, f"group_{name[0] + 1}"), f"block_{name[1] + 1}") for name in names}


@torch.no_grad()
def assert_parity(encoder, decoder, dvae):
    """Every layer, the codes and the pixels of OpenAI's modules and of ours."""
    mapped = 0.8 * pixels() + 0.1
    theirs, ours = (
        outputs(encoder, blocks(encoder, False), mapped),
        outputs(dvae.encoder, blocks(dvae.encoder, True), mapped),
    )
    assert max((theirs[name] - ours[name]).abs().max() for name in theirs) <= 1e-5
    logits = encoder(mapped)
    assert (logits - dvae.logits(pixels())).abs().max() <= 1e-4
    indices = logits.argmax(dim=1)
    assert torch.equal(dvae.encode(pixels()), indices) and len(indices.unique()) > 1

    indices = torch.randint(dvae.config.num_embeddings, indices.shape, generator=torch.Generator().manual_seed(2))
    one_hot = torch.nn.functional.one_hot(indices, dvae.config.num_embeddings).permute(0, 3, 1, 2).float()
    theirs = outputs(decoder, blocks(decoder, False), one_hot)
    ours = outputs(dvae.decoder, blocks(dvae.decoder, True), dvae.decoder.quantizer.lookup(indices))
    assert max((theirs[name] - ours[name]).abs().max() for name in theirs) <= 1e-5
    expected = ((decoder(one_hot)[:, :3].sigmoid() - 0.1) / 0.8).clamp(0, 1)
    difference = (dvae.decode(indices) - expected).abs().max()
    assert difference <= 1e-4 and expected.std() > 0.005
    return difference


@pytest.mark.parametrize("form", FORMS)
def test_the_pickled_modules_convert_without_their_package(tmp_path, form):
    encoder, decoder = halves()
    sources = save_halves(tmp_path, encoder, decoder, **FORMS[form])
    assert detect(sources) == detect(sources[0]) == detect(tmp_path) == "openai-dvae"
    report = convert(sources, tmp_path / "dvae")
    assert not any(name.split(".")[0] == "dall_e" for name in sys.modules)
    dvae = DiscreteVAE.from_pretrained(tmp_path / "dvae").eval()
    assert report.models == {"": "DiscreteVAE"} and not report.dropped
    assert report.num_compared == sum(p.numel() for half in (encoder, decoder) for p in half.parameters())
    assert (dvae.config.num_embeddings, dvae.config.codebook_dim, dvae.config.hidden_size) == (24, 6, 8)
    assert_parity(encoder, decoder, dvae)
    assert AutoImageProcessor.from_pretrained(tmp_path / "dvae").size == {"shortest_edge": 256}


def test_the_order_of_the_files_does_not_matter_and_nor_do_their_names(tmp_path):
    encoder, decoder = halves()
    one, two = save_halves(tmp_path, encoder, decoder)
    one, two = one.rename(tmp_path / "decoder.bin"), two.rename(tmp_path / "x")
    convert([two, one], tmp_path / "dvae")
    assert_parity(encoder, decoder, DiscreteVAE.from_pretrained(tmp_path / "dvae").eval())


def test_state_dicts_of_the_modules_convert_too(tmp_path):
    encoder, decoder = halves()
    torch.save(encoder.state_dict(), tmp_path / "e.pt")
    save_file(decoder.state_dict(), tmp_path / "d.safetensors")
    convert([tmp_path / "e.pt", tmp_path / "d.safetensors"], tmp_path / "dvae")
    assert_parity(encoder, decoder, DiscreteVAE.from_pretrained(tmp_path / "dvae").eval())


def test_half_precision_is_the_sources_rounded(tmp_path):
    sources = save_halves(tmp_path, *halves())
    convert(sources, tmp_path / "dvae", dtype="bfloat16")
    written = load_file(tmp_path / "dvae" / "model.safetensors")
    assert {tensor.dtype for key, tensor in written.items() if "encoder.output" not in key} == {torch.bfloat16}
    encoder, _ = halves()
    assert torch.equal(written["encoder.output.weight"], encoder.blocks.output.conv.w)  # always in float32
    assert torch.equal(written["encoder.input.weight"], encoder.blocks.input.w.bfloat16())


def test_one_half_alone_is_refused(tmp_path):
    encoder, decoder = save_halves(tmp_path, *halves())
    with pytest.raises(MissingSourceError, match=r"the decoder is missing \(got .*encoder.pkl\)"):
        convert(encoder, tmp_path / "dvae")
    with pytest.raises(MissingSourceError, match=r"the encoder is missing \(got .*decoder.pkl\)"):
        convert(decoder, tmp_path / "dvae")
    with pytest.raises(KeyMismatchError, match="are both the encoder"):
        convert([encoder, decoder, encoder], tmp_path / "dvae")
    assert not (tmp_path / "dvae").exists()


def test_halves_of_different_codebooks_are_refused(tmp_path):
    sources = save_halves(tmp_path, Encoder(codes=24), Decoder(codes=32))
    with pytest.raises(KeyMismatchError, match="24 codes, the decoder 32"):
        convert(sources, tmp_path / "dvae")


def test_another_gain_of_the_residual_paths_is_refused(tmp_path):
    encoder, decoder = halves()
    encoder.blocks.group_2.block_1.post_gain = 0.5
    with pytest.raises(KeyMismatchError, match=r"post_gain=0.5.*0.015625"):
        convert(save_halves(tmp_path, encoder, decoder), tmp_path / "dvae")


def test_a_tensor_too_many_is_refused(tmp_path):
    encoder, decoder = halves()
    encoder.blocks.group_1.block_1.extra = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(KeyMismatchError, match=r"'encoder.blocks.group_1.block_1.extra'"):
        convert(save_halves(tmp_path, encoder, decoder), tmp_path / "dvae")
    assert not (tmp_path / "dvae").exists()


def test_a_class_of_another_project_in_the_pickle_is_refused(tmp_path):
    encoder, decoder = halves()
    encoder.blocks.group_1.pool = torch.nn.AvgPool2d(2)
    with pytest.raises(RefusedGlobalsError, match=r"torch.nn.modules.pooling.AvgPool2d"):
        convert(save_halves(tmp_path, encoder, decoder), tmp_path / "dvae")


def flava_weights(encoder):
    """The tensors of the encoder under the names that transformers' FlavaImageCodebook gives them."""
    from transformers import FlavaImageCodebook, FlavaImageCodebookConfig

    config = FlavaImageCodebookConfig(vocab_size=24, hidden_size=8)
    codebook = FlavaImageCodebook(config)
    assert len(codebook.state_dict()) == len(encoder.state_dict())
    with torch.no_grad():
        for theirs, ours in zip(codebook.parameters(), encoder.parameters(), strict=True):
            theirs.copy_(ours)
    return codebook


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_flavas_codebook_is_the_encoder(tmp_path, form):
    encoder, decoder = halves()
    _, decoder_file = save_halves(tmp_path, encoder, decoder)
    codebook = flava_weights(encoder)
    folder = tmp_path / "flava-image-codebook"
    if form == "safetensors":
        codebook.save_pretrained(folder)
    else:
        folder.mkdir()
        codebook.config.save_pretrained(folder)
        torch.save(codebook.state_dict(), folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert detect(folder) == detect([folder, decoder_file]) == "flava-image-codebook"
    with pytest.raises(MissingSourceError, match="FLAVA has the encoder alone"):
        convert(folder, tmp_path / "dvae")
    convert([folder, decoder_file], tmp_path / "dvae")
    dvae = DiscreteVAE.from_pretrained(tmp_path / "dvae").eval()
    assert_parity(encoder, decoder, dvae)
    # FLAVA's own model gives the same codes for mapped pixels.
    with torch.no_grad():
        assert torch.equal(codebook.get_codebook_indices(0.8 * pixels() + 0.1), dvae.encode(pixels()))
    provenance = json.loads((tmp_path / "dvae" / "conversion.json").read_text())
    assert provenance["format"] == "flava-image-codebook"
    assert {source["file"] for source in provenance["sources"]} >= {"config.json", "decoder.pkl"}


@pytest.mark.peer
def test_openais_own_package_gives_the_same_codes_and_pixels(tmp_path):
    pytest.importorskip("attr", reason="needs openai/DALL-E's dependency attrs")
    dall_e = pytest.importorskip("dall_e", reason="needs the package DALL-E of openai/DALL-E")
    torch.manual_seed(3)
    encoder, decoder = dall_e.Encoder(n_hid=64, vocab_size=512), dall_e.Decoder(n_hid=64, vocab_size=512)
    for number, options in enumerate(FORMS.values()):
        torch.save(encoder, tmp_path / "encoder.pkl", **options)
        torch.save(decoder, tmp_path / "decoder.pkl", **options)
        output = tmp_path / f"dvae{number}"
        convert([tmp_path / "encoder.pkl", tmp_path / "decoder.pkl"], output)
        assert assert_parity(encoder, decoder, DiscreteVAE.from_pretrained(output).eval()) == 0
