"""The transformer of ruDALL-E: the same layers and logits as a second implementation; the second version refused."""

import pytest
import torch

from converters.rudalle_reference import (
    HEADS,
    IMAGE_VOCAB,
    LAYERS,
    TEXT_LENGTH,
    TEXT_VOCAB,
    WIDTH,
    RuDalleReference,
)
from converters.traces import largest_difference, trace
from mosaics.converters import convert, detect, rudalle
from mosaics.converters.errors import KeyMismatchError, UnknownFormatError, UnsupportedVariantError
from mosaics.models.dalle import DalleTransformer
from mosaics.models.dalle.decoder import Decoder

ALL_TEXT = TEXT_VOCAB + TEXT_LENGTH


@pytest.fixture
def heads_of_the_tiny_model(monkeypatch):
    monkeypatch.setitem(rudalle.HEADS, WIDTH, HEADS)


def tokens(grid):
    generator = torch.Generator().manual_seed(4)
    text = torch.randint(1, TEXT_VOCAB, (2, TEXT_LENGTH), generator=generator)
    text[0, 3:] = 0
    return text, torch.randint(IMAGE_VOCAB, (2, grid, grid), generator=generator)


@pytest.mark.usefixtures("heads_of_the_tiny_model")
def test_version_3_converts(tmp_path):
    reference = RuDalleReference()
    torch.save(reference.state, tmp_path / "pytorch_model_v3.bin")
    (tmp_path / "bpe.model").write_text("4 2")
    assert detect(tmp_path) == "rudalle-v3"
    report = convert(tmp_path, tmp_path / "out" / "transformer")
    masks = {f"transformer.{kind}_mask" for kind in ("row", "col", "conv")}
    assert set(report.dropped) == {*masks, "bpe.model"}
    kept = {key: tensor for key, tensor in reference.state.items() if not key.endswith("_mask")}
    assert report.num_compared == sum(tensor.numel() for tensor in kept.values())
    model = DalleTransformer.from_pretrained(tmp_path / "out" / "transformer").eval()
    assert model.config.layer_patterns == ("row", "column", "row", "window") and model.config.pad_token_id == 0

    text, indices = tokens(reference.grid)
    output, layers = trace(model, ("DalleLayer",), lambda: model(text, indices))
    expected = reference.logits(text, indices.flatten(start_dim=1)[:, :-1])
    assert len(layers) == LAYERS and largest_difference(layers, reference.trace) <= 1e-5
    assert (output.text_logits - expected[:, : TEXT_LENGTH - 1, :ALL_TEXT]).abs().max() <= 1e-4
    assert (output.image_logits - expected[:, TEXT_LENGTH - 1 :, ALL_TEXT:]).abs().max() <= 1e-4
    assert output.image_logits.std() > 0.5

    decoder = Decoder(model)  # and one token at a time
    hidden = decoder.read_text(text)
    decoder.allocate(1)
    with torch.no_grad():
        for position, column in enumerate(indices.flatten(start_dim=1).T):
            logits = decoder.logits(hidden)
            assert (logits - expected[:, TEXT_LENGTH - 1 + position, ALL_TEXT:]).abs().max() <= 1e-4
            if position + 1 < reference.grid**2:
                hidden = decoder.step(column, position)


@pytest.mark.usefixtures("heads_of_the_tiny_model")
def test_version_2_is_told_by_its_mask_and_refused(tmp_path):
    reference = RuDalleReference()
    reference.state["transformer.conv_mask"] = reference.mask("conv", wrap=True)
    torch.save(reference.state, tmp_path / "pytorch_model_v2.bin")
    assert detect(tmp_path) == "rudalle-v2"
    with pytest.raises(UnsupportedVariantError, match="one more token before the text"):
        convert(tmp_path, tmp_path / "out")


@pytest.mark.usefixtures("heads_of_the_tiny_model")
def test_without_a_mask_the_user_has_to_name_the_version(tmp_path):
    state = {key: tensor for key, tensor in RuDalleReference().state.items() if not key.endswith("_mask")}
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(UnknownFormatError, match="could be rudalle-v3, rudalle-v2: name one"):
        convert(tmp_path, tmp_path / "out")
    report = convert(tmp_path, tmp_path / "out" / "half", format="rudalle-v3", dtype="float16")
    assert not report.dropped and report.num_compared == sum(tensor.numel() for tensor in state.values())


def test_unknown_heads_and_missing_tensors_are_named(tmp_path, monkeypatch):
    state = RuDalleReference().state
    torch.save(state, tmp_path / "x.bin")
    with pytest.raises(UnsupportedVariantError, match="2048 units and 16 heads, 3840 units and 60 heads"):
        convert(tmp_path / "x.bin", tmp_path / "out")
    monkeypatch.setitem(rudalle.HEADS, WIDTH, HEADS)
    del state["transformer.layers.2.before_second_addition_layernorm.bias"]
    torch.save(state, tmp_path / "x.bin")
    with pytest.raises(KeyMismatchError, match=r"no tensor 'transformer.layers.2.before_second_addition_layernorm"):
        convert(tmp_path / "x.bin", tmp_path / "out")
