"""What a VQ-VAE pipeline returns."""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image


@dataclass
class VQVAEPipelineOutput(BaseOutput):
    """Output of [`VQVAEPipeline`]: the pictures, and for each of them what redraws it. All lists have equal length.

    Picture i is drawn again by `pipe(class_labels[i], seed=seeds[i])` with the same sampling arguments.

    Args:
        images: Pictures, class by class, the best first: PIL images, or an array `(N, H, W, C)`, or a tensor
            `(N, C, H, W)`, both float32 in [0, 1].
        indices: Codes, one grid `(N, h, w)` for each level, top first, int64, on the CPU.
        seeds: Seed of each picture.
        class_labels: Class of each picture; `None` without classes.
        scores: Probability, 0 to 1, that the classifier gives to the class of each picture, or without classes to the
            likeliest one; `None` if it was not classified.
    """

    images: list[Image.Image] | np.ndarray | torch.Tensor
    indices: tuple[torch.Tensor, ...]
    seeds: list[int]
    class_labels: list[int | None]
    scores: list[float | None]


@dataclass
class ReconstructionOutput(BaseOutput):
    """What [`VQVAEPipeline.reconstruct`] returns.

    Args:
        images: The pictures as the tokenizer gives them back, in the form that was asked for.
        indices: Their codes, one grid `(N, h, w)` for each level, top first, int64, on the CPU.
    """

    images: list[Image.Image] | np.ndarray | torch.Tensor
    indices: tuple[torch.Tensor, ...]
