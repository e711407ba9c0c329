"""Every example script runs for two steps, one after the other, from pictures to a pipeline that draws."""

import json
import os
import pickle
import subprocess
import sys

import pytest
import torch
from PIL import Image
from transformers import CLIPModel

from example_scripts import EXAMPLES, SCENES, run_script, training
from lpips_files import random_tree
from mosaics import DallePipeline, DalleTransformer, DiscreteVAE
from mosaics.cli import main

DVAE = '{"num_embeddings": 32, "codebook_dim": 16, "hidden_size": 16, "num_groups": 1, "patch_size": 8}'
TRANSFORMER = '{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}'
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """All stages, each on what the one before it wrote."""
    folder = tmp_path_factory.mktemp("trained")
    tokenizer = ["--tokenizer", str(folder / "tokenizer")]
    run_script(
        "train_tokenizer.py",
        *("--recipe", "none", "--output_dir", str(folder / "tokenizer"), "--dataset_options", SCENES),
        *("--num_captions", "64", "--vocab_size", "300", "--max_length", "48"),
    )
    run_script(
        "train_dvae.py",
        *training(folder / "dvae", steps=3),
        *("--model", DVAE, "--warmup_autoencoder_steps", "1", "--kmeans_images", "32", "--kl_steps", "2"),
        *(
            "--temperature_steps",
            "2",
        ),
    )
    run_script(
        "train_clip.py",
        *training(folder / "clip"),
        *tokenizer,
        *("--projection_dim", "8", "--text_config", json.dumps(TOWER)),
        *("--vision_config", json.dumps({**TOWER, "patch_size": 16}), "--degrade", "true"),
    )
    run_script(
        "encode_codes.py",
        *("--recipe", "none", "--output_dir", str(folder / "codes"), "--dvae", str(folder / "dvae")),
        *("--dataset_options", SCENES, "--num_samples", "20", "--shard_size", "8", "--batch_size", "4"),
    )
    run_script(
        "train_dalle.py",
        *training(folder / "dalle"),
        *tokenizer,
        *("--codes", str(folder / "codes"), "--dvae", str(folder / "dvae"), "--clip", str(folder / "clip")),
        *("--model", TRANSFORMER),
    )
    return folder


def test_the_scripts_lead_from_pictures_to_a_pipeline_that_draws(trained):
    pipe = DallePipeline.from_pretrained(trained / "dalle" / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    output = pipe("a lion on a blue background", num_candidates=3, seed=0)
    assert output.images[0].size == (64, 64)
    assert output.clip_scores is not None


def test_every_run_logs_its_terms_and_saves_pictures(trained):
    rows = [json.loads(line) for line in (trained / "dvae" / "metrics.jsonl").read_text().splitlines()]
    terms = {"loss", "reconstruction_loss", "kl", "perplexity", "codebook_usage", "temperature", "images_per_second"}
    assert terms <= set().union(*rows)
    assert {"eval_psnr", "eval_perplexity", "eval_codebook_usage"} <= set().union(*rows)
    with Image.open(next((trained / "dvae" / "images").glob("reconstructions-*.png"))) as grid:
        assert grid.width > 64
    rows = [json.loads(line) for line in (trained / "dalle" / "metrics.jsonl").read_text().splitlines()]
    assert {"image_loss", "text_loss", "eval_image_loss"} <= set().union(*rows)
    assert next((trained / "dalle" / "images").glob("samples-*.png")).stat().st_size > 0


def test_a_perceptual_loss_is_added_to_that_of_the_likelihood(tmp_path):
    weights = tmp_path / "alexnet.ckpt"
    weights.write_bytes(pickle.dumps(random_tree("alex")))
    for weight in ("0", "2"):
        run_script(
            "train_dvae.py",
            *training(tmp_path / weight, steps=2),
            *("--model", DVAE, "--kl_weight", "0", "--perceptual_weight", weight),
            *("--perceptual_weights", str(weights)),
        )
    plain, both = (json.loads((tmp_path / w / "metrics.jsonl").read_text().splitlines()[0]) for w in ("0", "2"))
    assert "lpips" not in plain and both["lpips"] > 0
    assert both["loss"] == pytest.approx(both["reconstruction_loss"] + 2 * both["lpips"], rel=1e-4)


def test_the_trained_dvae_loads_by_its_own_name(trained):
    assert DiscreteVAE.from_pretrained(trained / "dvae").config.grid_size == 8
    assert (trained / "dvae" / "preprocessor_config.json").is_file()


def test_a_clip_goes_on_and_broken_pictures_are_wrong_for_every_caption(trained, tmp_path):
    losses = {}
    for broken in ("false", "true"):
        run_script(
            "train_clip.py",
            *training(tmp_path / broken, steps=1),
            *("--tokenizer", str(trained / "tokenizer"), "--clip", str(trained / "clip"), "--broken_pictures", broken),
            *("--learning_rate", "1e-12", "--warmup_steps", "0", "--ema_decay", "0"),
        )
        rows = map(json.loads, (tmp_path / broken / "metrics.jsonl").read_text().splitlines())
        losses[broken] = next(row["loss"] for row in rows if "loss" in row)
    before, after = (CLIPModel.from_pretrained(at).state_dict() for at in (trained / "clip", tmp_path / "true"))
    for name, weights in before.items():
        torch.testing.assert_close(after[name], weights, rtol=0, atol=1e-6)
    assert losses["true"] > losses["false"] + 0.05  # the same captions and pictures, and more to choose from
    with pytest.raises(ValueError, match=r"vision_config\.image_size=64, the arguments and the tokenizer say 32"):
        run_script(
            "train_clip.py",
            *training(tmp_path / "other", steps=1),
            *("--tokenizer", str(trained / "tokenizer"), "--clip", str(trained / "clip"), "--image_size", "32"),
        )


def go_on(trained, folder, *arguments):
    """A step of training from the transformer of `trained`, too small to be seen."""
    common = ("--tokenizer", str(trained / "tokenizer"), "--codes", str(trained / "codes"), "--ema_decay", "0")
    run_script(
        "train_dalle.py",
        *training(folder, steps=1),
        *common,
        *("--transformer", str(trained / "dalle"), "--learning_rate", "1e-12", "--warmup_steps", "0", *arguments),
    )


def test_training_goes_on_from_a_trained_transformer(trained, tmp_path):
    go_on(trained, tmp_path / "on", "--dvae", str(trained / "dvae"))
    before, after = (DalleTransformer.from_pretrained(folder) for folder in (trained / "dalle", tmp_path / "on"))
    assert after.config.hidden_size == 32  # the sizes are those of the trained one
    for name, weights in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], weights, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="lacks"):
        go_on(trained, tmp_path / "deeper", "--dvae", str(trained / "dvae"), "--model", '{"num_hidden_layers": 3}')


def test_a_trained_transformer_of_other_codes_is_refused(trained, tmp_path):
    dvae = DiscreteVAE.from_pretrained(trained / "dvae")
    with torch.no_grad():
        dvae.decoder.quantizer.codebook.mul_(-1)
    dvae.save_pretrained(tmp_path / "dvae")
    with pytest.raises(ValueError, match="codebook"):
        go_on(trained, tmp_path / "other", "--dvae", str(tmp_path / "dvae"))


def test_generate_writes_a_sheet(trained, tmp_path):
    sheet = tmp_path / "new" / "sheet.png"
    run_script(
        "generate.py",
        *("a lion", "two cats", "--model", str(trained / "dalle" / "pipeline"), "--num_candidates", "2"),
        *("--output", str(sheet), "--enlarge", "1"),
    )
    with Image.open(sheet) as picture:
        assert picture.size == (68, 134)  # one column, two rows, 2 pixels around each


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """The folder of an untrained judge."""
    from emoji.judge import Judge, JudgeConfig, object_classes

    groups = ["animals & nature", "food & drink", "smileys & emotion"]
    styles, folder = ["fluent-3d", "noto"], tmp_path_factory.mktemp("judge")
    Judge(JudgeConfig(names=object_classes(groups, styles), styles=styles, width=8)).save_pretrained(folder)
    return folder


def test_a_pipeline_is_scored_by_the_judge(trained, judge, tmp_path, capsys):
    run_script(
        "emoji/score.py",
        *(str(trained / "dalle" / "pipeline"), "--judge", str(judge), "--num_prompts", "2"),
        *("--best_of", "1", "2", "--output", str(tmp_path / "scores.json")),
    )
    assert "best of 2" in capsys.readouterr().out
    shares = json.loads((tmp_path / "scores.json").read_text())["shares"]
    assert list(shares) == ["real", "best of 1", "best of 2"]
    assert all(0 <= share <= 1 for row in shares.values() for share in row.values())


def test_generate_says_what_is_wrong_with_a_prompt(trained, capsys):
    with pytest.raises(SystemExit, match="1"):
        run_script("generate.py", " ", "--model", str(trained / "dalle" / "pipeline"))
    assert "prompt is empty" in capsys.readouterr().err


def test_a_pipeline_is_measured_on_emoji_scenes(trained, judge, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    output = tmp_path / "measured.json"
    arguments = [
        *("evaluate", str(trained / "dalle" / "pipeline"), "--plugin", str(EXAMPLES / "emoji" / "evaluation.py")),
        *("--dataset", "emoji", "--judge", str(judge), "--num_images", "4", "--num_prompts", "2"),
        *("--output", str(output)),
    ]
    assert main(arguments) == 0
    reconstruction, generation = json.loads(output.read_text())
    assert reconstruction["metrics"]["psnr"] > 0 and generation["metrics"]["clip_score"] is not None
    assert 0 <= generation["metrics"]["caption_correctness"] <= 1
    assert "codebook usage" in capsys.readouterr().out


def test_stage_two_trains_on_a_folder_of_captioned_images_under_accelerate_launch(trained, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rows = []
    for number, colour in enumerate(("red", "green", "blue", "black", "white", "pink")):
        Image.new("RGB", (70 + number, 64), colour).save(pictures / f"{number}.png")
        rows.append(json.dumps({"file_name": f"{number}.png", "text": f"{colour} square"}))
    (pictures / "metadata.jsonl").write_text("\n".join(rows))
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch", "--cpu", str(EXAMPLES / "train_dalle.py")),
        *("--recipe", "none", "--dataset", str(pictures), "--dvae", str(trained / "dvae")),
        *("--tokenizer", str(trained / "tokenizer"), "--model", TRANSFORMER, "--output_dir", str(tmp_path / "out")),
        *("--max_steps", "2", "--train_batch_size", "2", "--progress_bar", "false"),
    ]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert (tmp_path / "out" / "pipeline" / "model_index.json").is_file()
