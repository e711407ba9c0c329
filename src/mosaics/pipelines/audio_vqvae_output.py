"""What an audio VQ-VAE pipeline returns."""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers.utils import BaseOutput


@dataclass
class AudioVQVAEPipelineOutput(BaseOutput):
    """Output of [`AudioVQVAEPipeline`]: the sounds, and for each of them what redraws it.

    Sound i is drawn again by `pipe(class_labels[i], seed=seeds[i])` with the same other arguments.

    Args:
        audios: Waveforms `(N, samples)`, class by class, float32 in [-1, 1]: an array or a tensor.
        sampling_rate: Their samples a second, in Hz.
        indices: Their codes `(N, t)`, int64, on the CPU.
        seeds: Seed of each sound.
        class_labels: Class of each sound; `None` without classes.
    """

    audios: np.ndarray | torch.Tensor
    sampling_rate: int
    indices: torch.Tensor
    seeds: list[int]
    class_labels: list[int | None]


@dataclass
class AudioReconstructionOutput(BaseOutput):
    """What [`AudioVQVAEPipeline.reconstruct`] returns.

    Args:
        audios: The sounds `(N, samples)` as the tokenizer gives them back, float32 in [-1, 1].
        sampling_rate: Their samples a second, in Hz.
        indices: Their codes `(N, t)`, int64, on the CPU.
    """

    audios: np.ndarray | torch.Tensor
    sampling_rate: int
    indices: torch.Tensor
