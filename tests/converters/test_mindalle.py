"""minDALL-E: the same ids, layers, logits and pixels as a second implementation, and a pipeline that draws."""

import json
from itertools import pairwise

import pytest
import torch
import yaml
from torch.nn import functional as F
from transformers import AutoTokenizer

from converters.mindalle_reference import GRID, LAYERS, TEXT_LENGTH, WIDTH, MinDalleReference
from converters.taming_reference import VQGANReference
from converters.traces import largest_difference, trace
from mosaics.converters import ConversionError, convert, detect
from mosaics.converters.errors import KeyMismatchError, MissingSourceError, UnsupportedVariantError
from mosaics.data.captions import tokenize
from mosaics.models.dalle import DalleTransformer
from mosaics.models.vqgan import VQGAN
from mosaics.pipelines.dalle import DallePipeline

MERGES = ["a n", "r e", "re d</w>", "an d</w>", "c a", "ca t</w>", "b i", "bi r", "bir d</w>"]
LETTERS = "abcdefghijklmnopqrstuvwxyz,."
IMAGE_CODES = 40
PROMPTS = ["A red Cat, and a bird.", "bird", "a red  Crab, and"]


def vocabulary():
    symbols = [*LETTERS, *(letter + "</w>" for letter in LETTERS), *("".join(merge.split()) for merge in MERGES)]
    return {symbol: number for number, symbol in enumerate(["[PAD]", "[UNK]", *symbols])}


def reference_ids(text):
    """Lower case, punctuation apart, the earliest merge first; characters outside of the vocabulary are `[UNK]`."""
    ids, known, ranks = [], vocabulary(), [tuple(merge.split()) for merge in MERGES]
    for word in "".join(f" {letter} " if letter in ",." else letter for letter in text.lower()).split():
        pieces = [*word[:-1], word[-1] + "</w>"]
        while pairs := [pair for pair in pairwise(pieces) if pair in ranks]:
            best = min(pairs, key=ranks.index)
            place = list(pairwise(pieces)).index(best)
            pieces[place : place + 2] = ["".join(best)]
        ids += [known.get(piece, known["[UNK]"]) for piece in pieces]
    return ids


def save_archive(folder, first=None, second=None, **options):
    (folder / "tokenizer").mkdir(parents=True)
    first = first or VQGANReference(multipliers=(1, 2, 2), attention=(2,))
    second = second or MinDalleReference(len(vocabulary()), IMAGE_CODES)
    torch.save({"state_dict": first.state}, folder / "stage1_last.ckpt")
    torch.save({"state_dict": second.state}, folder / "stage2_last.ckpt")
    (folder / "tokenizer" / "bpe-16k-vocab.json").write_text(json.dumps(vocabulary()))
    (folder / "tokenizer" / "bpe-16k-merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n")
    settings = {"stage1": {"hparams": {"resolution": 16}}, "stage2": {"hparams": {"n_heads": 24, **options}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return first, second


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mindalle")
    first, second = save_archive(folder / "1.3B")
    assert detect(folder / "1.3B") == "mindalle"
    report = convert(folder / "1.3B", folder / "pipeline")
    assert report.models == {"transformer": "DalleTransformer", "dvae": "VQGAN"} and not report.dropped
    assert report.num_compared == sum(tensor.numel() for part in (first, second) for tensor in part.state.values())
    return folder / "pipeline", first, second


def test_the_tokenizer_gives_the_same_ids(converted):
    tokenizer = AutoTokenizer.from_pretrained(converted[0] / "tokenizer")
    assert (tokenizer.pad_token_id, tokenizer.model_max_length) == (0, TEXT_LENGTH)
    for prompt in PROMPTS:
        assert tokenizer(prompt)["input_ids"] == reference_ids(prompt)
    assert tokenizer("a ж")["input_ids"] == [vocabulary()["a</w>"], 1] == reference_ids("a ж")
    ids = tokenize(tokenizer, ["a red bird"])
    assert ids.tolist() == [reference_ids("a red bird") + [0] * (TEXT_LENGTH - 3)]


@torch.no_grad()
def test_the_transformer_gives_the_same_layers_and_logits(converted):
    folder, _, second = converted
    model = DalleTransformer.from_pretrained(folder, subfolder="transformer").eval()
    assert model.config.layer_patterns == ("full",) * LAYERS and model.config.image_positions == "learned"
    generator = torch.Generator().manual_seed(5)
    text = torch.randint(2, len(vocabulary()), (3, TEXT_LENGTH), generator=generator)
    text[0, 4:], text[1, 1:] = 0, 0
    indices = torch.randint(IMAGE_CODES, (3, GRID, GRID), generator=generator)
    output, layers = trace(model, ("DalleLayer",), lambda: model(text, indices))
    second.trace.clear()
    expected_text, expected_image = second.logits(text, indices.flatten(start_dim=1))
    assert largest_difference(layers, [states[:, :-1] for states in second.trace]) <= 1e-5
    assert (output.text_logits - expected_text).abs().max() <= 1e-4
    assert (output.image_logits - expected_image).abs().max() <= 1e-4 and expected_image.std() > 0.5


@torch.no_grad()
def test_the_pipeline_draws_what_the_reference_draws(converted):
    folder, first, second = converted
    pipe = DallePipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    output = pipe(PROMPTS[1:], temperature=0.0, output_type="pt", seed=0)
    tokens = torch.tensor(
        [reference_ids(text) + [0] * (TEXT_LENGTH - len(reference_ids(text))) for text in PROMPTS[1:]]
    )
    indices = torch.zeros(2, GRID**2, dtype=torch.long)
    for position in range(GRID**2):
        indices[:, position] = second.logits(tokens, indices)[1][:, position].argmax(dim=-1)
    assert torch.equal(output.indices.flatten(start_dim=1), indices) and len(indices.unique()) > 3
    assert (output.images - first.pixels(indices.view(2, GRID, GRID))).abs().max() <= 1e-4


def test_codes_are_tied_to_their_image_tokenizer(converted):
    folder, _, _ = converted
    model = DalleTransformer.from_pretrained(folder, subfolder="transformer")
    dvae = VQGAN.from_pretrained(folder, subfolder="dvae")
    with torch.no_grad():
        dvae.bottleneck.quantizer.codebook.mul_(-1)
    with pytest.raises(ValueError, match="was trained on the codes of codebook"):
        DallePipeline(AutoTokenizer.from_pretrained(folder / "tokenizer"), model, dvae)


def test_the_approximate_gelu_of_the_settings_is_taken(tmp_path):
    _, second = save_archive(tmp_path / "in", gelu_use_approx=True)
    convert(tmp_path / "in", tmp_path / "out")
    model = DalleTransformer.from_pretrained(tmp_path / "out", subfolder="transformer").eval()
    text, image = torch.ones(1, TEXT_LENGTH, dtype=torch.long), torch.zeros(1, GRID, GRID, dtype=torch.long)
    with torch.no_grad():
        ours = model(text, image).image_logits
    expected = second.logits(text, image.flatten(start_dim=1), lambda x: x * torch.sigmoid(1.702 * x))[1]
    exact = second.logits(text, image.flatten(start_dim=1), F.gelu)[1]
    assert (ours - expected).abs().max() <= 1e-4 < (ours - exact).abs().max()


def test_what_is_missing_or_does_not_fit_is_named(tmp_path):
    save_archive(tmp_path / "in")
    stage1, stage2 = tmp_path / "in" / "stage1_last.ckpt", tmp_path / "in" / "stage2_last.ckpt"
    others = [path for path in sorted((tmp_path / "in").rglob("*")) if path.suffix in (".json", ".txt", ".yaml")]
    with pytest.raises(MissingSourceError, match=r"the first stage is missing .*stage1_last.ckpt"):
        convert([stage2, *others], tmp_path / "out")
    with pytest.raises(MissingSourceError, match=r"one file \*vocab.json of the tokenizer is needed, got none"):
        convert([stage1, stage2], tmp_path / "out")
    state = torch.load(stage2)["state_dict"]
    for key, message in (
        ("head_txt.weight", "no tensor 'head_txt.weight'"),
        ("blocks.1.attn.query.bias", "query.bias"),
    ):
        torch.save({"state_dict": {name: value for name, value in state.items() if name != key}}, stage2)
        with pytest.raises(KeyMismatchError, match=message):
            convert(tmp_path / "in", tmp_path / "out")
    torch.save({"state_dict": state | {"blocks.0.attn.mask": torch.ones(2)}}, stage2)
    with pytest.raises(KeyMismatchError, match=r"no place for: 'blocks.0.attn.mask'"):
        convert(tmp_path / "in", tmp_path / "out")
    torch.save({"state_dict": {"sos": torch.ones(1, 1, WIDTH), **state}}, stage2)
    with pytest.raises(UnsupportedVariantError, match="variant for ImageNet"):
        convert(tmp_path / "in", tmp_path / "out")
    torch.save({"state_dict": state | {"pos_emb_img.weight": torch.ones(64, WIDTH)}}, stage2)
    with pytest.raises(KeyMismatchError, match=r"draws 8 x 8 codes of 40; stage1_last.ckpt has 4 x 4"):
        convert(tmp_path / "in", tmp_path / "out")
    torch.save({"state_dict": state}, stage2)
    (tmp_path / "in" / "config.yaml").write_text("stage2: {hparams: {n_heads: 7}}")
    with pytest.raises(ConversionError, match="n_heads=7, which does not divide the width 48"):
        convert(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
