"""The sounds a user hands to a pipeline, checked at the door."""

import os
from typing import Any

import numpy as np
import torch

from mosaics.data.sounds import SoundError, read_sound

MAX_SECONDS = 3600


def read_waveforms(audio: Any, sampling_rate: int, num_wanted: int | None = None) -> torch.Tensor:
    """One sound or several of equal length as mono waveforms `(N, samples)`, float32 in [-1, 1].

    Args:
        audio: Paths of sound files, arrays or float tensors `(samples,)`, one or a list; a tensor or array
            `(N, samples)` counts as a list.
        sampling_rate: The rate that files must have, and arrays are taken to have, in Hz.
        num_wanted: How many there must be, if not one; any number if not given.

    Raises:
        SoundError: A sound is unreadable, of another rate, out of range, or there are not the right number of them or
            of different lengths. The message names it.
    """
    several = isinstance(audio, torch.Tensor | np.ndarray) and audio.ndim == 2
    sounds = list(audio) if several or isinstance(audio, list | tuple) else [audio]
    if not sounds or (num_wanted is not None and len(sounds) not in (1, num_wanted)):
        number = "at least one" if num_wanted is None else f"one, or one for each of the {num_wanted} classes"
        raise SoundError(f"audio must be sounds, {number}; got {len(sounds)}.")
    waveforms = [_read_waveform(f"audio[{number}]", sound, sampling_rate) for number, sound in enumerate(sounds)]
    lengths = [len(waveform) for waveform in waveforms]
    if len(set(lengths)) > 1:
        raise SoundError(f"audio must be sounds of equal length, got {lengths[:8]} samples: cut them, or give one.")
    return torch.stack(waveforms)


def _read_waveform(name: str, sound: Any, sampling_rate: int) -> torch.Tensor:
    if isinstance(sound, str | os.PathLike):
        try:
            return read_sound(sound, sampling_rate)
        except SoundError as error:
            raise SoundError(f"{name}: {error}") from error
    if not isinstance(sound, torch.Tensor | np.ndarray):
        raise SoundError(f"{name} must be a path, an array or a float tensor, got {type(sound).__name__}.")
    waveform = torch.as_tensor(sound).detach().cpu()
    if waveform.ndim != 1 or not waveform.numel() or not waveform.is_floating_point():
        raise SoundError(f"{name} must be floats of shape (samples,), got {waveform.dtype} {tuple(waveform.shape)}.")
    if not bool((waveform.abs() <= 1).all()):
        raise SoundError(f"{name} must be finite and lie in [-1, 1], got a largest size of {waveform.abs().max()}.")
    return waveform.float()


def check_seconds(name: str, seconds: float) -> None:
    """Raises `ValueError` if `seconds` is not a length of sound up to an hour."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MAX_SECONDS:
        raise ValueError(f"{name} must be above 0 and at most {MAX_SECONDS} seconds, got {seconds!r}.")
