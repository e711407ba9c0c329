"""The two private places of diffusers that registration writes to. If one moves, this says so before a user does."""

import json

import diffusers
from diffusers.pipelines import pipeline_loading_utils

import mosaics
from testing_utils import tiny_pipeline


def test_the_private_hooks_of_diffusers_are_where_registration_expects_them(tmp_path):
    assert pipeline_loading_utils.LOADABLE_CLASSES["mosaics"] == {}
    assert diffusers.DallePipeline is mosaics.DallePipeline and diffusers.VQVAEPipeline is mosaics.VQVAEPipeline
    pipe = tiny_pipeline(with_clip=False)
    assert pipeline_loading_utils._fetch_class_library_tuple(pipe.dvae) == ("mosaics", "DiscreteVAE")
    assert pipeline_loading_utils._get_library_or_raise("mosaics") is mosaics
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["transformer"] == ["mosaics", "DalleTransformer"]
    # What a Hub download checks: without the first hook this raises "does not exist in ...".
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    custom, folders = pipeline_loading_utils._get_custom_components_and_folders("tester/pipe", index, files)
    assert not custom and "dvae" in folders
    # How it finds the way to load a part: the base class by name, in the library that model_index.json names.
    found, candidates = pipeline_loading_utils.get_class_obj_and_candidates(
        "mosaics", "DiscreteVAE", pipeline_loading_utils.ALL_IMPORTABLE_CLASSES, diffusers.pipelines, False
    )
    assert found is mosaics.DiscreteVAE and issubclass(found, candidates["PreTrainedModel"])


def test_without_the_first_hook_the_hub_would_refuse_the_parts(tmp_path, monkeypatch):
    monkeypatch.delitem(pipeline_loading_utils.LOADABLE_CLASSES, "mosaics")
    pipe = tiny_pipeline(with_clip=False)
    library, _ = pipeline_loading_utils._fetch_class_library_tuple(pipe.dvae)
    assert library != "mosaics", "diffusers no longer needs the hook: remove it from mosaics.registration"
