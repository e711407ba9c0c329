"""Synthetic sounds for the tests."""

import struct
from pathlib import Path

import numpy as np

from mosaics.data.sounds import write_sound


def tone(frequency: float, num_samples: int, sampling_rate: int = 1000, amplitude: float = 0.5) -> np.ndarray:
    """A sine `(num_samples,)`."""
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(num_samples) / sampling_rate)


def write_tones(folder: Path, num_samples: int = 700, sampling_rate: int = 1000) -> Path:
    """Six tones of two speakers, a low one and a high one, in a folder each."""
    for speaker, frequencies in (("high", (220, 233, 247)), ("low", (55, 58, 62))):
        for number, frequency in enumerate(frequencies):
            sound = tone(frequency, num_samples + 50 * number, sampling_rate)
            write_sound(folder / speaker / f"{number}.wav", sound, sampling_rate)
    return folder


def wav_bytes(frames: np.ndarray, bits: int, sampling_rate: int = 1000, kind: int = 1) -> bytes:
    """A wav file, written by hand: frames `(samples, channels)` in [-1, 1], kind 1 for PCM, 3 for float."""
    if kind == 3:
        data = frames.astype(f"<f{bits // 8}").tobytes()
    elif bits == 8:
        data = np.rint(frames * 127 + 128).astype(np.uint8).tobytes()
    else:
        integers = np.rint(frames * (2 ** (bits - 1) - 1)).astype("<i4")
        data = integers.reshape(-1, 1).view(np.uint8)[:, : bits // 8].tobytes()
    channels = frames.shape[1]
    frame = channels * bits // 8
    header = struct.pack("<HHIIHH", kind, channels, sampling_rate, sampling_rate * frame, frame, bits)
    chunks = b"WAVEfmt " + struct.pack("<I", len(header)) + header + b"data" + struct.pack("<I", len(data)) + data
    chunks += b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks
