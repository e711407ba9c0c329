"""The one way to read a sound: whatever holds it, out comes mono float in [-1, 1], or an error that names it.

Plain PCM wav files are read by the standard library. Everything else that libsndfile knows (float wav, 24-bit wav with
an extensible header, FLAC, Ogg) is read by the optional package `soundfile` (`pip install mosaics[sound]`).
"""

import contextlib
import os
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

SUFFIXES = (".wav", ".flac", ".ogg")
FULL_SCALE = {1: 2**7, 2: 2**15, 3: 2**23, 4: 2**31}  # by bytes of a PCM sample


class SoundError(ValueError):
    """A sound that cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class SoundInfo:
    """What a file says of its sound.

    Args:
        sampling_rate: Samples a second, in Hz.
        num_samples: Length, in samples of each channel.
        num_channels: Channels.
    """

    sampling_rate: int
    num_samples: int
    num_channels: int


class _Reader(Protocol):
    info: SoundInfo

    def frames(self, start: int, count: int) -> np.ndarray:
        """Up to `count` samples from `start` on, float64 `(samples, channels)`."""


class _PCMReader:
    """Reads the PCM wav files of the standard library's `wave`."""

    def __init__(self, file: wave.Wave_read) -> None:
        self.file, self.width = file, file.getsampwidth()
        self.info = SoundInfo(file.getframerate(), file.getnframes(), file.getnchannels())

    def frames(self, start: int, count: int) -> np.ndarray:
        self.file.setpos(start)
        data = np.frombuffer(self.file.readframes(count), np.uint8)
        data = data[: len(data) - len(data) % (self.width * self.info.num_channels)]
        if self.width == 1:
            samples = data.astype(np.float64) - 128  # 8-bit wav is unsigned
        else:  # the bytes of a sample, least first, become the upper bytes of an integer, which carry the sign
            padded = np.zeros((len(data) // self.width, 4), np.uint8)
            padded[:, 4 - self.width :] = data.reshape(-1, self.width)
            samples = padded.view("<i4")[:, 0] / 2.0 ** (8 * (4 - self.width))
        return (samples / FULL_SCALE[self.width]).reshape(-1, self.info.num_channels)


class _SoundFileReader:
    """Reads what `soundfile` knows."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.info = SoundInfo(file.samplerate, file.frames, file.channels)

    def frames(self, start: int, count: int) -> np.ndarray:
        self.file.seek(start)
        return self.file.read(count, dtype="float64", always_2d=True)


def sound_info(path: str | os.PathLike) -> SoundInfo:
    """What a sound file says of itself; its samples are not read.

    Raises:
        SoundError: If there is no usable sound file. The message names it, and says what to do.
    """
    with _opened(Path(path)) as reader:
        return reader.info


def read_sound(
    path: str | os.PathLike, sampling_rate: int | None = None, start: int = 0, length: int | None = None
) -> torch.Tensor:
    """Reads a sound file, or a part of it, as a waveform `(samples,)`, float32 in [-1, 1]; channels are averaged.

    Args:
        path: The file: wav (8, 16, 24 or 32-bit PCM, or float), FLAC or Ogg; see the module for what needs
            `soundfile`.
        sampling_rate: The rate it must have, in Hz. Another one is refused: sound is not resampled here.
        start: First sample.
        length: Number of samples; to the end if not given.

    Raises:
        SoundError: If the file is missing, empty, no sound, truncated, of another rate, shorter than asked for, or
            holds samples that are NaN or outside [-1, 1]. The message names it.
    """
    path = Path(path)
    with _opened(path) as reader:
        info = reader.info
        if sampling_rate is not None:
            check_sampling_rate(path, info, sampling_rate)
        length = info.num_samples - start if length is None else length
        if start < 0 or length < 1 or start + length > info.num_samples:
            raise SoundError(f"{path} has {info.num_samples} samples; {length} from sample {start} on were asked for.")
        frames = reader.frames(start, length)
    if len(frames) < length:
        raise SoundError(
            f"{path} is truncated: it has {start + len(frames)} of {info.num_samples} samples. Fetch it again, or "
            "remove it."
        )
    if not np.isfinite(frames).all():
        raise SoundError(f"{path} holds samples that are NaN or infinite. Mend or remove it.")
    if (loudest := np.abs(frames).max()) > 1:
        raise SoundError(f"{path} holds samples up to {loudest:.4g}, expected [-1, 1]: scale it, or save it as PCM.")
    return torch.from_numpy(frames.mean(axis=1)).float()


def check_sampling_rate(path: Path, info: SoundInfo, sampling_rate: int) -> None:
    """Raises [`SoundError`] if a file has another sampling rate."""
    if info.sampling_rate != sampling_rate:
        raise SoundError(
            f"{path} has {info.sampling_rate} samples a second, expected {sampling_rate}. Resample it first, for "
            f"example with `ffmpeg -i {path.name} -ar {sampling_rate} resampled.wav`."
        )


def write_sound(path: str | os.PathLike, waveform: torch.Tensor | np.ndarray, sampling_rate: int) -> None:
    """Writes a mono waveform as a 16-bit PCM wav file, whole or not at all.

    Args:
        path: The file; one that is there is replaced.
        waveform: `(samples,)` or `(1, samples)`, floating point in [-1, 1].
        sampling_rate: Samples a second, in Hz.

    Raises:
        ValueError: On a wrong shape, dtype, range or rate.
    """
    samples = waveform.detach().float().cpu().numpy() if isinstance(waveform, torch.Tensor) else np.asarray(waveform)
    if samples.ndim == 2 and len(samples) == 1:
        samples = samples[0]
    if samples.ndim != 1 or not samples.size or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"waveform must be floats of shape (samples,), got {samples.dtype} {samples.shape}.")
    if not np.abs(samples).max() <= 1:
        raise ValueError(f"waveform must be finite and lie in [-1, 1], got a largest size of {np.abs(samples).max()}.")
    if isinstance(sampling_rate, bool) or not isinstance(sampling_rate, int) or sampling_rate < 1:
        raise ValueError(f"sampling_rate must be an integer of at least 1, got {sampling_rate!r}.")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with wave.open(str(temporary), "wb") as file:
            file.setparams((1, 2, sampling_rate, 0, "NONE", ""))
            file.writeframes(np.rint(samples.astype(np.float64) * 32767).astype("<i2").tobytes())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Reader]:
    """A reader of a file, once it looks whole."""
    _check_file(path)
    try:
        file = wave.open(str(path), "rb")
    except EOFError as error:
        raise SoundError(f"{path} ends within its header: fetch it again, or remove it.") from error
    except wave.Error as error:
        with _opened_by_soundfile(path, str(error)) as reader:
            yield _checked(path, reader)
        return
    with file:
        if file.getsampwidth() not in FULL_SCALE:
            raise SoundError(f"{path} has samples of {8 * file.getsampwidth()} bits; PCM of 8 to 32 bits is read.")
        yield _checked(path, _PCMReader(file))


@contextlib.contextmanager
def _opened_by_soundfile(path: Path, reason: str) -> Iterator[_Reader]:
    try:
        import soundfile
    except ImportError as error:
        raise SoundError(
            f"{path} is no PCM wav file ({reason}). Float wav, FLAC and Ogg need `pip install mosaics[sound]`."
        ) from error
    try:
        with soundfile.SoundFile(path) as file:
            yield _SoundFileReader(file)
    except soundfile.LibsndfileError as error:
        raise SoundError(f"{path} is no sound file that can be read, or is damaged: {error}") from error


def _check_file(path: Path) -> None:
    """Refuses what is missing or empty, and a wav file that is shorter than its header says."""
    if not path.is_file():
        raise SoundError(f"There is no sound file at {path}.")
    size = path.stat().st_size
    if not size:
        raise SoundError(f"{path} is empty (0 bytes): fetch it again.")
    with open(path, "rb") as file:
        head = file.read(8)
    if head[:4] == b"RIFF" and (expected := int.from_bytes(head[4:], "little") + 8) > size:
        raise SoundError(f"{path} is truncated: it has {size:,} of {expected:,} bytes. Fetch it again, or remove it.")


def _checked(path: Path, reader: _Reader) -> _Reader:
    info = reader.info
    if min(info.sampling_rate, info.num_samples, info.num_channels) < 1:
        raise SoundError(f"{path} holds no sound: {info}.")
    return reader
