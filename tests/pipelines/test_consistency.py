"""Parts that were not made for each other do not become a pipeline; folders that are no pipeline are not loaded."""

import json
import shutil

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from mosaics import VQVAE, DallePipeline, VQVAEConfig, default_checkpoint
from mosaics.models.codebook_identity import codebook_id
from mosaics.models.weights_check import WeightsError
from mosaics.pipelines import default
from mosaics.pipelines.consistency import ComponentsDisagreeError
from mosaics.pipelines.hub import PipelineFolderError
from testing_utils import tiny_clip, tiny_dalle, tiny_dvae, tiny_pipeline, tiny_tokenizer


@pytest.fixture(scope="module")
def parts():
    return tiny_pipeline().components


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (lambda: {"dvae": tiny_dvae(num_embeddings=64)}, ("32", "64", "num_embeddings")),
        (lambda: {"dvae": tiny_dvae(image_size=32)}, ("4", "8", "grid_size")),
        (lambda: {"transformer": tiny_dalle(text_vocab_size=299, max_text_length=24)}, ("300", "299")),
        (lambda: {"transformer": tiny_dalle(max_text_length=16)}, ("24", "16", "max_text_length")),
        (lambda: {"transformer": tiny_dalle(max_text_length=24, pad_token_id=7)}, ("0", "7", "pad")),
        (lambda: {"clip": tiny_clip(tiny_tokenizer(max_length=10))[0]}, ("11", "25", "max_position_embeddings")),
    ],
)
def test_disagreeing_parts_are_refused_with_both_numbers(parts, changes, expected):
    with pytest.raises(ComponentsDisagreeError) as error:
        DallePipeline(**(parts | changes()))
    assert all(text in str(error.value) for text in expected)


def test_a_tokenizer_of_several_codes_at_a_position_is_refused(parts):
    config = {"image_size": 16, "num_embeddings": parts["dvae"].config.num_embeddings, "hidden_size": 8}
    vqvae = VQVAE(VQVAEConfig(**config, embedding_dim=4, latents_per_position=2))
    with pytest.raises(ComponentsDisagreeError, match="latents_per_position=2 codes at each position"):
        DallePipeline(**(parts | {"dvae": vqvae}))


def test_a_codebook_of_another_dvae_is_refused(parts):
    transformer = tiny_dalle(parts["tokenizer"], parts["dvae"], codebook_id=codebook_id(parts["dvae"]))
    DallePipeline(**(parts | {"transformer": transformer}))
    DallePipeline(**(parts | {"transformer": transformer, "dvae": tiny_dvae().to(torch.bfloat16)}))
    other = tiny_dvae()
    with torch.no_grad():
        other.decoder.quantizer.codebook.neg_()
    with pytest.raises(ComponentsDisagreeError) as error:
        DallePipeline(**(parts | {"transformer": transformer, "dvae": other}))
    assert codebook_id(other) in str(error.value) and codebook_id(parts["dvae"]) in str(error.value)


def test_a_clip_that_pools_elsewhere_is_refused(parts):
    clip, _ = tiny_clip(parts["tokenizer"])
    clip.config.text_config.eos_token_id = 49407
    with pytest.raises(ComponentsDisagreeError, match="eos_token_id=49407"):
        DallePipeline(**(parts | {"clip": clip}))
    with pytest.raises(ComponentsDisagreeError, match="vocab_size"):
        clip.config.text_config.vocab_size = 100
        DallePipeline(**(parts | {"clip": clip}))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("transformer", torch.nn.Linear(1, 1), "transformer must be a DalleTransformer, got Linear"),
        ("dvae", torch.nn.Linear(1, 1), "dvae must be"),
        ("tokenizer", None, "tokenizer must be"),
        ("clip", torch.nn.Linear(1, 1), "clip must be"),
        ("clip_processor", None, "clip_processor"),
    ],
)
def test_a_part_of_another_kind_is_named(parts, name, value, expected):
    with pytest.raises(TypeError, match=expected):
        DallePipeline(**(parts | {name: value}))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipe") / "saved"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "pipe")


def edit_index(folder, **entries):
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def refused(folder, error, *expected, load=DallePipeline):
    with pytest.raises(error) as caught:
        load.from_pretrained(folder)
    assert all(text in str(caught.value) for text in expected), str(caught.value)


def test_a_missing_part_is_named(folder):
    shutil.rmtree(folder / "dvae")
    refused(folder, PipelineFolderError, "'dvae'", "model_index.json")


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"dvae": ["os", "system"]}, ("'dvae'", "'os'")),
        ({"dvae": "mosaics.DiscreteVAE"}, ("'dvae'", "[library, class]")),
        ({"scheduler": ["diffusers", "DDIMScheduler"]}, ("'scheduler'",)),
        ({"_class_name": "StableDiffusionPipeline"}, ("StableDiffusionPipeline", "DallePipeline")),
    ],
)
def test_a_foreign_index_is_refused(folder, entries, expected):
    edit_index(folder, **entries)
    refused(folder, PipelineFolderError, *expected)


def test_an_unknown_class_is_an_error_that_names_it(folder):
    edit_index(folder, dvae=["mosaics", "DiscreteVAEE"])
    refused(folder, ValueError, "DiscreteVAEE")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_damaged_index_is_named(folder, content):
    (folder / "model_index.json").write_text(content)
    refused(folder, PipelineFolderError, "model_index.json")


def test_a_folder_without_index_is_named(folder, tmp_path):
    (folder / "model_index.json").unlink()
    refused(folder, PipelineFolderError, "model_index.json is missing")
    refused(tmp_path / "nowhere" / "at" / "all", ValueError, "nowhere")


@pytest.mark.parametrize("name", ["transformer", "dvae", "clip"])
def test_truncated_weights_of_any_part_are_named(folder, name):
    path = folder / name / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(folder, WeightsError, str(path), "truncated")


@pytest.mark.parametrize("load", [DallePipeline, DiffusionPipeline])
@pytest.mark.parametrize(
    ("name", "key"), [("clip", "visual_projection.weight"), ("dvae", "decoder.quantizer.codebook")]
)
@pytest.mark.parametrize("fault", ["missing", "extra", "nan"])
def test_every_part_is_loaded_strictly_through_every_door(folder, load, name, key, fault):
    path = folder / name / "model.safetensors"
    tensors = load_file(path)
    if fault == "missing":
        del tensors[key]
    elif fault == "extra":
        tensors[key := "left.over"] = torch.zeros(1)
    else:
        tensors[key][0, 0] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    refused(folder, WeightsError, key, load=load)


def test_a_pipeline_with_nan_is_not_saved_over_a_good_one(folder):
    pipe = DallePipeline.from_pretrained(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with torch.no_grad():
        pipe.transformer.image_head.weight[0, 0] = float("inf")
    with pytest.raises(WeightsError, match=r"transformer: tensor 'image_head.weight'"):
        pipe.save_pretrained(folder)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_missing_embedded_checkpoint_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(default, "CHECKPOINTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="emoji-64 is missing"):
        default_checkpoint()
    (tmp_path / "emoji-64").mkdir()
    (tmp_path / "emoji-64" / "model_index.json").write_text("{}")
    assert default_checkpoint() == str(tmp_path / "emoji-64")
