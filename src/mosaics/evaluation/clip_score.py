"""CLIP score: how well pictures fit their sentences, in the opinion of a CLIP."""

from collections.abc import Sequence
from typing import Any

import torch

from mosaics.evaluation.distortion import MeanOverImages
from mosaics.evaluation.result import Measured, Unavailable
from mosaics.pipelines.prompts import tokenize_prompts


class ClipScore:
    """The mean cosine of CLIP's features of pictures and of their sentences (*CLIPScore*, Hessel et al. 2021).

    Papers often print 100 times this number. Numbers of different CLIPs cannot be compared.

    Args:
        pipe: The pipeline whose tokenizer a CLIP without one of its own reads prompts with.
        clip: transformers' `CLIPModel` with its processor; by default the pipeline's own.

    Raises:
        Unavailable: There is no CLIP.
    """

    def __init__(self, pipe: Any, clip: tuple[Any, Any] | None = None) -> None:
        from mosaics.pipelines.reranking import Reranker

        model, processor = clip or (getattr(pipe, "clip", None), getattr(pipe, "clip_processor", None))
        if model is None:
            raise Unavailable("the pipeline has no CLIP, and none was given.")
        self.reranker, self.pipe, self.mean = Reranker(model, processor), pipe, MeanOverImages()

    def update(self, pictures: torch.Tensor, prompts: Sequence[str]) -> None:
        """Takes in pictures `(B, 3, H, W)` in [0, 1] and their prompts."""
        tokenizer, length = self.pipe.tokenizer, self.pipe.transformer.config.max_text_length
        input_ids = tokenize_prompts(tokenizer, list(prompts), length)
        text = self.reranker.text_features(prompts, input_ids, tokenizer.pad_token_id)
        self.mean.add(self.reranker.scores(pictures, text))

    def compute(self) -> Measured:
        """The mean over all pictures."""
        return Measured(self.mean.value)
