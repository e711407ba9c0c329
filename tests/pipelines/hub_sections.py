"""What test_hub.py checks of pipelines; section_runner.py says how it is run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from section_runner import WORK, fails, run_sections, section, server

# isort: split
import torch

import mosaics
from hub_server import Repo
from mosaics import DallePipeline, VQVAEPipeline
from testing_utils import tiny_classifier, tiny_pipeline, tiny_vqvae_pipeline


def draw(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe("a lion on blue", num_candidates=4, seed=5)


def store(name: str) -> Repo:
    """Puts the saved pipeline into the server as a push would."""
    folder = WORK / "pipe"
    repo = Repo({str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    repo.commit()
    server.repos[name] = repo
    return repo


@section
def a_pushed_pipeline_comes_back_through_every_door(pipe):
    from diffusers import DiffusionPipeline

    pipe.push_to_hub("tester/pushed", private=True)
    files = server.repos["tester/pushed"].files
    assert server.repos["tester/pushed"].private
    assert {"config.json", "model_index.json", "README.md", "dvae/model.safetensors"} <= set(files)
    assert b"pipeline_tag: text-to-image" in files["README.md"]
    assert any(request.startswith("PUT /lfs/") for request in server.requests), "large files go by LFS"
    doors = {
        "own class": DallePipeline.from_pretrained("tester/pushed"),
        "diffusers": DiffusionPipeline.from_pretrained("tester/pushed"),
        "transformers": mosaics.pipeline("text-to-image", model="tester/pushed", device="cpu").model,
        "transformers without a task": mosaics.pipeline(model="tester/pushed", device="cpu").model,
        "cache": DallePipeline.from_pretrained("tester/pushed", local_files_only=True),
    }
    expected = draw(pipe)
    for door, other in doors.items():
        found = draw(other)
        assert torch.equal(found.indices, expected.indices), door
        assert found.images[0].tobytes() == expected.images[0].tobytes(), door
    assert doors["own class"].name_or_path == "tester/pushed"


@section
def a_pushed_vqvae_pipeline_comes_back_through_every_door(_):
    from diffusers import DiffusionPipeline

    pipe = tiny_vqvae_pipeline(classifier=tiny_classifier(), num_classes=3)
    pipe.push_to_hub("tester/vqvae2")
    files = server.repos["tester/vqvae2"].files
    folders = ("vqvae", "prior", "prior_2", "classifier")
    assert {"model_index.json", "README.md", *(f"{name}/model.safetensors" for name in folders)} <= set(files)
    assert b'VQVAEPipeline.from_pretrained("tester/vqvae2")' in files["README.md"]
    expected = pipe([0, 2], num_candidates=3, seed=5)
    for door in (VQVAEPipeline, DiffusionPipeline):
        found = door.from_pretrained("tester/vqvae2")
        found.set_progress_bar_config(disable=True)
        drawn = found([0, 2], num_candidates=3, seed=5)
        assert drawn.seeds == expected.seeds, door
        assert all(torch.equal(a, b) for a, b in zip(drawn.indices, expected.indices, strict=True)), door
    server.fault = "wrong_bytes"
    fails(lambda: VQVAEPipeline.from_pretrained("tester/vqvae2", force_download=True), "WeightsError", "sha256")


@section
def the_task_and_save_pretrained_push_too(pipe):
    pipe.save_pretrained(WORK / "again", push_to_hub=True, repo_id="tester/saved-and-pushed")
    task = mosaics.pipeline("text-to-image", model=str(WORK / "pipe"), device="cpu")
    task.push_to_hub("tester/from-task")
    assert "dvae/model.safetensors" in server.repos["tester/saved-and-pushed"].files
    assert server.repos["tester/from-task"].files["config.json"] == server.repos["tester/pushed"].files["config.json"]


@section
def each_part_loads_alone_and_is_pushed_alone(pipe):
    from transformers import AutoModel, AutoTokenizer

    store("tester/parts")
    dvae = AutoModel.from_pretrained("tester/parts", subfolder="dvae")
    assert isinstance(dvae, mosaics.DiscreteVAE) and dvae.name_or_path == "tester/parts"
    transformer = mosaics.DalleTransformer.from_pretrained("tester/parts", subfolder="transformer")
    for mine, theirs in ((dvae, pipe.dvae), (transformer, pipe.transformer)):
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))
    assert len(AutoTokenizer.from_pretrained("tester/parts", subfolder="tokenizer")) == len(pipe.tokenizer)
    dvae.push_to_hub("tester/dvae-alone")
    alone = AutoModel.from_pretrained("tester/dvae-alone")
    assert torch.equal(alone.decoder.quantizer.codebook, dvae.decoder.quantizer.codebook)


@section
def a_push_keeps_the_card_of_the_repository(pipe):
    store("tester/carded").files["README.md"] = b"---\nlicense: mit\n---\nMy words."
    pipe.push_to_hub("tester/carded")
    assert b"My words." in server.repos["tester/carded"].files["README.md"]


@section
def weights_that_are_not_finite_are_not_pushed(pipe):
    with torch.no_grad():
        pipe.dvae.decoder.quantizer.bias[0] = float("nan")
    fails(lambda: pipe.push_to_hub("tester/nan"), "WeightsError", "decoder.quantizer.bias", "NaN")
    fails(lambda: pipe.dvae.push_to_hub("tester/nan"), "WeightsError", "decoder.quantizer.bias")
    assert not server.repos.get("tester/nan", Repo()).files


@section
def wrong_bytes_of_the_right_size_are_found_and_downloaded_again(pipe):
    store("tester/damaged")
    server.fault = "wrong_bytes"
    fails(lambda: DallePipeline.from_pretrained("tester/damaged"), "WeightsError", "sha256", "force_download=True")
    server.fault = None
    draw(DallePipeline.from_pretrained("tester/damaged", force_download=True))
    server.repos["tester/part"] = server.repos["tester/damaged"]
    server.fault = "wrong_bytes"
    load = mosaics.DiscreteVAE.from_pretrained
    fails(lambda: load("tester/part", subfolder="dvae"), "WeightsError", "dvae/model.safetensors", "force_download")
    server.fault = None
    load("tester/part", subfolder="dvae", force_download=True)


@section
def a_truncated_cache_is_found(pipe):
    store("tester/cached")
    DallePipeline.from_pretrained("tester/cached")
    link = next((WORK / "home/hub/models--tester--cached").rglob("transformer/model.safetensors"))
    link.resolve().write_bytes(link.resolve().read_bytes()[:-10])
    fails(
        lambda: DallePipeline.from_pretrained("tester/cached"),
        "WeightsError",
        "transformer/model.safetensors",
        "cache",
    )


@section
def a_cut_download_is_retried(pipe):
    store("tester/cut")
    server.fault = "cut_once"
    draw(DallePipeline.from_pretrained("tester/cut"))
    assert server.fault is None, "the fault was met"


@section
def a_wrong_token_and_a_missing_repository_are_named(pipe):
    store("tester/there")
    fails(lambda: DallePipeline.from_pretrained("tester/there", token="wrong"), "401", "tester/there")
    fails(lambda: DallePipeline.from_pretrained("tester/nowhere"), "404", "tester/nowhere")
    fails(lambda: mosaics.DiscreteVAE.from_pretrained("tester/nowhere"), "404", "tester/nowhere")


@section
def a_repository_of_pickles_is_refused(pipe):
    repo = Repo({"config.json": (WORK / "pipe/dvae/config.json").read_bytes(), "pytorch_model.bin": b"PK\x03\x04"})
    repo.commit()
    server.repos["tester/pickle"] = repo
    fails(lambda: mosaics.DiscreteVAE.from_pretrained("tester/pickle"), "WeightsError", "safetensors")
    assert not any("pytorch_model.bin" in request for request in server.requests), "it is not even downloaded"


if __name__ == "__main__":
    tiny_pipeline().save_pretrained(WORK / "pipe")
    run_sections(tiny_pipeline)
