"""From a folder of sounds to a pipeline that draws some: every script for a few steps."""

import json

import numpy as np
import pytest
import torch

from example_scripts import run_script
from mosaics import AudioVQVAE, AudioVQVAEPipeline, WaveNet
from mosaics.data import CodesDataset, read_sound, write_sound
from sound_files import write_tones

VQVAE = {"sampling_rate": 1000, "num_embeddings": 16, "embedding_dim": 4, "hidden_size": 8, "decoder_hidden_size": 6}
VQVAE |= {"num_downsamples": 3, "num_dilations": 3, "num_blocks": 1, "num_sample_values": 32}
WAVENET = {"hidden_size": 8, "skip_size": 8, "num_stacks": 1, "layers_per_stack": 3}


def training(output_dir, steps=2):
    return [
        *("--output_dir", str(output_dir), "--max_steps", str(steps), "--train_batch_size", "4", "--cpu", "true"),
        *("--num_eval_samples", "5", "--eval_steps", "2", "--logging_steps", "1", "--progress_bar", "false"),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sounds, a tokenizer of them, their codes and a prior."""
    folder = tmp_path_factory.mktemp("sound")
    write_tones(folder / "sounds" / "train")
    write_tones(folder / "sounds" / "test", num_samples=200)
    run_script(
        "train_audio_vqvae.py",
        *("--dataset", str(folder / "sounds"), "--length", "64", "--eval_split", "test"),
        *training(folder / "vqvae"),
        *("--model", json.dumps(VQVAE)),
    )
    run_script(
        "encode_codes.py",
        *("--recipe", "none", "--dataset", str(folder / "sounds"), "--vqvae", str(folder / "vqvae")),
        *("--dataset_options", '{"length": 128, "num_crops": 20}', "--output_dir", str(folder / "codes")),
        *("--shard_size", "8", "--batch_size", "4"),
    )
    run_script(
        "train_wavenet.py",
        *("--codes", str(folder / "codes"), "--vqvae", str(folder / "vqvae"), "--crop_length", "10"),
        *training(folder / "prior"),
        *("--model", json.dumps(WAVENET)),
    )
    return folder


def metrics(path):
    return set().union(*(json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()))


def test_the_tokenizer_logs_its_health_and_writes_sounds(folder):
    assert {"reconstruction_loss", "perplexity", "eval_bits_per_dim", "eval_snr"} <= metrics(folder / "vqvae")
    written = sorted(path.name for path in (folder / "vqvae" / "sounds").iterdir())
    assert "original-00000002-0.wav" in written and "reconstruction-00000002-0.wav" in written
    assert len(read_sound(folder / "vqvae" / "sounds" / written[0], sampling_rate=1000)) == 64


def test_the_codes_are_those_of_the_sounds_with_their_speakers(folder):
    codes = CodesDataset(folder / "codes")
    assert len(codes) == 20 and codes.description.class_names == ("high", "low")
    assert codes[0]["indices"].shape == (16,) and codes.description.grids[0].size == (16,)
    assert {codes[number]["class_labels"] for number in range(20)} == {0, 1}


def test_the_prior_and_the_tokenizer_make_a_pipeline_that_speaks(folder, tmp_path):
    vqvae, prior = AudioVQVAE.from_pretrained(folder / "vqvae"), WaveNet.from_pretrained(folder / "prior")
    assert prior.config.id2label == {0: "high", 1: "low"} and prior.config.num_embeddings == 16
    AudioVQVAEPipeline(vqvae, prior).save_pretrained(tmp_path / "pipeline")
    pipe = AudioVQVAEPipeline.from_pretrained(tmp_path / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    output = pipe("low", num_sounds=2, audio_length_in_s=0.1, seed=0)
    assert output.audios.shape == (2, 104) and np.abs(output.audios).max() <= 1
    write_sound(tmp_path / "low.wav", output.audios[1], output.sampling_rate)
    again = read_sound(tmp_path / "low.wav", sampling_rate=1000)
    torch.testing.assert_close(again, torch.from_numpy(output.audios[1]), atol=1 / 32767, rtol=0)
    continued = pipe("high", audio=tmp_path / "low.wav", audio_length_in_s=0.2, seed=0)
    assert continued.audios.shape == (1, 200)
    samples = sorted((folder / "prior" / "sounds").iterdir())
    assert len(samples) == 4 and len(read_sound(samples[0])) == 128


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train_audio_vqvae.py", ["--length", "60"], "multiple of 8"),
        ("train_audio_vqvae.py", ["--length", "2000"], "no usable sound|tolerates"),
        ("encode_codes.py", ["--vqvae", "vqvae"], "length"),
        ("train_pixelcnn.py", ["--codes", "codes"], "use train_wavenet.py"),
    ],
)
def test_what_does_not_fit_is_refused(folder, tmp_path, script, arguments, message):
    arguments = [str(folder / part) if part in ("vqvae", "codes") else part for part in arguments]
    if script != "train_pixelcnn.py":
        arguments += ["--dataset", str(folder / "sounds")]
    if script == "train_audio_vqvae.py":
        arguments += ["--model", json.dumps(VQVAE)]
    with pytest.raises((SystemExit, ValueError), match=message):
        run_script(script, "--recipe", "none", "--output_dir", str(tmp_path), *arguments)
