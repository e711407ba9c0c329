"""The pipeline of sound: codes from the prior, classes, continuation, seeds, files, and what it refuses."""

import inspect
import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from mosaics import AudioVQVAE, AudioVQVAEPipeline
from mosaics.data import read_sound, write_sound
from mosaics.models.codebook_identity import codebook_id
from mosaics.models.weights_check import WeightsError
from mosaics.pipelines.consistency import ComponentsDisagreeError
from mosaics.pipelines.hub import PipelineFolderError
from mosaics.pipelines.running import DrawingStopped, IncompleteResultWarning
from mosaics.pipelines.seeds import seed_uniforms
from sound_files import tone
from testing_utils import tiny_audio_pipeline, tiny_audio_vqvae, tiny_pixelcnn, tiny_wavenet

NAMES = {0: "high", 1: "low"}
SECONDS = 0.08  # 80 samples, 10 codes
BEGINNING = torch.from_numpy(tone(50, 37)).float()  # 4 codes, and 5 samples more


@pytest.fixture(scope="module")
def pipe() -> AudioVQVAEPipeline:
    """No classes."""
    return tiny_audio_pipeline()


@pytest.fixture(scope="module")
def named() -> AudioVQVAEPipeline:
    """Two speakers with names."""
    return tiny_audio_pipeline(num_classes=2, id2label=NAMES)


def test_the_call_takes_the_documented_arguments():
    arguments = list(inspect.signature(AudioVQVAEPipeline.__call__).parameters)
    names = "self class_labels num_sounds audio_length_in_s audio temperature top_k top_p seed generator batch_size"
    assert arguments == [*names.split(), "output_type", "return_dict", "callback_on_step_end"]


def test_a_sound_is_what_the_prior_draws_decoded(named):
    sampling = {"temperature": 0.9, "top_k": 12}
    output = named(["low", 0], num_sounds=2, audio_length_in_s=0.075, seed=8, output_type="pt", **sampling)
    assert output.class_labels == [1, 1, 0, 0] and output.sampling_rate == 1000
    labels, uniforms = torch.tensor(output.class_labels), seed_uniforms(output.seeds, 10)  # 75 samples: 10 codes
    expected = named.prior.generate(length=10, class_labels=labels, uniforms=uniforms, **sampling)
    assert torch.equal(output.indices, expected) and len({tuple(row) for row in expected.tolist()}) == 4
    with torch.no_grad():
        torch.testing.assert_close(output.audios, named.vqvae.decode(expected)[:, 0])
    assert output.audios.shape == (4, 80) and output.audios.abs().max() <= 1
    array = named("low", audio_length_in_s=0.075, seed=8, **sampling).audios
    assert isinstance(array, np.ndarray) and array.dtype == np.float32
    assert np.array_equal(array, output.audios[:1].numpy())


def test_sound_i_is_the_same_in_any_batch_size_and_alone(named):
    whole = named([1, 0], num_sounds=3, audio_length_in_s=SECONDS, seed=9)
    for batch_size in (1, 2, 5):
        output = named([1, 0], num_sounds=3, audio_length_in_s=SECONDS, seed=9, batch_size=batch_size)
        assert torch.equal(output.indices, whole.indices) and output.seeds == whole.seeds
        np.testing.assert_array_equal(output.audios, whole.audios)
    alone = named(0, audio_length_in_s=SECONDS, seed=whole.seeds[5])
    assert torch.equal(alone.indices, whole.indices[5:]) and whole.seeds[0] == 9
    assert not torch.equal(named(1, audio_length_in_s=SECONDS, seed=whole.seeds[5]).indices, alone.indices)
    assert isinstance(named(0, audio_length_in_s=SECONDS, seed=9, return_dict=False), tuple)


def test_a_given_beginning_is_continued(pipe, tmp_path):
    codes = pipe.vqvae.encode(BEGINNING[None, :32])
    output = pipe(num_sounds=3, audio=BEGINNING, audio_length_in_s=SECONDS, seed=1)
    assert torch.equal(output.indices[:, :4], codes.expand(3, 4)) and output.indices.shape == (3, 10)
    assert len({tuple(row) for row in output.indices[:, 4:].tolist()}) == 3
    expected = pipe.prior.generate(length=10, uniforms=seed_uniforms(output.seeds, 10), prefix_indices=codes)
    assert torch.equal(output.indices, expected)
    write_sound(tmp_path / "sound.wav", BEGINNING, 1000)
    from_file = pipe(audio=tmp_path / "sound.wav", audio_length_in_s=SECONDS, seed=1)
    exact = pipe(audio=read_sound(tmp_path / "sound.wav").numpy(), audio_length_in_s=SECONDS, seed=1)
    assert torch.equal(from_file.indices, exact.indices)


def test_each_class_may_have_a_beginning_of_its_own(named):
    beginnings = torch.stack([BEGINNING, -BEGINNING])
    output = named([0, 1], num_sounds=2, audio=beginnings, audio_length_in_s=SECONDS, seed=2, batch_size=3)
    codes = named.vqvae.encode(beginnings[:, :32])
    assert torch.equal(output.indices[:, :4], codes[[0, 0, 1, 1]]) and not torch.equal(codes[0], codes[1])


def test_reconstruction_has_the_length_of_the_sound(pipe):
    sounds = torch.from_numpy(np.stack([tone(50, 90), tone(30, 90), tone(10, 90)])).float()
    output = pipe.reconstruct(sounds, batch_size=2, output_type="pt")
    padded = torch.cat([sounds, torch.zeros(3, 6)], dim=1)
    with torch.no_grad():
        assert torch.equal(output.indices, pipe.vqvae.encode(padded))
        torch.testing.assert_close(output.audios, pipe.vqvae.decode(output.indices)[:, 0, :90])
    assert output.audios.shape == (3, 90) and output.sampling_rate == 1000
    (audios, rate, indices) = pipe.reconstruct(sounds[0].numpy(), return_dict=False)
    assert audios.shape == (1, 90) and rate == 1000 and torch.equal(indices, output.indices[:1])


def test_the_callback_follows_every_code_and_what_is_finished_survives_an_interruption(pipe):
    calls = []

    def note(pipe, step, timestep, tensors):
        calls.append((step, timestep, tuple(tensors["indices"].shape)))
        return {}

    pipe(num_sounds=3, audio_length_in_s=SECONDS, seed=0, batch_size=2, callback_on_step_end=note)
    assert [call[:2] for call in calls] == [(step, step % 10) for step in range(20)]
    assert [call[2] for call in calls] == [(2, 10)] * 10 + [(1, 10)] * 10

    def stop(pipe, step, *_):
        pipe._interrupt = step == 25
        return {}

    arguments = {"num_sounds": 6, "audio_length_in_s": SECONDS, "seed": 0, "batch_size": 2}
    with pytest.warns(IncompleteResultWarning, match="after 4 of 6 candidates"):
        output = pipe(**arguments, callback_on_step_end=stop)
    whole = pipe(**arguments)
    np.testing.assert_array_equal(output.audios, whole.audios[:4])
    assert output.seeds == whole.seeds[:4]

    def stop_at_once(pipe, *_):
        pipe._interrupt = True
        return {}

    with pytest.raises(DrawingStopped):
        pipe(audio_length_in_s=SECONDS, callback_on_step_end=stop_at_once)


@pytest.mark.parametrize(
    ("build", "error", "expected"),
    [
        (lambda: (tiny_pixelcnn(), tiny_wavenet()), TypeError, ("vqvae must be an AudioVQVAE, got PixelCNN",)),
        (lambda: (tiny_audio_vqvae(), tiny_pixelcnn()), TypeError, ("prior must be a WaveNet, got PixelCNN",)),
        (
            lambda: (tiny_audio_vqvae(), tiny_wavenet(num_embeddings=17)),
            ComponentsDisagreeError,
            ("num_embeddings=17", "num_embeddings=16"),
        ),
        (
            lambda: (tiny_audio_vqvae(), tiny_wavenet(codebook_id="16x4-00")),
            ComponentsDisagreeError,
            ("'16x4-00'", codebook_id(tiny_audio_vqvae())),
        ),
        (
            lambda: (tiny_audio_vqvae(), tiny_wavenet(condition_num_embeddings=8, condition_factor=2)),
            ComponentsDisagreeError,
            ("condition_factor=2",),
        ),
        (
            lambda: (tiny_audio_vqvae(), tiny_wavenet(num_classes=3, id2label={0: "a"})),
            ComponentsDisagreeError,
            ("num_classes=3", "1 names"),
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(build, error, expected):
    with pytest.raises(error) as raised:
        AudioVQVAEPipeline(*build())
    assert all(text in str(raised.value) for text in expected), str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"class_labels": 0}, ("class_labels", "no classes")),
        ({"num_sounds": 0}, ("num_sounds", "0")),
        ({"batch_size": 0}, ("batch_size", "0")),
        ({"audio_length_in_s": 0}, ("audio_length_in_s", "above 0")),
        ({"audio_length_in_s": 1e9}, ("audio_length_in_s", "3600")),
        ({"audio_length_in_s": "long"}, ("audio_length_in_s", "'long'")),
        ({"temperature": -1}, ("temperature", "-1")),
        ({"top_k": 17}, ("top_k", "17")),
        ({"seed": -1}, ("seed", "-1")),
        ({"output_type": "pil"}, ("output_type", "'pil'")),
        ({"audio": "nowhere.wav"}, ("audio[0]", "nowhere.wav")),
        ({"audio": torch.zeros(7)}, ("7 samples", "0 whole codes")),
        ({"audio": torch.zeros(80)}, ("10 whole codes", "has 10")),
        ({"audio": torch.zeros(2, 40)}, ("one for each of the 1 classes", "2")),
        ({"audio": [torch.zeros(40), torch.zeros(41)]}, ("audio", "got 2")),
        ({"audio": torch.full((40,), 1.5)}, ("audio[0]", "1.5")),
        ({"audio": torch.zeros(40).long()}, ("audio[0]", "int64")),
        ({"audio": 3}, ("audio[0]", "int")),
    ],
    ids=str,
)
def test_arguments(pipe, arguments, expected):
    with pytest.raises(ValueError) as error:
        pipe(**({"audio_length_in_s": SECONDS} | arguments))
    assert all(text in str(error.value) for text in expected), str(error.value)


def test_sounds_of_different_lengths_are_not_put_together(pipe):
    with pytest.raises(ValueError, match=r"equal length, got \[40, 41\]"):
        pipe.reconstruct([torch.zeros(40), torch.zeros(41)])
    with pytest.raises(ValueError, match="got 0"):
        pipe.reconstruct([])
    with pytest.raises(ValueError, match="class_labels are missing"):
        tiny_audio_pipeline(num_classes=2)()


@pytest.fixture(scope="module")
def saved(named, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipe") / "saved"
    named.save_pretrained(folder)
    return folder


def test_a_saved_pipeline_draws_the_same_sounds_through_every_door(named, saved):
    index = json.loads((saved / "model_index.json").read_text())
    assert index["_class_name"] == "AudioVQVAEPipeline"
    assert index["vqvae"] == ["mosaics", "AudioVQVAE"] and index["prior"] == ["mosaics", "WaveNet"]
    expected = named("low", num_sounds=2, audio_length_in_s=SECONDS, seed=5)
    for load in (AudioVQVAEPipeline, DiffusionPipeline):
        other = load.from_pretrained(saved)
        other.set_progress_bar_config(disable=True)
        assert isinstance(other, AudioVQVAEPipeline) and other.class_names == NAMES
        found = other("low", num_sounds=2, audio_length_in_s=SECONDS, seed=5)
        assert torch.equal(found.indices, expected.indices) and found.seeds == expected.seeds
        np.testing.assert_array_equal(found.audios, expected.audios)
    assert isinstance(AutoModel.from_pretrained(saved, subfolder="vqvae"), AudioVQVAE)


@pytest.mark.parametrize(("name", "key"), [("vqvae", "quantizer.codebook"), ("prior", "head.weight")])
@pytest.mark.parametrize("fault", ["missing", "nan"])
def test_every_part_is_loaded_strictly(saved, tmp_path, name, key, fault):
    folder = shutil.copytree(saved, tmp_path / "pipe")
    path = folder / name / "model.safetensors"
    tensors = load_file(path)
    if fault == "missing":
        del tensors[key]
    else:
        tensors[key].flatten()[0] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=key):
        AudioVQVAEPipeline.from_pretrained(folder)
    shutil.rmtree(folder / name)
    with pytest.raises(PipelineFolderError, match=name):
        AudioVQVAEPipeline.from_pretrained(folder)


def test_precision_follows_to(pipe):
    half = tiny_audio_pipeline().to(torch.bfloat16)
    assert {half.vqvae.dtype, half.prior.dtype} == {torch.bfloat16}
    assert half(audio_length_in_s=SECONDS, seed=0).audios.dtype == np.float32
