"""What a generated card says: what is known, and nothing else."""

import json
import shutil

import pytest
from huggingface_hub import ModelCard

from mosaics import DallePipeline, DiscreteVAE
from mosaics.cards import Measurement, model_card
from mosaics.cards.run_folder import TrainingSession, read_run
from mosaics.hub.errors import without_tokens
from mosaics.hub.upload import is_unchanged, sign
from mosaics.training import TrainingConfig
from mosaics.training.identity import run_settings
from testing_utils import tiny_clip, tiny_dalle, tiny_dvae, tiny_pipeline, tiny_tokenizer, tiny_vqvae_pipeline

SCRIPT = {"dataset": "user/pictures", "dataset_options": {"mix": {"object": 0.6}}, "eval_split": "test"}
SESSIONS = [
    TrainingSession(
        "python examples/train_dvae.py --seed 7", "a processor, 2 logical cores", "torch 2.13", 1, 0, 40, 300
    ),
    TrainingSession(
        "python examples/train_dvae.py --seed 7", "a processor, 2 logical cores", "torch 2.13", 1, 40, 100, 400
    ),
]


def write_run(folder, model, script=SCRIPT, sessions=SESSIONS, seed=7):
    """What a run leaves of itself in its folder, with a second evaluation that counts."""
    model.save_pretrained(folder)
    evaluations = [{"step": 50, "eval_psnr": 20.0}, {"step": 100, "eval_psnr": 26.25, "eval_kl": None}]
    rows = [*evaluations, {"step": 100, "loss": 1.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 10')
    facts = {"samples_per_step": 32, "mixed_precision": "no", "fingerprint": "60000-1f0a"}
    config = TrainingConfig(seed=seed, learning_rate=0.001)
    settings = run_settings(config, model, **facts, script_arguments=script)
    for step in (50, 100):
        checkpoint = folder / f"checkpoint-{step:08d}"
        checkpoint.mkdir()
        (checkpoint / "state.json").write_text(json.dumps({"step": step, "settings": settings}))
    (folder / "sessions.json").write_text(json.dumps([vars(session) for session in sessions]))
    return folder


def section(card: ModelCard, heading: str) -> str:
    return card.text.split(f"## {heading}\n")[1].split("\n## ")[0]


def test_nothing_is_invented_of_a_model_of_unknown_origin():
    card = model_card(tiny_dvae(), "user/dvae")
    header = card.data.to_dict()
    assert header["license"] == "unknown" and header["library_name"] == "mosaics"
    assert not {"datasets", "metrics", "model-index"} & set(header)
    for heading in ("Data", "Training", "Evaluation"):
        assert section(card, heading).strip() == "Not stated."
    assert "16 × 16 pixels to grids of 4 × 4 codes, of 32" in card.text
    assert "ramesh2021zero" in section(card, "Citation")


def test_the_folder_of_the_run_tells_data_command_settings_machine_time_and_numbers(tmp_path):
    folder = write_run(tmp_path / "run", tiny_dvae())
    card = model_card(DiscreteVAE.from_pretrained(folder), "user/dvae", license="apache-2.0")
    header = card.data.to_dict()
    assert (
        header["license"] == "apache-2.0" and header["datasets"] == ["user/pictures"] and header["metrics"] == ["psnr"]
    )
    (result,) = header["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "psnr", "value": 26.25}]
    assert result["dataset"] == {"name": "user/pictures", "type": "user/pictures", "split": "test"}
    training = section(card, "Training")
    for text in (
        "python examples/train_dvae.py --seed 7",
        "Steps: 100 of 32 samples",
        "Seed: 7",
        "float32",
        "2 logical",
    ):
        assert text in training
    assert "Time: 12 min" in training and "learning_rate: 0.001" in training
    assert "60,000 samples" in section(card, "Data") and "'mix'" in section(card, "Data")
    row = "| psnr | 26.25 | user/pictures test | `python examples/train_dvae.py --seed 7` |"
    assert row in section(card, "Evaluation")


def test_a_checkpoint_of_the_run_is_recognised_and_another_architecture_is_not(tmp_path):
    folder = write_run(tmp_path / "run", tiny_dvae())
    tiny_dvae().save_pretrained(folder / "checkpoint-00000100" / "averaged")
    found = model_card(DiscreteVAE.from_pretrained(folder / "checkpoint-00000100" / "averaged"), "user/dvae")
    assert "26.25" in found.text
    tiny_dvae(num_embeddings=64).save_pretrained(folder / "other")
    other = model_card(DiscreteVAE.from_pretrained(folder / "other"), "user/dvae")
    assert "26.25" not in other.text
    with pytest.raises(ValueError, match="num_embeddings differs"):
        model_card(tiny_dvae(num_embeddings=64), "user/dvae", runs=[folder])
    assert "26.25" in model_card(tiny_dvae(num_embeddings=64), "user/dvae", runs=[read_run(folder)]).text
    with pytest.raises(ValueError, match=r"no metrics\.jsonl"):
        model_card(tiny_dvae(), "user/dvae", runs=[tmp_path])


def test_a_damaged_or_sparse_run_leaves_things_unstated(tmp_path):
    folder = write_run(tmp_path / "run", tiny_dvae(), sessions=[])
    (folder / "sessions.json").write_text("{")
    (folder / "checkpoint-00000100" / "state.json").write_text("{")
    run = read_run(folder)
    assert run.step == 50 and run.sessions == () and run.metrics == {"psnr": 26.25}
    card = model_card(tiny_dvae(), "user/dvae", runs=[folder])
    assert (
        "Command: not stated." in card.text
        and "- Hardware: not stated" in card.text
        and "Time: not stated" in card.text
    )
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    card = model_card(tiny_dvae(), "user/dvae", runs=[folder])
    assert "- Steps: not stated" in card.text and "26.25" in section(card, "Evaluation") and card.data.datasets is None


def test_paths_of_this_machine_are_not_called_data_sets(tmp_path):
    for name in (str(tmp_path), "~/pictures", "../x", "a/b/c"):
        folder = write_run(tmp_path / f"run-{abs(hash(name))}", tiny_dvae(), SCRIPT | {"dataset": name})
        card = model_card(tiny_dvae(), "user/dvae", runs=[folder])
        assert card.data.datasets is None and "model-index" not in card.data.to_dict()
        given = model_card(tiny_dvae(), "user/dvae", runs=[folder], datasets=["user/x"])
        assert given.data.datasets == ["user/x"] and given.data.eval_results[0].dataset_name == "user/x"


def test_a_pipeline_tells_of_the_run_of_each_part(tmp_path):
    pipe = tiny_pipeline()
    transformer = write_run(tmp_path / "dalle", pipe.transformer)
    dvae = write_run(tmp_path / "dvae", pipe.dvae, seed=8)
    pipe.save_pretrained(transformer / "pipeline")
    card = model_card(DallePipeline.from_pretrained(transformer / "pipeline"), "user/dalle", runs=[dvae])
    training = section(card, "Training")
    assert training.index("### transformer") and "### dvae" in training and "### clip" not in training
    assert "Seed: 8" in training.split("### dvae")[1].split("###")[0]
    assert {"transformer psnr", "dvae psnr"} == set(card.data.metrics)
    assert card.data.pipeline_tag == "text-to-image" and "CLIP chooses" in card.text
    with pytest.raises(ValueError, match="'mosaics_dvae'"):
        model_card(tiny_dalle(), "user/dalle", runs=[dvae])


def test_classes_of_other_libraries_and_of_scripts_are_imported_from_where_they_are():
    clip, _ = tiny_clip(tiny_tokenizer())
    card = model_card(clip, "user/clip")
    assert "from transformers import CLIPModel\n" in card.text and card.data.library_name == "transformers"

    class Special(DiscreteVAE):
        pass

    card = model_card(Special(tiny_dvae().config), "user/special")
    assert "# Special is a class of the training script." in card.text and "A discrete VAE" in card.text


def test_measurements_and_limits_are_added():
    measurement = Measurement("fid", 12.5, command="mosaics evaluate fid", dataset="user/pictures", split="test")
    card = model_card(
        tiny_vqvae_pipeline(), "user/vqvae2", evaluation=[measurement, Measurement("ssim", 0.5)], limits=["No people."]
    )
    assert "| fid | 12.5 | user/pictures test | `mosaics evaluate fid` |" in card.text
    assert "| ssim | 0.5 | not stated | not stated |" in card.text and "- No people." in section(card, "Limits")
    assert [result.metric_type for result in card.data.eval_results] == ["fid"]
    assert card.data.pipeline_tag == "unconditional-image-generation"


def test_a_signed_card_is_known_again_until_somebody_changes_it():
    text = sign(str(model_card(tiny_dvae(), "user/dvae")))
    assert is_unchanged(text) and is_unchanged(text + "\n\n") and is_unchanged(None)
    assert not is_unchanged(text.replace("unknown", "mit")) and not is_unchanged("My words.")
    assert ModelCard(text).data.license == "unknown"


def test_tokens_are_blacked_out():
    assert without_tokens("--token hf_abcdefgh12 --x hf_ab") == "--token [token] --x hf_ab"
    assert without_tokens("odd secret!", "secret") == "odd [token]!"


def test_the_card_counts_every_parameter():
    pipe = tiny_pipeline(with_clip=False)
    number = sum(p.numel() for model in (pipe.transformer, pipe.dvae) for p in model.parameters())
    card = model_card(pipe, "user/x").text
    assert f"{number:,} parameters" in card
    assert "num_candidates" not in card  # nothing chooses among several
