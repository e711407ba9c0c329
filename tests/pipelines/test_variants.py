"""Pipelines saved as a variant, such as half precision beside full."""

import torch

from mosaics import DallePipeline, VQVAEPipeline
from testing_utils import tiny_classifier, tiny_pipeline, tiny_vqvae_pipeline


def check(pipe, pipeline_class, folder, models):
    pipe.save_pretrained(folder, variant="fp16")
    for name in models:
        assert [path.name for path in (folder / name).glob("*.safetensors")] == ["model.fp16.safetensors"]
    loaded = pipeline_class.from_pretrained(folder, variant="fp16")
    for name in models:
        ours, theirs = getattr(pipe, name).state_dict(), getattr(loaded, name).state_dict()
        assert list(ours) == list(theirs) and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_every_model_of_a_dalle_pipeline_is_saved_and_loaded_as_the_variant(tmp_path):
    check(tiny_pipeline(), DallePipeline, tmp_path, ("transformer", "dvae", "clip"))


def test_every_model_of_a_vqvae_pipeline_is_saved_and_loaded_as_the_variant(tmp_path):
    pipe = tiny_vqvae_pipeline(classifier=tiny_classifier())
    check(pipe, VQVAEPipeline, tmp_path, ("vqvae", "prior", "prior_2", "classifier"))
