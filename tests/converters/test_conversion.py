"""The output of a conversion is complete or absent, and says where it comes from."""

import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from huggingface_hub import ModelCard

import mosaics
from converters.openai_modules import Decoder, Encoder, save_halves
from mosaics.converters import FORMATS, ConversionError, convert, detect
from mosaics.converters.errors import KeyMismatchError, OutputError, RefusedGlobalsError, UnknownFormatError
from mosaics.models.dvae import DiscreteVAE


@pytest.fixture
def sources(tmp_path):
    (tmp_path / "in").mkdir()
    torch.manual_seed(0)
    return save_halves(tmp_path / "in", Encoder(), Decoder())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_says_where_its_weights_come_from(tmp_path, sources):
    convert(sources, tmp_path / "out" / "dvae")
    folder = tmp_path / "out" / "dvae"
    assert {"config.json", "model.safetensors", "conversion.json", "README.md"} <= set(names(folder))
    assert names(tmp_path / "out") == ["dvae"]
    provenance = json.loads((folder / "conversion.json").read_text())
    assert provenance["format"] == "openai-dvae" and provenance["mosaics_version"] == mosaics.__version__
    assert provenance["project"] == "https://github.com/openai/DALL-E" and provenance["dropped"] == {}
    assert "MIT" in provenance["weights_license"]
    for record, path in zip(provenance["sources"], sources, strict=True):
        data = path.read_bytes()
        assert record == {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.library_name, card.data.tags[:2]) == (
        "other",
        "mosaics",
        ["mosaics", "converted"],
    )
    assert provenance["project"] in card.text and "MIT" in card.text and mosaics.__version__ in card.text
    assert all(f"`{path.name}`" in card.text for path in sources)
    program = card.text.split("```python\n")[1].split("```")[0]
    subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=folder, check=True)
    assert oct(folder.stat().st_mode & 0o777) == oct(0o777 & ~current_umask())


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_an_output_that_holds_something_is_refused_and_kept(tmp_path, sources):
    full = tmp_path / "full"
    full.mkdir()
    (full / "precious").write_text("x")
    with pytest.raises(OutputError, match="is not empty"):
        convert(sources, full)
    assert names(full) == ["precious"]
    with pytest.raises(OutputError, match="not a folder"):
        convert(sources, full / "precious")
    (tmp_path / "link").symlink_to(full)
    with pytest.raises(OutputError, match="not a folder"):
        convert(sources, tmp_path / "link")
    with pytest.raises(OutputError, match="cannot be written"):
        convert(sources, full / "precious" / "below")


def test_an_empty_folder_is_filled(tmp_path, sources):
    (tmp_path / "out").mkdir()
    convert(sources, tmp_path / "out")
    assert "model.safetensors" in names(tmp_path / "out")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError])
def test_an_interrupted_conversion_leaves_nothing(tmp_path, sources, monkeypatch, error):
    def stop(*args, **kwargs):
        raise error("now")

    monkeypatch.setattr("mosaics.converters.conversion.card_text", stop)
    with pytest.raises(OutputError if error is OSError else error):
        convert(sources, tmp_path / "out" / "dvae")
    assert names(tmp_path / "out") == []


KILLED = """
import os, signal, sys
import mosaics.converters.conversion as conversion

conversion.card_text = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
conversion.convert(sys.argv[2:], sys.argv[1])
"""


def test_a_killed_conversion_leaves_no_output_and_the_next_one_works(tmp_path, sources):
    output = tmp_path / "out" / "dvae"
    killed = subprocess.run([sys.executable, "-c", KILLED, output, *sources], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not output.exists()
    convert(sources, output)
    assert DiscreteVAE.from_pretrained(output).config.num_embeddings == 24


def test_a_bit_changed_on_the_way_is_found_before_the_output_appears(tmp_path, sources, monkeypatch):
    save = DiscreteVAE.save_pretrained

    def save_with_a_fault(self, folder, state_dict=None, **kwargs):
        changed = {key: tensor.clone() for key, tensor in state_dict.items()}
        changed["decoder.output.bias"].view(torch.int32)[2] ^= 1
        save(self, folder, state_dict=changed, **kwargs)

    monkeypatch.setattr(DiscreteVAE, "save_pretrained", save_with_a_fault)
    with pytest.raises(KeyMismatchError, match=r"'decoder.blocks.output.conv.b' was not written as it was read"):
        convert(sources, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_overflow_the_dtype_are_refused(tmp_path):
    encoder = Encoder()
    with torch.no_grad():
        encoder.blocks.input.b[0] = 1e6
    sources = save_halves(tmp_path, encoder, Decoder())
    with pytest.raises(KeyMismatchError, match=r"encoder.input.bias.*float16"):
        convert(sources, tmp_path / "out", dtype="float16")
    with pytest.raises(ConversionError, match="dtype must be one of float32, float16, bfloat16, got 'int8'"):
        convert(sources, tmp_path / "out", dtype="int8")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    encoder = Encoder()
    with torch.no_grad():
        encoder.blocks.input.w[0, 0, 0, 0] = float("nan")
    with pytest.raises(KeyMismatchError, match=r"'encoder.blocks.input.w' has 1 of"):
        convert(save_halves(tmp_path, encoder, Decoder()), tmp_path / "out")


def test_unknown_files_are_refused_with_what_they_hold_and_what_is_known(tmp_path):
    torch.save({"layer.weight": torch.ones(2), "layer.bias": torch.ones(2)}, tmp_path / "x.pt")
    with pytest.raises(UnknownFormatError, match=r"x.pt holds 2 entries: 'layer.weight'.*openai-dvae \(encoder.pkl"):
        detect(tmp_path / "x.pt")
    (tmp_path / "notes.txt").write_text("x: 1")
    with pytest.raises(UnknownFormatError, match="There are no weights"):
        detect(tmp_path / "notes.txt")
    with pytest.raises(UnknownFormatError, match="'nothing' is not known; known are openai-dvae"):
        convert(tmp_path / "x.pt", tmp_path / "out", format="nothing")
    with pytest.raises(ConversionError, match=r"x.pt is neither the encoder nor the decoder"):
        convert(tmp_path / "x.pt", tmp_path / "out", format="openai-dvae")


class Touch:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_hostile_file_beside_good_ones_stops_the_conversion(tmp_path, sources):
    torch.save({"w": torch.ones(1), "x": Touch(tmp_path / "ran")}, tmp_path / "in" / "more.pt")
    with pytest.raises(RefusedGlobalsError, match=r"more.pt asks for posix.system"):
        convert(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


def test_every_format_describes_itself():
    for name, form in FORMATS.items():
        assert form.name == name and form.description.endswith(".") and form.project.startswith("https://")
        assert form.sources and all(isinstance(source, str) for source in form.sources) and form.weights_license
