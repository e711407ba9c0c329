"""VQ-VAE pipelines: parts that do not fit, bad arguments, files; every error names what came and what was expected."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModel

import mosaics
from mosaics import VQVAE2, PixelCNN, VQVAEPipeline
from mosaics.models.codebook_identity import codebook_id
from mosaics.models.weights_check import WeightsError
from mosaics.pipelines.consistency import ComponentsDisagreeError
from mosaics.pipelines.hub import PipelineFolderError
from testing_utils import tiny_classifier, tiny_pixelcnn, tiny_priors, tiny_vqvae2, tiny_vqvae_pipeline

NAMES = {0: "lion", 1: "fish", 2: "boat"}
PICTURE = Image.new("RGB", (16, 16), "red")
LOWER = {"grid_height": 4, "grid_width": 4, "condition_num_embeddings": [16], "condition_factors": [2]}
TOP = {"grid_height": 2, "grid_width": 2}


@pytest.fixture(scope="module")
def parts():
    pipe = tiny_vqvae_pipeline(classifier=tiny_classifier(), num_classes=3, id2label=NAMES)
    return pipe.components


@pytest.fixture(scope="module")
def plain():
    return tiny_vqvae_pipeline()


@pytest.fixture(scope="module")
def judged(parts):
    pipe = VQVAEPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"vqvae": lambda: tiny_vqvae2(num_embeddings=24)}, ("prior", "num_embeddings=16", "num_embeddings=24")),
        ({"vqvae": lambda: tiny_vqvae2(image_size=32)}, ("prior", "2 x 2", "4 x 4")),
        ({"vqvae": lambda: tiny_vqvae2(3, image_size=16)}, ("3 level(s)", "prior_3", "got prior, prior_2")),
        ({"vqvae": lambda: tiny_vqvae2(6)}, ("6 levels", "5 at most")),
        ({"prior_2": lambda: None}, ("2 level(s)", "prior, prior_2", "got prior.")),
        ({"prior_3": lambda: tiny_priors(3)[2]}, ("2 level(s)", "got prior, prior_2, prior_3")),
        ({"prior": lambda: tiny_pixelcnn(**LOWER)}, ("4 x 4", "2 x 2", "top first")),
        ({"prior_2": lambda: tiny_pixelcnn(grid_width=4)}, ("prior_2", "[]", "factor 2")),
        ({"prior_2": lambda: tiny_pixelcnn(**(LOWER | {"condition_factors": [4]}))}, ("prior_2", "[4]", "factor 2")),
        (
            {"prior_2": lambda: tiny_pixelcnn(**(LOWER | {"condition_num_embeddings": [17]}), num_classes=3)},
            ("prior_2", "codebook of 17", "num_embeddings=16"),
        ),
        (
            {"prior": lambda: tiny_pixelcnn(**TOP, condition_num_embeddings=[16], condition_factors=[2])},
            ("prior is", "[2]", "none: it is the top"),
        ),
        ({"prior_2": lambda: tiny_pixelcnn(**LOWER, num_classes=4)}, ("prior num_classes=3", "prior_2 num_classes=4")),
        (
            {"prior_2": lambda: tiny_pixelcnn(**LOWER, num_classes=3, id2label={0: "a", 1: "b"})},
            ("prior_2", "num_classes=3", "2 names"),
        ),
        (
            {"prior_2": lambda: tiny_pixelcnn(**LOWER, num_classes=3, id2label={0: "a", 1: "b", 2: "c"})},
            ("prior_2", "other names"),
        ),
        ({"classifier": lambda: tiny_classifier(4)}, ("num_labels=4", "num_classes=3")),
        (
            {"classifier": lambda: tiny_classifier(3, id2label={0: "fish", 1: "lion", 2: "boat"})},
            ("'lion'", "class 0", "class 1"),
        ),
        ({"classifier": lambda: tiny_classifier(image_size=32)}, ("image_size=32", "image_size=16", "processor")),
        ({"classifier": lambda: tiny_classifier(num_channels=1)}, ("num_channels=1", "num_channels=3")),
    ],
    ids=" ".join,
)
def test_disagreeing_parts_are_refused_with_both_numbers(parts, changes, expected):
    changes = {name: build() for name, build in changes.items()}
    with pytest.raises(ComponentsDisagreeError) as error:
        VQVAEPipeline(**(parts | changes))
    assert all(text in str(error.value) for text in expected), str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("vqvae", torch.nn.Linear(1, 1), "vqvae must be a VQVAE, VQVAE2 or DiscreteVAE, got Linear"),
        ("prior", torch.nn.Linear(1, 1), "prior must be a PixelCNN, got Linear"),
        ("prior_2", "bottom", "prior_2 must be a PixelCNN, got str"),
        ("classifier", torch.nn.Linear(1, 1), "classifier must be a transformers image classification model, got Lin"),
    ],
)
def test_a_part_of_another_kind_is_named(parts, name, value, expected):
    with pytest.raises(TypeError, match=expected):
        VQVAEPipeline(**(parts | {name: value}))


def test_a_processor_without_a_classifier_is_refused(parts):
    with pytest.raises(TypeError, match="without a classifier"):
        VQVAEPipeline(**(parts | {"classifier": None, "classifier_processor": object()}))


def test_the_prior_has_as_many_codes_at_a_position_as_the_tokenizer():
    tokenizer = mosaics.VQVAE(
        mosaics.VQVAEConfig(image_size=16, num_embeddings=16, hidden_size=8, embedding_dim=4, latents_per_position=2)
    )
    with pytest.raises(ComponentsDisagreeError, match=r"grids of 4 x 4 codes .*those of the vqvae are 4 x 4 x 2"):
        VQVAEPipeline(tokenizer, tiny_pixelcnn(grid_width=4))
    VQVAEPipeline(tokenizer, tiny_pixelcnn(grid_width=4, latents_per_position=2))


def test_each_level_has_the_codebook_its_prior_was_trained_on(parts):
    vqvae = parts["vqvae"]
    bottom, top = (codebook_id(level) for level in vqvae.levels)
    assert top != bottom
    known = {"prior": tiny_priors(codebook_id=top)[0], "prior_2": tiny_priors(codebook_id=bottom)[1]}
    VQVAEPipeline(**(parts | known))
    with pytest.raises(ComponentsDisagreeError) as error:
        VQVAEPipeline(**(parts | known | {"prior_2": tiny_priors(codebook_id=top)[1]}))
    assert all(text in str(error.value) for text in ("prior_2", repr(top), repr(bottom)))


def test_a_prior_is_not_joined_with_another_tokenizer_without_a_codebook_than_its_own():
    fields = {"quantizer": "fsq", "fsq_levels": [4, 4], "num_embeddings": 16, "embedding_dim": 2}
    own, other = (mosaics.VQVAE(mosaics.VQVAEConfig(image_size=16, hidden_size=8, **fields)) for _ in range(2))
    prior = tiny_pixelcnn(grid_width=4, codebook_id=codebook_id(own))
    VQVAEPipeline(own, prior)
    with pytest.raises(ComponentsDisagreeError, match="use the vqvae it was trained with"):
        VQVAEPipeline(other, prior)


def test_models_are_put_into_evaluation_mode(parts):
    classifier = tiny_classifier().train()
    pipe = VQVAEPipeline(**(parts | {"classifier": classifier, "prior": parts["prior"].train()}))
    assert not classifier.training and not pipe.prior.training


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"class_labels": 0}, ("class_labels", "no classes")),
        ({"temperature": -1}, ("temperature", "-1")),
        ({"top_k": 17}, ("top_k", "16", "17")),
        ({"top_p": 0}, ("top_p", "0")),
        ({"num_candidates": 0}, ("num_candidates", "0")),
        ({"num_images": True}, ("num_images", "True")),
        ({"num_images": 10**7}, ("num_images", "1,000,000")),
        ({"num_candidates": 2, "num_images": 3}, ("num_images=3", "num_candidates=2")),
        ({"num_candidates": 4}, ("num_candidates=4", "no classifier")),
        ({"batch_size": 0}, ("batch_size", "0")),
        ({"seed": -1}, ("seed", "-1")),
        ({"seed": [1, 2, 3]}, ("seed", "classes", "list of 3")),
        ({"seed": 1, "generator": torch.Generator()}, ("seed or generator",)),
        ({"output_type": "latent"}, ("output_type", "'pil'", "'latent'")),
        ({"prefix_rows": 1}, ("prefix_rows=1 without image",)),
        ({"image": PICTURE}, ("image with prefix_rows=0",)),
        ({"image": PICTURE, "prefix_rows": 2}, ("prefix_rows", "0 to 1", "2")),
        ({"image": PICTURE, "prefix_rows": -1}, ("prefix_rows", "-1")),
        ({"image": Image.new("RGB", (16, 17)), "prefix_rows": 1}, ("image[0]", "16 x 17", "16 x 16")),
        ({"image": [PICTURE] * 2, "prefix_rows": 1}, ("image", "classes", "got 2")),
        ({"image": "nowhere.png", "prefix_rows": 1}, ("image[0]", "nowhere.png")),
    ],
    ids=str,
)
def test_arguments(plain, keywords, expected):
    with pytest.raises(ValueError) as error:
        plain(**keywords)
    assert all(text in str(error.value) for text in expected), str(error.value)


@pytest.mark.parametrize(
    ("class_labels", "expected"),
    [
        (None, ("missing", "0 to 2", "'lion'")),
        (3, ("class_labels", "0 to 2", "3")),
        (-1, ("class_labels", "-1")),
        (True, ("class_labels", "True")),
        ([0, 1.0], ("class_labels[1]", "1.0")),
        ([], ("class_labels", "1 to")),
        ("tiger", ("'tiger'", "unknown", "'lion'", "'fish'")),
        (["lion", "Lion"], ("class_labels[1]", "'Lion'")),
        ({"lion": 1}, ("class_labels", "dict")),
        (torch.tensor([0.5]), ("class_labels[0]", "0.5")),
    ],
    ids=str,
)
def test_class_labels(judged, class_labels, expected):
    with pytest.raises(ValueError) as error:
        judged(class_labels)
    assert all(text in str(error.value) for text in expected), str(error.value)


def test_names_that_are_missing_or_shared_are_explained():
    unnamed = tiny_vqvae_pipeline(num_classes=3)
    with pytest.raises(ValueError, match="only numbers"):
        unnamed("lion")
    shared = tiny_vqvae_pipeline(num_classes=3, id2label={0: "crane", 1: "fish", 2: "crane"})
    with pytest.raises(ValueError, match="classes 0, 2: give the number"):
        shared("crane")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"images": []}, ("images", "empty")),
        ({"images": [PICTURE, "nowhere.png"]}, ("images[1]", "nowhere.png")),
        ({"images": np.full((16, 16, 3), 2.0)}, ("images[0]", "[0, 1]")),
        ({"images": PICTURE, "batch_size": 0}, ("batch_size", "0")),
        ({"images": PICTURE, "output_type": "x"}, ("output_type", "'x'")),
    ],
    ids=str,
)
def test_reconstruct_refuses_what_is_no_picture(plain, arguments, expected):
    with pytest.raises(ValueError) as error:
        plain.reconstruct(**arguments)
    assert all(text in str(error.value) for text in expected), str(error.value)


@pytest.fixture(scope="module")
def saved(judged, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipe") / "saved"
    judged.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "pipe")


def test_a_saved_pipeline_draws_the_same_pictures_through_every_door(judged, saved):
    index = json.loads((saved / "model_index.json").read_text())
    assert index["_class_name"] == "VQVAEPipeline" and index["prior_3"] == [None, None]
    assert index["vqvae"] == ["mosaics", "VQVAE2"] and index["prior_2"] == ["mosaics", "PixelCNN"]
    expected = judged("fish", num_images=2, num_candidates=4, seed=5)
    for load in (VQVAEPipeline, DiffusionPipeline):
        other = load.from_pretrained(saved)
        assert isinstance(other, VQVAEPipeline) and other.class_names == NAMES and other.prior_3 is None
        other.set_progress_bar_config(disable=True)
        found = other("fish", num_images=2, num_candidates=4, seed=5)
        assert all(torch.equal(a, b) for a, b in zip(found.indices, expected.indices, strict=True))
        assert found.images[0].tobytes() == expected.images[0].tobytes()
        assert found.scores == pytest.approx(expected.scores) and found.seeds == expected.seeds


def test_each_part_loads_alone_and_the_classifier_is_optional(saved, tmp_path):
    assert isinstance(AutoModel.from_pretrained(saved, subfolder="vqvae"), VQVAE2)
    prior = PixelCNN.from_pretrained(saved, subfolder="prior_2")
    without = VQVAEPipeline.from_pretrained(saved, prior_2=prior, classifier=None)
    assert without.prior_2 is prior and without.classifier is None
    without.save_pretrained(tmp_path / "without")
    assert not (tmp_path / "without" / "classifier").exists()
    assert VQVAEPipeline.from_pretrained(tmp_path / "without", dtype=torch.bfloat16).prior.dtype == torch.bfloat16


@pytest.mark.parametrize("load", [VQVAEPipeline, DiffusionPipeline])
@pytest.mark.parametrize(
    ("name", "key"),
    [("vqvae", "levels.0.quantizer.codebook"), ("prior_2", "head.weight"), ("classifier", "classifier.weight")],
)
@pytest.mark.parametrize("fault", ["missing", "nan"])
def test_every_part_is_loaded_strictly_through_every_door(folder, load, name, key, fault):
    path = folder / name / "model.safetensors"
    tensors = load_file(path)
    if fault == "missing":
        del tensors[key]
    else:
        tensors[key].flatten()[0] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=key):
        load.from_pretrained(folder)


def test_what_is_no_vqvae_pipeline_is_not_loaded(folder, plain, tmp_path):
    shutil.rmtree(folder / "prior_2")
    with pytest.raises(PipelineFolderError, match="'prior_2'"):
        VQVAEPipeline.from_pretrained(folder)
    with pytest.raises(PipelineFolderError, match=r"model_index.json is missing"):
        VQVAEPipeline.from_pretrained(tmp_path)
    with pytest.raises(PipelineFolderError, match=r"'VQVAEPipeline' pipeline, expected 'DallePipeline'"):
        mosaics.DallePipeline.from_pretrained(folder)


def test_a_pipeline_with_nan_is_not_saved(tmp_path):
    pipe = tiny_vqvae_pipeline()
    with torch.no_grad():
        pipe.prior_2.head.weight[0] = float("inf")
    with pytest.raises(WeightsError, match=r"prior_2: tensor 'head.weight'"):
        pipe.save_pretrained(tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
