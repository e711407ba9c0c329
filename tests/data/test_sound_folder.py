"""Folders of sounds: crops as functions of (seed, index), speakers from sub-folders, bad files recorded."""

import json

import numpy as np
import pytest
import torch

from mosaics.data import SoundFolder
from mosaics.data.skipped import BadDataError
from mosaics.data.sounds import read_sound, write_sound
from sound_files import tone, wav_bytes, write_tones


def test_crops_are_stretches_of_the_sounds_with_the_speaker_as_class(tmp_path):
    data = SoundFolder(write_tones(tmp_path), length=64, sampling_rate=1000)
    assert data.class_names == ("high", "low") and len(data) == (3 * 700 + 3 * 50) * 2 // 64
    files = {path: read_sound(path) for path in data.files}
    for index in range(len(data)):
        sample = data[index]
        assert sample["waveform"].shape == (64,) and sample["waveform"].dtype == torch.float32
        homes = [p for p, whole in files.items() if (whole.unfold(0, 64, 1) == sample["waveform"]).all(1).any()]
        assert {data.class_names[sample["class_labels"]]} == {path.parent.name for path in homes}


def test_a_crop_depends_on_seed_and_index_alone(tmp_path):
    write_tones(tmp_path)
    sizes = {"length": 64, "sampling_rate": 1000, "num_crops": 50}
    first, again, other = (SoundFolder(tmp_path, **sizes, seed=seed) for seed in (3, 3, 4))
    backwards = [again[index]["waveform"] for index in reversed(range(50))][::-1]
    forwards = [first[index]["waveform"] for index in range(50)]
    assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert sum(torch.equal(crop, other[index]["waveform"]) for index, crop in enumerate(forwards)) < 5
    assert len({tuple(crop.tolist()) for crop in forwards}) > 40, "crops differ"
    assert torch.equal(first[-1]["waveform"], forwards[49]) and first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint
    with pytest.raises(IndexError, match="50 crops"):
        first[50]


def test_every_stretch_of_the_folder_is_as_likely_as_any_other(tmp_path):
    write_sound(tmp_path / "long.wav", np.linspace(0.5, 1, 13), 1000)  # 10 places of a crop of 4
    write_sound(tmp_path / "short.wav", -np.linspace(0.5, 1, 8), 1000)  # 5 places
    data = SoundFolder(tmp_path, length=4, sampling_rate=1000, num_crops=3000)
    starts = [round(float(data[index]["waveform"][0]), 3) for index in range(3000)]
    values, counts = np.unique(starts, return_counts=True)
    assert len(values) == 15 and counts.min() > 140 and counts.max() < 260  # 200 expected, deviation 14
    assert data.class_names is None and set(data[0]) == {"waveform"}


def test_a_split_is_a_folder_of_its_name(tmp_path):
    write_tones(tmp_path / "train")
    write_tones(tmp_path / "test", num_samples=300)
    arguments = {"length": 64, "sampling_rate": 1000}
    assert {path.parts[-3] for path in SoundFolder(tmp_path, **arguments).files} == {"train"}
    assert {path.parts[-3] for path in SoundFolder(tmp_path, **arguments, split="test").files} == {"test"}
    with pytest.raises(BadDataError, match="no folder 'dev'"):
        SoundFolder(tmp_path, **arguments, split="dev")
    (tmp_path / "train").rename(tmp_path / "others")
    with pytest.raises(BadDataError, match="no folder 'train'"):
        SoundFolder(tmp_path, **arguments, split="test")


def test_bad_files_are_recorded_by_name_and_too_many_stop_the_run(tmp_path):
    write_tones(tmp_path / "data")
    bad = {
        "empty.wav": b"",
        "cut.wav": wav_bytes(tone(50, 700)[:, None], 16)[:-9],
        "fast.wav": wav_bytes(tone(50, 700)[:, None], 16, 2000),
        "short.wav": wav_bytes(tone(50, 63)[:, None], 16),
    }
    for name, content in bad.items():
        (tmp_path / "data" / "low" / name).write_bytes(content)
    arguments = {"length": 64, "sampling_rate": 1000, "skipped_path": tmp_path / "out" / "skipped.jsonl"}
    data = SoundFolder(tmp_path / "data", **arguments, max_bad=0.5)
    assert len(data.files) == 6
    rows = [json.loads(line) for line in arguments["skipped_path"].read_text().splitlines()]
    assert {row["name"].rsplit("/", 1)[1] for row in rows} == set(bad)
    reasons = {row["name"].rsplit("/", 1)[1]: row["reason"] for row in rows}
    assert "2000 samples a second, expected 1000" in reasons["fast.wav"] and "63 samples" in reasons["short.wav"]
    with pytest.raises(BadDataError, match=r"more than the 1 that max_bad=0\.1 tolerates[^$]*cut\.wav"):
        SoundFolder(tmp_path / "data", **arguments, max_bad=0.1)


def test_a_file_that_turns_bad_later_is_replaced_by_another_crop_and_recorded(tmp_path):
    write_tones(tmp_path)
    data = SoundFolder(tmp_path, length=64, sampling_rate=1000, num_crops=100)
    broken = data.files[2]
    broken.write_bytes(broken.read_bytes()[:-9])
    labels = [data[index]["class_labels"] for index in range(100)]
    assert set(labels) == {0, 1} and list(data.skipped.reasons) == [str(broken)]
    for path in data.files:
        path.write_bytes(b"")
    with pytest.raises(BadDataError, match="bad"):
        data[0]


def test_a_single_bad_file_ends_in_an_error_and_not_in_a_loop(tmp_path):
    write_sound(tmp_path / "only.wav", tone(50, 100), 1000)
    data = SoundFolder(tmp_path, length=64, sampling_rate=1000)
    data.files[0].write_bytes(b"")
    with pytest.raises(BadDataError, match=r"in a row are bad.*only\.wav"):
        data[0]


def test_folders_without_sounds_are_refused(tmp_path):
    arguments = {"length": 64, "sampling_rate": 1000}
    with pytest.raises(FileNotFoundError, match="nowhere"):
        SoundFolder(tmp_path / "nowhere", **arguments)
    with pytest.raises(BadDataError, match="no usable sound"):
        SoundFolder(tmp_path, **arguments)
    write_tones(tmp_path)
    write_sound(tmp_path / "loose.wav", tone(50, 100), 1000)
    with pytest.raises(BadDataError, match=r"loose\.wav lies beside the sub-folders"):
        SoundFolder(tmp_path, **arguments)
    for name, value in (("length", 0), ("num_crops", 0), ("sampling_rate", 1000.0)):
        with pytest.raises(ValueError, match=name):
            SoundFolder(tmp_path, **(arguments | {name: value}))
