"""Sound files: what is read, bit for bit, and what is refused by name."""

import importlib.util
import os
import sys
import wave

import numpy as np
import pytest
import torch

from mosaics.data.sounds import SoundError, SoundInfo, read_sound, sound_info, write_sound
from sound_files import tone, wav_bytes

needs_soundfile = pytest.mark.skipif(
    importlib.util.find_spec("soundfile") is None,
    reason="reads float wav and FLAC with the optional package soundfile",
)
STEREO = np.stack([tone(50, 200), tone(30, 200, amplitude=0.25)], axis=1)


@pytest.fixture
def wav(tmp_path):
    def write(frames=STEREO, bits=16, **keywords):
        (tmp_path / "sound.wav").write_bytes(wav_bytes(frames, bits, **keywords))
        return tmp_path / "sound.wav"

    return write


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_pcm_of_every_width_is_read_and_channels_are_averaged(wav, bits):
    path = wav(bits=bits)
    assert sound_info(path) == SoundInfo(1000, 200, 2)
    waveform = read_sound(path, sampling_rate=1000)
    assert waveform.shape == (200,) and waveform.dtype == torch.float32
    step = 2.0 ** (1 - bits)
    torch.testing.assert_close(
        waveform.double(), torch.from_numpy(STEREO.mean(axis=1)), atol=1.5 * step + 1e-7, rtol=0
    )


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_the_extremes_of_pcm_keep_their_signs(wav, bits):
    loudest = read_sound(wav(np.array([[-1.0], [0.0], [1.0]]), bits))
    torch.testing.assert_close(loudest, torch.tensor([-1.0, 0.0, 1.0]), atol=2.0 ** (2 - bits), rtol=0)


@pytest.mark.parametrize("bits", [32, 64])
@needs_soundfile
def test_float_wav_is_read(wav, bits):
    path = wav(bits=bits, kind=3)
    assert sound_info(path) == SoundInfo(1000, 200, 2)
    torch.testing.assert_close(read_sound(path), torch.from_numpy(STEREO.mean(axis=1)).float())
    torch.testing.assert_close(read_sound(path, start=150, length=7), read_sound(path)[150:157])


@needs_soundfile
def test_flac_is_read_and_a_truncated_one_refused(tmp_path):
    import soundfile

    path = tmp_path / "sound.flac"
    soundfile.write(path, STEREO, 1000, subtype="PCM_24")
    torch.testing.assert_close(read_sound(path), torch.from_numpy(STEREO.mean(axis=1)).float(), atol=1e-6, rtol=0)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(SoundError, match=r"sound\.flac"):
        read_sound(path)


@needs_soundfile
@pytest.mark.parametrize("value", [np.nan, np.inf, 1.5])
def test_float_samples_that_are_no_sound_are_refused(wav, value):
    frames = STEREO.copy()
    frames[7, 1] = value
    with pytest.raises(SoundError, match=r"sound\.wav holds samples"):
        read_sound(wav(frames, 32, kind=3))


def test_a_part_is_what_the_whole_has_there(wav):
    path = wav(bits=24)
    whole = read_sound(path)
    assert torch.equal(read_sound(path, start=33, length=20), whole[33:53])
    assert torch.equal(read_sound(path, start=190), whole[190:])
    for start, length in ((190, 11), (-1, 5), (0, 0), (200, None)):
        with pytest.raises(SoundError, match="has 200 samples"):
            read_sound(path, start=start, length=length)


@pytest.mark.parametrize("sound", [tone(50, 100).astype(np.float32), torch.from_numpy(tone(50, 100))[None].float()])
def test_what_is_written_is_read_back(tmp_path, sound):
    path = tmp_path / "new" / "sound.wav"
    write_sound(path, sound, 8000)
    assert sound_info(path) == SoundInfo(8000, 100, 1)
    torch.testing.assert_close(read_sound(path), torch.as_tensor(sound).flatten(), atol=1 / 32767, rtol=0)
    with wave.open(str(path)) as file:
        assert (file.getsampwidth(), file.getframerate()) == (2, 8000)
    assert os.listdir(path.parent) == ["sound.wav"]


@pytest.mark.parametrize(
    ("sound", "rate", "message"),
    [
        (np.zeros((2, 9)), 8000, "floats of shape"),
        (np.zeros(9, np.int16), 8000, "floats of shape"),
        (np.zeros(0), 8000, "floats of shape"),
        (np.full(9, 1.01), 8000, r"lie in \[-1, 1\]"),
        (np.full(9, np.nan), 8000, "finite"),
        (np.zeros(9), 8000.0, "sampling_rate"),
    ],
)
def test_what_is_no_waveform_is_not_written(tmp_path, sound, rate, message):
    (tmp_path / "sound.wav").write_text("good")
    with pytest.raises(ValueError, match=message):
        write_sound(tmp_path / "sound.wav", sound, rate)
    assert (tmp_path / "sound.wav").read_text() == "good" and len(os.listdir(tmp_path)) == 1


def test_another_sampling_rate_is_refused_with_both_numbers(wav):
    with pytest.raises(SoundError, match=r"sound\.wav has 1000 samples a second, expected 16000.*-ar 16000"):
        read_sound(wav(), sampling_rate=16000)


def test_what_is_no_whole_sound_file_is_refused_by_name(tmp_path, wav):
    whole = wav().read_bytes()
    faults = {
        "empty.wav": (b"", "empty"),
        "cut.wav": (whole[:-3], "truncated"),
        "head.wav": (whole[:11], "truncated"),
        "page.wav": (b"<!DOCTYPE html><html></html>", "no PCM wav file|no sound file"),
        "wide.wav": (whole[:34] + (64).to_bytes(2, "little") + whole[36:], "samples of 64 bits"),
        "silent.wav": (wav_bytes(np.zeros((0, 1)), 16), "holds no sound"),
        "end.wav": (b"RIFF\x04\0\0\0WAVE", "header|no PCM|no sound file"),
        # The size at the start is right, that of the samples is not.
        "lying.wav": (whole[:40] + (4 * len(whole)).to_bytes(4, "little") + whole[44:], r"truncated|header|read"),
    }
    for name, (content, message) in faults.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SoundError, match=rf"{name}.*({message})"):
            read_sound(tmp_path / name)
    with pytest.raises(SoundError, match=r"no sound file at .*nowhere\.wav"):
        read_sound(tmp_path / "nowhere.wav")


def test_a_format_that_needs_the_optional_package_says_so(wav, monkeypatch):
    path = wav(bits=32, kind=3)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(SoundError, match=r"sound\.wav is no PCM wav file.*pip install mosaics\[sound\]"):
        read_sound(path)
