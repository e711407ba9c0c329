"""ruDALL-E: the same ids, layers, logits and pixels as a second implementation, and a pipeline that draws."""

import json
import shutil

import pytest
import torch
import yaml
from PIL import Image

from converters.rudalle_reference import (
    HEADS,
    IMAGE_VOCAB,
    LAYERS,
    TEXT_LENGTH,
    TEXT_VOCAB,
    WIDTH,
    RuDalleReference,
)
from converters.taming_reference import VQGANReference
from converters.traces import largest_difference, trace
from converters.youtokentome_reference import YouTokenToMeReference
from mosaics.converters import convert, detect, rudalle
from mosaics.converters.errors import (
    ForeignFileError,
    KeyMismatchError,
    MissingSourceError,
    UnknownFormatError,
    UnsupportedVariantError,
)
from mosaics.models.dalle import DalleTransformer
from mosaics.models.dalle.decoder import Decoder
from mosaics.models.vqgan import VQGAN
from mosaics.pipelines.dalle import DallePipeline

ALL_TEXT = TEXT_VOCAB + TEXT_LENGTH
PATTERNS = {3: ("row", "column", "row", "window"), 2: ("row", "column", "row", "torus")}
PROMPTS = ["Рыжий КОТ", "кот", "два кота"]


@pytest.fixture(autouse=True)
def heads_of_the_tiny_model(monkeypatch):
    monkeypatch.setitem(rudalle.HEADS, WIDTH, HEADS)


def tokens(grid):
    generator = torch.Generator().manual_seed(4)
    text = torch.randint(1, TEXT_VOCAB, (2, TEXT_LENGTH), generator=generator)
    text[0, 3:] = 0
    return text, torch.randint(IMAGE_VOCAB, (2, grid, grid), generator=generator)


def extended(text, version):
    """A text as version 2 of the model reads it: with one more bos token."""
    return torch.nn.functional.pad(text, (1, 0), value=2) if version == 2 else text


@pytest.mark.parametrize("version", [3, 2])
def test_a_transformer_converts(tmp_path, version):
    reference = RuDalleReference(version)
    torch.save(reference.state, tmp_path / "pytorch_model.bin")
    (tmp_path / "notes.txt").write_text("two words")
    assert detect(tmp_path) == f"rudalle-v{version}"
    report = convert(tmp_path, tmp_path / "out" / "transformer")
    masks = {f"transformer.{kind}_mask" for kind in ("row", "col", "conv")}
    assert set(report.dropped) == {*masks, "notes.txt"} and report.models == {"": "DalleTransformer"}
    kept = {key: tensor for key, tensor in reference.state.items() if not key.endswith("_mask")}
    assert report.num_compared == sum(tensor.numel() for tensor in kept.values())
    model = DalleTransformer.from_pretrained(tmp_path / "out" / "transformer").eval()
    assert model.config.layer_patterns == PATTERNS[version] and model.config.pad_token_id == 0

    text, indices = tokens(reference.grid)
    length = model.config.max_text_length
    assert length == TEXT_LENGTH + (version == 2)
    expected = reference.logits(text, indices.flatten(start_dim=1)[:, :-1])
    text = extended(text, version)
    output, layers = trace(model, ("DalleLayer",), lambda: model(text, indices))
    assert len(layers) == LAYERS and largest_difference(layers, reference.trace) <= 1e-5
    assert (output.text_logits - expected[:, : length - 1, :ALL_TEXT]).abs().max() <= 1e-4
    assert (output.image_logits - expected[:, length - 1 :, ALL_TEXT:]).abs().max() <= 1e-4
    assert output.image_logits.std() > 0.5

    with torch.no_grad():  # a text of pads only, which version 2 reads with the additional token too
        nothing = model(torch.zeros_like(text), indices).text_logits
        expected_nothing = reference.logits(torch.zeros(2, TEXT_LENGTH, dtype=torch.long), indices.flatten(1)[:, :0])
    assert (nothing - expected_nothing[:, : length - 1, :ALL_TEXT]).abs().max() <= 1e-4

    decoder = Decoder(model)  # and one token at a time
    hidden = decoder.read_text(text)
    decoder.allocate(1)
    with torch.no_grad():
        for position, column in enumerate(indices.flatten(start_dim=1).T):
            logits = decoder.logits(hidden)
            assert (logits - expected[:, length - 1 + position, ALL_TEXT:]).abs().max() <= 1e-4
            if position + 1 < reference.grid**2:
                hidden = decoder.step(column, position)


def test_without_a_mask_the_user_has_to_name_the_version(tmp_path):
    state = {key: tensor for key, tensor in RuDalleReference().state.items() if not key.endswith("_mask")}
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(UnknownFormatError, match="could be rudalle-v3, rudalle-v2: name one"):
        convert(tmp_path, tmp_path / "out")
    report = convert(tmp_path, tmp_path / "out" / "half", format="rudalle-v3", dtype="float16")
    assert not report.dropped and report.num_compared == sum(tensor.numel() for tensor in state.values())
    for mask in (torch.ones(152, 152), torch.ones(4), torch.ones(0, 0)):  # the mask of no version
        torch.save(state | {"transformer.conv_mask": mask}, tmp_path / "pytorch_model.bin")
        with pytest.raises(UnknownFormatError, match="could be rudalle-v3, rudalle-v2: name one"):
            detect(tmp_path / "pytorch_model.bin")


def test_unknown_heads_are_named(tmp_path, monkeypatch):
    monkeypatch.delitem(rudalle.HEADS, WIDTH)
    torch.save(RuDalleReference().state, tmp_path / "x.bin")
    with pytest.raises(UnsupportedVariantError, match="2048 units and 16 heads, 3840 units and 60 heads"):
        convert(tmp_path / "x.bin", tmp_path / "out")


def save_parts(folder, version=3):
    """Transformer, VQGAN and tokenizer of random weights, and the VQGAN's settings."""
    transformer = RuDalleReference(version)
    vqgan = VQGANReference(kind="gumbel", multipliers=(1, 2), attention=(1,))
    tokenizer = YouTokenToMeReference("абвдежийкортуы.", ["рыжий", "кот", "кота", "два"])
    assert tokenizer.vocab_size < TEXT_VOCAB
    torch.save(transformer.state, folder / "pytorch_model.bin")
    torch.save({"state_dict": vqgan.state, "epoch": 1}, folder / "vqgan.gumbelf8-sber.model.ckpt")
    (folder / "bpe.model").write_text(tokenizer.file())
    settings = {"model": {"params": {"ddconfig": {"resolution": 2 * transformer.grid}}}}
    (folder / "vqgan.gumbelf8-sber.config.yml").write_text(yaml.safe_dump(settings))
    return transformer, vqgan, tokenizer


@pytest.fixture(scope="module", params=[3, 2])
def converted(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rudalle")
    (folder / "in").mkdir()
    references = save_parts(folder / "in", request.param)
    assert detect(folder / "in") == f"rudalle-v{request.param}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(rudalle.HEADS, WIDTH, HEADS)
        report = convert(folder / "in", folder / "pipeline")
    assert report.models == {"transformer": "DalleTransformer", "dvae": "VQGAN"}
    masks = {f"transformer.{kind}_mask" for kind in ("row", "col", "conv")}
    assert set(report.dropped) == masks
    return folder / "pipeline", *references


@torch.no_grad()
def test_the_pipeline_draws_what_the_reference_draws(converted, tmp_path):
    folder, transformer, vqgan, tokenizer = converted
    pipe = DallePipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    output = pipe(PROMPTS, temperature=0.0, output_type="pt", seed=0)
    text = torch.tensor([tokenizer.encode_prompt(prompt, TEXT_LENGTH) for prompt in PROMPTS])
    assert torch.equal(
        pipe.tokenizer(PROMPTS, padding="max_length", return_tensors="pt").input_ids,
        extended(text, transformer.version),
    )
    indices = torch.zeros(len(PROMPTS), 0, dtype=torch.long)
    for _ in range(transformer.grid**2):
        logits = transformer.logits(text, indices)[:, -1, ALL_TEXT:]
        indices = torch.cat([indices, logits.argmax(dim=-1, keepdim=True)], dim=1)
    assert torch.equal(output.indices.flatten(start_dim=1), indices) and len(indices.unique()) > 3
    pixels = vqgan.pixels(indices.view(-1, transformer.grid, transformer.grid))
    assert (output.images - pixels).abs().max() <= 1e-4 and pixels.std() > 0.1

    pipe.save_pretrained(tmp_path)
    again = DallePipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    sampled = [part(PROMPTS, top_k=20, output_type="pt", seed=3).images for part in (pipe, again)]
    assert torch.equal(*sampled) and not torch.equal(sampled[0], output.images)


def test_the_folder_says_where_it_comes_from_and_how_it_draws(converted, tmp_path, monkeypatch):
    folder = converted[0]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0" in card
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "copy"))
    exec(card.split("```python\n")[1].split("```")[0], {})  # the program of the card
    with Image.open("picture.png") as picture:
        assert picture.size == (24, 24)
    sources = json.loads((folder / "conversion.json").read_text())["sources"]
    assert {source["file"] for source in sources} >= {"bpe.model", "pytorch_model.bin"}


def test_codes_are_tied_to_their_image_tokenizer(converted):
    folder = converted[0]
    dvae = VQGAN.from_pretrained(folder, subfolder="dvae")
    with torch.no_grad():
        dvae.bottleneck.quantizer.codebook.mul_(-1)
    pipe = DallePipeline.from_pretrained(folder)
    with pytest.raises(ValueError, match="was trained on the codes of codebook"):
        DallePipeline(pipe.tokenizer, pipe.transformer, dvae)


def test_what_is_missing_or_does_not_fit_is_named(tmp_path):
    (tmp_path / "in").mkdir()
    save_parts(tmp_path / "in")
    transformer, vqgan, bpe, settings = (
        tmp_path / "in" / name
        for name in (
            "pytorch_model.bin",
            "vqgan.gumbelf8-sber.model.ckpt",
            "bpe.model",
            "vqgan.gumbelf8-sber.config.yml",
        )
    )

    def refused(error, message, *files):
        with pytest.raises(error, match=message):
            convert(files or tmp_path / "in", tmp_path / "out")

    refused(MissingSourceError, "the VQGAN, vqgan.gumbelf8-sber.model.ckpt, is missing", transformer, bpe)
    refused(MissingSourceError, "the tokenizer, bpe.model, is missing", transformer, vqgan, settings)
    refused(KeyMismatchError, r"draws 12 x 12 codes of 40; vqgan\S+ has 128 x 128", transformer, vqgan, bpe)
    refused(KeyMismatchError, "one file with the weights of a transformer", transformer, transformer, vqgan, bpe)
    refused(KeyMismatchError, "at most one with those of its VQGAN", transformer, vqgan, vqgan, bpe, settings)

    content = bpe.read_text()
    bpe.write_text(content[: len(content) // 2])
    refused(ForeignFileError, "bpe.model is cut short")
    bpe.write_text(YouTokenToMeReference("".join(map(chr, range(1, 57))), []).file())
    refused(KeyMismatchError, "bpe.model has tokens up to 60, pytorch_model.bin up to 59")
    bpe.write_text(content)

    state = torch.load(vqgan)["state_dict"]
    wavelets = {f"model.{key}".replace("model.decoder.", "model.decoder.decoder."): state[key] for key in state}
    wavelets |= {"model.decoder.post_quant_conv.weight": torch.ones(1), "model.decoder.idwt.g0_col": torch.ones(1)}
    torch.save({"state_dict": wavelets}, vqgan)
    refused(UnsupportedVariantError, "decoder over wavelets")
    assert detect(vqgan) == "taming-vqgan"
    refused(UnsupportedVariantError, "decoder over wavelets", vqgan)
    torch.save({"state_dict": state}, vqgan)

    state = torch.load(transformer)
    del state["transformer.layers.2.before_second_addition_layernorm.bias"]
    torch.save(state, transformer)
    refused(KeyMismatchError, r"no tensor 'transformer.layers.2.before_second_addition_layernorm")
    refused(KeyMismatchError, r"no tensor 'transformer.layers.2.before_second_addition_layernorm", transformer)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
