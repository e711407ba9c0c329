"""A model with its own code loads where Mosaics is not installed, and is the same model."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from mosaics import VQVAE, AudioVQVAE, AudioVQVAEConfig, DiscreteVAE, VQVAEConfig
from mosaics.export import export_remote_code
from mosaics.export.flat_source import ExportError, flatten
from mosaics.models.dalle.dalle_pytorch import DallePytorchTransformer, DallePytorchTransformerConfig
from mosaics.models.dalle_pytorch_vae import DallePytorchVAE, DallePytorchVAEConfig
from mosaics.models.vqgan import VQGAN, VQGANConfig
from testing_utils import tiny_clip, tiny_dalle, tiny_dvae, tiny_pixelcnn, tiny_tokenizer, tiny_vqvae2, tiny_wavenet

SCRIPT = Path(__file__).with_name("load_without_mosaics.py")
SMALL = {"hidden_size": 8, "residual_hidden_size": 4, "embedding_dim": 4}


def seeded(kind, config):
    torch.manual_seed(9)
    return kind(config).eval()


def pictures(size):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def codes(*shape, high=16):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(1))


def cases():
    """Each model, and the calls that have to give the same with and without Mosaics."""
    tokenizer = [pictures(16)]
    vqvae2 = tiny_vqvae2()
    audio = seeded(
        AudioVQVAE, AudioVQVAEConfig(num_embeddings=16, hidden_size=8, decoder_hidden_size=8, num_dilations=3)
    )
    sound = torch.rand(2, 1, 640, generator=torch.Generator().manual_seed(0)) - 0.5
    dalle = tiny_dalle()
    text = codes(2, 12, high=300)
    vqgan = seeded(
        VQGAN,
        VQGANConfig(
            image_size=16,
            num_embeddings=16,
            embedding_dim=4,
            latent_channels=4,
            hidden_size=32,
            channel_multipliers=[1, 1],
            num_residual_layers=1,
            attention_levels=[],
        ),
    )
    dalle_pytorch = seeded(
        DallePytorchTransformer,
        DallePytorchTransformerConfig(
            hidden_size=32,
            num_hidden_layers=4,
            num_attention_heads=2,
            head_size=12,
            text_vocab_size=300,
            max_text_length=12,
            image_vocab_size=32,
            image_grid_size=4,
            attention_types=["full", "axial_row", "axial_col", "conv_like"],
            rotary_size=12,
        ),
    )
    return {
        "DiscreteVAE": (tiny_dvae().eval(), {"encode": tokenizer, "decode": [codes(2, 4, 4)], "forward": tokenizer}),
        "VQVAE": (
            seeded(VQVAE, VQVAEConfig(image_size=16, num_embeddings=32, quantizer="ema", **SMALL)),
            {"encode": tokenizer, "decode": [codes(2, 4, 4)], "forward": tokenizer},
        ),
        "VQVAE2": (vqvae2, {"encode": tokenizer, "decode": [(codes(2, 2, 2), codes(2, 4, 4))], "forward": tokenizer}),
        "AudioVQVAE": (audio, {"encode": [sound], "decode": [codes(2, 10)]}),
        "DalleTransformer": (dalle, {"forward": [text, codes(2, 4, 4, high=32)], "generate": [text, 2]}),
        "PixelCNN": (tiny_pixelcnn(), {"forward": [codes(2, 4, 6)], "generate": [2]}),
        "WaveNet": (tiny_wavenet(), {"forward": [codes(2, 20)], "generate": [2, 12]}),
        "VQGAN": (vqgan, {"encode": tokenizer, "decode": [codes(2, 8, 8)], "forward": tokenizer}),
        "DallePytorchVAE": (
            seeded(
                DallePytorchVAE, DallePytorchVAEConfig(image_size=16, num_layers=2, hidden_size=8, num_embeddings=32)
            ),
            {"encode": tokenizer, "decode": [codes(2, 4, 4)], "forward": tokenizer},
        ),
        "DallePytorchTransformer": (
            dalle_pytorch,
            {"forward": [text, codes(2, 4, 4, high=32)], "generate": [text, 2]},
        ),
    }


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """For every model what its calls give here and in a process without Mosaics, and the folder of the exports."""
    root, expected = tmp_path_factory.mktemp("exports"), {}
    for name, (model, inputs) in cases().items():
        export_remote_code(model, root / "models" / name)
        calls = {call: (given, {"seed": 5} if call == "generate" else {}) for call, given in inputs.items()}
        torch.save(calls, root / f"{name}-calls.pt")
        with torch.no_grad():
            expected[name] = {
                call: getattr(model, call)(*given, **options) for call, (given, options) in calls.items()
            }
        expected[name]["parameters"] = dict(model.state_dict())
    environment = os.environ | {"HF_HOME": str(root / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-I", str(SCRIPT), str(root)], env=environment, capture_output=True, text=True, timeout=400
    )
    assert process.returncode == 0, process.stderr[-6000:]
    return root, expected


def assert_same(found, expected, path=""):
    if isinstance(expected, torch.Tensor) and expected.is_floating_point() and ".parameters" not in path:
        torch.testing.assert_close(
            found, expected, rtol=1e-4, atol=1e-5
        )  # another number of threads may round otherwise
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), path
    elif hasattr(expected, "items"):
        assert set(found) == set(expected), path
        for name, value in expected.items():
            assert_same(found[name], value, f"{path}.{name}")
    else:
        for number, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
            assert_same(mine, theirs, f"{path}[{number}]")


@pytest.mark.parametrize("name", cases())
def test_the_exported_model_gives_the_same_without_mosaics(loaded, name):
    root, expected = loaded
    found = torch.load(root / f"{name}-found.pt", weights_only=True)
    assert_same(found, expected[name], name)


def test_the_code_is_our_source_with_a_licence_and_no_undefined_name(loaded):
    root, _ = loaded
    files = sorted((root / "models").glob("*/modeling_*.py"))
    assert len(files) == len(cases())
    for path in files:
        source = path.read_text()
        assert source.startswith(
            "# Copyright The Mosaics authors.\n#\n# Licensed under the Apache License, Version 2.0"
        )
        assert ast.get_docstring(ast.parse(source)).startswith(f"{path.parent.name} and all that it needs of Mosaics")
        assert "# -------------------- mosaics.models.weights_check\n" in source
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "F821,F811,F401",
        *map(str, files),
    ]
    assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == "All checks passed!"
    dvae = (root / "models" / "DiscreteVAE" / "modeling_dvae.py").read_text()
    assert "# A sum is finite only if every term is, and is far cheaper" in dvae, "comments stay"
    assert "def rotation_trick" not in dvae and "class HubSharingMixin" not in dvae, "only what is needed"


def test_the_check_for_undefined_names_would_find_a_missing_module(loaded, tmp_path):
    source = (loaded[0] / "models" / "DiscreteVAE" / "modeling_dvae.py").read_text()
    without = re.sub(r"# -{20} mosaics\.quantizers\.kmeans\n.*?(?=# -{20} )", "", source, flags=re.DOTALL)
    assert len(without) < len(source)
    (tmp_path / "modeling_dvae.py").write_text(without)
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", str(tmp_path)]
    assert "Undefined name `kmeans`" in subprocess.run(command, capture_output=True, text=True).stdout


def test_where_mosaics_is_imported_its_own_class_is_taken(loaded):
    folder = loaded[0] / "models" / "DiscreteVAE"
    assert set(json.loads((folder / "config.json").read_text())["auto_map"]) == {"AutoConfig", "AutoModel"}
    assert type(AutoModel.from_pretrained(folder)) is type(DiscreteVAE.from_pretrained(folder)) is DiscreteVAE


def test_a_saved_folder_is_exported_as_the_model_in_it(tmp_path):
    tiny_dvae().save_pretrained(tmp_path / "saved")
    path = export_remote_code(tmp_path / "saved", tmp_path / "exported")
    assert path == tmp_path / "exported" / "modeling_dvae.py" and path.is_file()
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("saved", "exported")]
    assert weights[0] == weights[1]


def test_models_of_others_are_not_exported(tmp_path):
    clip, _ = tiny_clip(tiny_tokenizer())
    with pytest.raises(TypeError, match=r"got a transformers\..*CLIPModel"):
        export_remote_code(clip, tmp_path / "clip")

    class Special(DiscreteVAE):
        pass

    with pytest.raises(TypeError, match="Special"):
        export_remote_code(Special(tiny_dvae().config), tmp_path / "special")
    assert not list(tmp_path.iterdir())


def test_a_needed_module_that_is_missing_is_an_error_and_nothing_is_written(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    missing = "mosaics.quantizers.kmeans"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(ExportError, match=r"mosaics\.quantizers\.kmeans, which the exported code needs, is missing"):
        export_remote_code(tiny_dvae(), tmp_path / "dvae")
    assert not (tmp_path / "dvae").exists()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from mosaics.likelihoods import map_pixels as m\n", "under another name"),
        ("from mosaics.sampling import *\n", "under another name"),
        ("def f():\n    from mosaics.sampling import draw\n", "inside a function"),
        ("from mosaics.likelihoods import map_pixels\n\n\ndef map_pixels():\n    pass\n", "two things"),
        ("import mosaics.sampling\n", "still imports mosaics"),
        ("from mosaics.quantizers import nothing\n", "does not import it by name"),
        ("import math\nfrom mosaics.likelihoods import map_pixels\n\nmath = 3\n", "two things"),
    ],
)
def test_source_that_cannot_be_put_into_one_file_is_refused(tmp_path, monkeypatch, source, expected):
    (tmp_path / "odd_module.py").write_text(source + "\nused = mosaics if 0 else 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ExportError, match=expected):
        flatten("odd_module")
