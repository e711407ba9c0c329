"""What a DALL-E pipeline returns."""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image


@dataclass
class DallePipelineOutput(BaseOutput):
    """Output of [`DallePipeline`]: the pictures, and for each of them what redraws it. All lists have equal length.

    Picture i is drawn again by `pipe(prompts[i], seed=seeds[i])` with the same sampling arguments.

    Args:
        images: Pictures, prompt by prompt, the best first: PIL images, or an array `(N, H, W, 3)`, or a tensor
            `(N, 3, H, W)`, both float32 in [0, 1].
        clip_scores: For each picture the cosine of CLIP's picture and text features, -1 to 1; `None` if it was not
            ranked.
        indices: Codes `(N, h, w)`, int64, on the CPU; `pipe.dvae.decode(indices)` gives the pictures.
        seeds: Seed of each picture.
        prompts: Prompt of each picture.
    """

    images: list[Image.Image] | np.ndarray | torch.Tensor
    clip_scores: list[float | None]
    indices: torch.Tensor
    seeds: list[int]
    prompts: list[str]
