"""What test_sharing.py checks; section_runner.py says how it is run."""

import contextlib
import logging
import os
import re
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from section_runner import SECTIONS, WORK, fails, run_sections, section, server

# isort: split
import huggingface_hub
import torch
from huggingface_hub import ModelCard

import mosaics
from hub_server import READER, Repo
from mosaics import (
    VQGAN,
    DallePipeline,
    DallePytorchTransformer,
    DallePytorchTransformerConfig,
    DallePytorchVAE,
    DallePytorchVAEConfig,
    DiscreteVAE,
    VQGANConfig,
    VQVAEConfig,
    VQVAEPipeline,
)
from mosaics.cards import model_card
from testing_utils import (
    tiny_audio_pipeline,
    tiny_audio_vqvae,
    tiny_classifier,
    tiny_dalle,
    tiny_dvae,
    tiny_pipeline,
    tiny_pixelcnn,
    tiny_vqvae2,
    tiny_vqvae_pipeline,
    tiny_wavenet,
)

SECRET = "hf_abcDEF0123456789secret"
HEADINGS = ["Use", "Data", "Training", "Evaluation", "Limits", "Citation"]


def tiny_vqvae():
    torch.manual_seed(7)
    sizes = {"hidden_size": 8, "residual_hidden_size": 4, "embedding_dim": 4}
    return mosaics.VQVAE(VQVAEConfig(image_size=16, num_embeddings=32, **sizes)).eval()


def tiny_vqgan():
    torch.manual_seed(8)
    sizes = {"embedding_dim": 4, "latent_channels": 6, "hidden_size": 32, "num_residual_layers": 1}
    return VQGAN(VQGANConfig(image_size=16, num_embeddings=24, channel_multipliers=[1, 2], **sizes)).eval()


def tiny_dalle_pytorch_vae():
    sizes = {"image_size": 16, "num_embeddings": 12, "codebook_dim": 7, "num_layers": 2, "hidden_size": 6}
    return DallePytorchVAE(DallePytorchVAEConfig(**sizes)).eval()


def tiny_dalle_pytorch():
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "head_size": 8, "num_hidden_layers": 2}
    tokens = {"text_vocab_size": 50, "max_text_length": 8, "image_vocab_size": 16, "image_grid_size": 4}
    return DallePytorchTransformer(DallePytorchTransformerConfig(**sizes, **tokens)).eval()


MODELS = {
    "DiscreteVAE": lambda: tiny_dvae().eval(),
    "VQVAE": tiny_vqvae,
    "VQVAE2": tiny_vqvae2,
    "VQGAN": tiny_vqgan,
    "AudioVQVAE": tiny_audio_vqvae,
    "PixelCNN": lambda: tiny_pixelcnn(num_classes=3, condition_num_embeddings=[16], condition_factors=[2]),
    "WaveNet": lambda: tiny_wavenet(condition_num_embeddings=8, condition_factor=2),
    "DalleTransformer": tiny_dalle,
    "DallePytorchVAE": tiny_dalle_pytorch_vae,
    "DallePytorchTransformer": tiny_dalle_pytorch,
    "DallePipeline": tiny_pipeline,
    "AudioVQVAEPipeline": tiny_audio_pipeline,
    "VQVAEPipeline": lambda: tiny_vqvae_pipeline(classifier=tiny_classifier(), num_classes=3),
}


def saved_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def weights_in(files: dict[str, bytes]) -> dict[str, bytes]:
    return {path: content for path, content in files.items() if path.endswith(".safetensors")}


def publish(name: str, **access) -> Repo:
    """Puts a saved discrete VAE into the server."""
    repo = server.repos[name] = Repo(saved_files(WORK / "dvae"), **access)
    repo.commit()
    return repo


def run_use(card: bytes, folder: Path) -> None:
    """Runs the first program of a card."""
    program = re.search(r"^```python\n(.*?)^```", card.decode(), flags=re.MULTILINE | re.DOTALL)[1]
    folder.mkdir()
    with contextlib.chdir(folder):
        exec(compile(program, "card", "exec"), {})


def round_trip(kind: str):
    def check(_):
        repo_id, folder = f"tester/{kind.lower()}", WORK / kind
        model = MODELS[kind]()
        address = model.push_to_hub(repo_id)
        assert address.startswith(f"{server.url}/{repo_id}/commit/")
        files = server.repos[repo_id].files
        loaded = getattr(mosaics, kind).from_pretrained(repo_id)
        loaded.save_pretrained(folder)
        assert weights_in(saved_files(folder)) == weights_in(files) != {}
        card = ModelCard(files["README.md"].decode())
        assert card.data.license == "unknown" and "mosaics" in card.data.tags
        assert [line[3:] for line in card.text.splitlines() if line.startswith("## ")] == HEADINGS
        assert f"import {kind}\n" in card.text and "Licence of the weights: not stated." in card.text
        run_use(files["README.md"], WORK / f"use-{kind}")
        local = getattr(mosaics, kind).from_pretrained(repo_id, local_files_only=True, revision="main")
        assert type(local).__name__ == kind

    return check


for kind in MODELS:
    SECTIONS[f"round_trip_of_{kind}"] = round_trip(kind)


@section
def weights_go_by_lfs_and_only_once(dvae):
    dvae.push_to_hub("tester/lfs")
    uploads = [request for request in server.requests if request.startswith("PUT /lfs/")]
    dvae.push_to_hub("tester/lfs-again")
    assert [request for request in server.requests if request.startswith("PUT /lfs/")] == uploads
    assert (
        server.repos["tester/lfs-again"].files["model.safetensors"] == saved_files(WORK / "dvae")["model.safetensors"]
    )


@section
def an_upload_that_is_refused_leaves_nothing_behind(dvae):
    server.repos["tester/full"] = Repo({"README.md": b"mine"})
    server.fault = "refuse_upload"
    with torch.no_grad():
        dvae.decoder.quantizer.bias += 1  # other weights than any uploaded before
    fails(lambda: dvae.push_to_hub("tester/full"), "HubError", "tester/full", "403", "Storage limit")
    assert server.repos["tester/full"].files == {"README.md": b"mine"}
    server.fault = None
    fails(lambda: dvae.push_to_hub("tester/full", token=READER), "HubError", "403", "has the right")
    fails(lambda: dvae.push_to_hub("tester/full", token=False), "HubError", "401", "hf auth login")
    fails(lambda: tiny_pipeline().push_to_hub("tester/full", token=READER), "HubError", "403")
    assert server.repos["tester/full"].files == {"README.md": b"mine"}


@section
def revisions_are_branches_and_commits(dvae):
    dvae.push_to_hub("tester/history", commit_message="First", private=True)
    first = server.repos["tester/history"].sha
    with torch.no_grad():
        dvae.decoder.quantizer.bias += 1
    dvae.push_to_hub("tester/history")
    with torch.no_grad():
        dvae.decoder.quantizer.bias += 1
    dvae.push_to_hub("tester/history", revision="next")
    dvae.push_to_hub("tester/history", revision="next")  # a branch that is there
    expected = tiny_dvae().decoder.quantizer.bias
    for shift, revision in enumerate((first, "main", "next")):
        loaded = DiscreteVAE.from_pretrained("tester/history", revision=revision)
        assert torch.equal(loaded.decoder.quantizer.bias, expected + shift), revision
    fails(lambda: DiscreteVAE.from_pretrained("tester/history", revision="v9"), "HubError", "'v9'", "tester/history")
    fails(lambda: DallePipeline.from_pretrained("tester/history", revision="v9"), "HubError", "'v9'", "404")


@section
def a_model_or_pipeline_in_a_subfolder_loads_alone(_):
    pipe = tiny_pipeline()
    pipe.save_pretrained(WORK / "nested")
    repo = Repo({f"run/pipeline/{path}": content for path, content in saved_files(WORK / "nested").items()})
    repo.commit()
    server.repos["tester/nested"] = repo
    server.requests.clear()
    dvae = DiscreteVAE.from_pretrained("tester/nested", subfolder="run/pipeline/dvae", cache_dir=WORK / "cache")
    assert torch.equal(dvae.decoder.quantizer.codebook, pipe.dvae.decoder.quantizer.codebook)
    assert not any("transformer" in request for request in server.requests)
    assert (WORK / "cache/models--tester--nested").is_dir() and not (WORK / "home/hub/models--tester--nested").exists()
    for place in ("tester/nested", str(WORK / "nested")):
        subfolder = "run/pipeline" if place.startswith("tester") else ""
        loaded = DallePipeline.from_pretrained(place, subfolder=subfolder)
        assert torch.equal(loaded.transformer.image_head.weight, pipe.transformer.image_head.weight)
    without = DallePipeline.from_pretrained("tester/nested", subfolder="run/pipeline", clip=None, clip_processor=None)
    assert without.clip is None
    message = fails(lambda: DiscreteVAE.from_pretrained("tester/nested"), "ConfigError", "no config.json", "subfolder")
    assert "run/pipeline/dvae" in message
    fails(lambda: DallePipeline.from_pretrained("tester/nested"), "PipelineFolderError", "model_index.json", "tester")


@section
def a_variant_is_taken_where_there_is_one(_):
    pipe = tiny_vqvae_pipeline()
    pipe.save_pretrained(WORK / "plain")
    pipe.vqvae.half().save_pretrained(WORK / "half", variant="fp16")
    files = saved_files(WORK / "plain") | {
        "vqvae/model.fp16.safetensors": saved_files(WORK / "half")["model.fp16.safetensors"]
    }
    server.repos["tester/variant"] = Repo(files)
    server.repos["tester/variant"].commit()
    loaded = VQVAEPipeline.from_pretrained("tester/variant", variant="fp16")
    assert torch.equal(loaded.vqvae.levels[0].quantizer.codebook, pipe.vqvae.levels[0].quantizer.codebook.float())
    assert not any("vqvae/model.safetensors" in request for request in server.requests if "tester/variant" in request)
    server.requests.clear()
    VQVAEPipeline.from_pretrained("tester/variant", cache_dir=WORK / "plain-cache")
    assert not any("fp16" in request for request in server.requests)


@section
def who_may_not_see_a_repository_is_told_so(_):
    publish("tester/private", private=True)
    publish("tester/gated", gated=True)
    for load in (DiscreteVAE.from_pretrained, DallePipeline.from_pretrained):
        fails(
            lambda load=load: load("tester/private", token=False), "HubError", "tester/private", "401", "hf auth login"
        )
        fails(lambda load=load: load("tester/private", token=READER), "HubError", "tester/private", "404", "private")
        fails(lambda load=load: load("tester/private", token=SECRET), "HubError", "refused the token", "401")
        fails(lambda load=load: load("tester/none"), "HubError", "tester/none", "404", "Check the name")
    fails(lambda: DiscreteVAE.from_pretrained("tester/gated", token=READER), "HubError", "gated", "ask for access")
    DiscreteVAE.from_pretrained("tester/private")
    DiscreteVAE.from_pretrained("tester/gated")


@section
def a_token_is_never_printed(dvae):
    publish("tester/open")
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage() + str(record.exc_info or ""))
    logging.getLogger().addHandler(handler)
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "transformers", "diffusers", "httpx", "httpx2")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.addHandler(handler)
    try:
        for token in (SECRET, f"{SECRET}\n", f"{SECRET} x", f"{SECRET}\u00e9"):
            for call in (
                lambda token=token: DiscreteVAE.from_pretrained("tester/open", token=token),
                lambda token=token: DallePipeline.from_pretrained("tester/open", token=token),
                lambda token=token: dvae.push_to_hub("tester/open", token=token),
                lambda token=token: tiny_pipeline().push_to_hub("tester/open", token=token),
            ):
                try:
                    call()
                    raise AssertionError(f"accepted the token {token!r}")
                except OSError as error:
                    assert type(error).__name__ == "HubError", repr(error)
                    assert SECRET not in repr(error) + "".join(traceback.format_exception(error))
        with_token = DiscreteVAE.from_pretrained("tester/open", token=os.environ["HF_TOKEN"])
        assert os.environ["HF_TOKEN"] not in repr(with_token) + repr(with_token.config) + repr(vars(with_token.config))
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
            logger.removeHandler(handler)
        logging.getLogger().removeHandler(handler)
    assert records, "something was logged"
    assert not [text for text in records if SECRET in text]


@section
def offline_takes_the_cache_or_says_what_is_missing(_):
    publish("tester/seen")
    publish("tester/unseen")
    DiscreteVAE.from_pretrained("tester/seen")
    load = DiscreteVAE.from_pretrained
    endpoint, constants = huggingface_hub.constants.ENDPOINT, huggingface_hub.constants
    load("tester/seen", local_files_only=True)
    fails(lambda: load("tester/unseen", local_files_only=True), "HubError", "tester/unseen", "local_files_only")
    fails(lambda: DallePipeline.from_pretrained("tester/unseen", local_files_only=True), "HubError", "tester/unseen")
    try:
        constants.HF_HUB_OFFLINE = True
        load("tester/seen")
        fails(lambda: load("tester/unseen"), "HubError", "tester/unseen", "HF_HUB_OFFLINE")
        fails(lambda: tiny_dvae().push_to_hub("tester/x"), "HubError", "HF_HUB_OFFLINE")
        constants.HF_HUB_OFFLINE = False
        constants.ENDPOINT = "http://127.0.0.1:9"
        load("tester/seen")
        fails(lambda: load("tester/unseen"), "HubError", "did not answer", "http://127.0.0.1:9", "ConnectError")
        fails(lambda: DallePipeline.from_pretrained("tester/unseen"), "HubError", "did not answer")
        fails(lambda: tiny_dvae().push_to_hub("tester/x"), "HubError", "did not answer")
    finally:
        constants.HF_HUB_OFFLINE, constants.ENDPOINT = False, endpoint
    server.fault = "busy"
    fails(lambda: load("tester/unseen"), "HubError", "503", "later")


@section
def what_is_no_model_is_called_so(_):
    for name, files in (("empty", {}), ("notes", {"README.md": b"words", "data/a.txt": b"1"})):
        server.repos[f"tester/{name}"] = Repo(files)
        server.repos[f"tester/{name}"].commit()
    fails(lambda: DiscreteVAE.from_pretrained("tester/empty"), "ConfigError", "tester/empty", "holds nothing")
    fails(lambda: DiscreteVAE.from_pretrained("tester/notes"), "ConfigError", "config.json", "README.md, data/a.txt")
    fails(
        lambda: DallePipeline.from_pretrained("tester/notes"), "PipelineFolderError", "model_index.json", "README.md"
    )
    fails(lambda: DiscreteVAE.from_pretrained("tester/a b"), "HubError", "user/name")
    fails(lambda: DiscreteVAE.from_pretrained("a/b/c"), "ConfigError", "user/name")
    fails(lambda: DallePipeline.from_pretrained("./a"), "PipelineFolderError", "./a", "user/name")
    fails(lambda: DiscreteVAE.from_pretrained("tester/notes", proxies={"http": "x"}), "ValueError", "HTTPS_PROXY")


@section
def a_download_that_breaks_off_is_an_error_and_goes_on_the_next_time(_):
    load, sleep = DiscreteVAE.from_pretrained, time.sleep
    publish("tester/broken")
    time.sleep = lambda seconds: None  # huggingface_hub waits a second before each of its attempts
    try:
        server.fault = "nothing"
        fails(lambda: load("tester/broken"), "HubError", "tester/broken", "broke off", "try again")
        server.fault = "short"
        fails(lambda: load("tester/broken"), "HubError", "another size", "force_download=True")
        server.fault = "cut_once"
        assert torch.equal(load("tester/broken").decoder.quantizer.codebook, tiny_dvae().decoder.quantizer.codebook)
    finally:
        time.sleep = sleep


@section
def bytes_of_another_hash_are_refused(_):
    publish("tester/altered")
    publish("tester/mislabelled")
    server.fault = "wrong_bytes"
    fails(lambda: DiscreteVAE.from_pretrained("tester/altered"), "WeightsError", "sha256", "force_download")
    server.fault = "wrong_hash"
    fails(lambda: DiscreteVAE.from_pretrained("tester/mislabelled"), "WeightsError", "sha256")
    server.fault = None
    DiscreteVAE.from_pretrained("tester/altered", force_download=True)


@section
def a_card_that_somebody_wrote_is_kept_and_a_generated_one_renewed(dvae):
    files = publish("tester/carded").files
    dvae.push_to_hub("tester/carded")
    generated = files["README.md"]
    with torch.no_grad():
        dvae.decoder.quantizer.bias += 1
    dvae.push_to_hub("tester/carded")
    assert files["README.md"] == generated, "the same facts"
    files["README.md"] = changed = generated.replace(b"not stated", b"MIT", 1)
    dvae.push_to_hub("tester/carded")
    tiny_pipeline().push_to_hub("tester/carded")
    assert files["README.md"] == changed
    files["README.md"] = generated
    tiny_pipeline().push_to_hub("tester/carded")
    assert b"pipeline_tag: text-to-image" in files["README.md"], "nobody had changed it"
    own = model_card(tiny_dvae(), "tester/carded", license="mit", limits=["It has never seen a lion."])
    tiny_dvae().push_to_hub("tester/carded", card=own)
    assert b"license: mit" in files["README.md"] and b"never seen a lion" in files["README.md"]
    folder = WORK / "worded"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: mit\n---\nMy words.")
    tiny_dvae().save_pretrained(folder, push_to_hub=True, repo_id="tester/worded", private=True)
    assert b"My words." in server.repos["tester/worded"].files["README.md"] and server.repos["tester/worded"].private


@section
def code_goes_along_if_asked(dvae):
    dvae.push_to_hub("tester/coded", remote_code=True)
    files = server.repos["tester/coded"].files
    assert b"class DiscreteVAE(" in files["modeling_dvae.py"] and b'"auto_map"' in files["config.json"]
    assert b"trust_remote_code=True" in files["README.md"]
    assert isinstance(DiscreteVAE.from_pretrained("tester/coded"), DiscreteVAE)


@section
def every_program_of_the_guide_runs(_):
    page = (Path(__file__).parents[2] / "docs" / "pages" / "sharing.md").read_text()
    programs, names = re.findall(r"^```py(?:thon)?\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL), {}
    assert len(programs) == 5
    (WORK / "guide").mkdir()
    with contextlib.chdir(WORK / "guide"):
        for program in programs:
            exec(compile(program, "guide", "exec"), names)
    assert server.repos["user/dvae"].private and "experiment" in server.repos["user/dvae"].branches
    assert "modeling_dvae.py" in server.repos["user/dvae-with-code"].files


if __name__ == "__main__":
    tiny_dvae().save_pretrained(WORK / "dvae")
    run_sections(lambda: tiny_dvae().eval())
