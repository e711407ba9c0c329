"""Classifier-based rejection sampling: of many candidates, those a classifier is surest of.

*Generating Diverse High-Fidelity Images with VQ-VAE-2* (https://arxiv.org/abs/1906.00446), section 3.3: the closer a
sample is to the data, the more probable its class is to a classifier trained on them.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from transformers import PreTrainedModel

from mosaics.pipelines.running import IncompleteResultWarning


class ClassJudge:
    """Scores pictures by the probability of their class. A failure of the classifier costs the ranking, not them.

    Args:
        classifier: transformers' image classification model.
        classifier_processor: Its image processor; without one it reads the pixels as they are, in [0, 1].
    """

    def __init__(self, classifier: PreTrainedModel, classifier_processor: Any = None):
        self.classifier = classifier
        self.classifier_processor = classifier_processor
        self.failed = False

    def probabilities(self, pixels: torch.Tensor) -> torch.Tensor:
        """The probability of each class `(B, classes)` of pictures `(B, C, H, W)` in [0, 1], on the CPU.

        Raises:
            FloatingPointError: A probability is NaN.
        """
        if self.classifier_processor is not None:
            pictures = VaeImageProcessor.numpy_to_pil(VaeImageProcessor.pt_to_numpy(pixels))
            pixels = self.classifier_processor(images=pictures, return_tensors="pt")["pixel_values"]
        logits = self.classifier(pixels.to(self.classifier.device, self.classifier.dtype)).logits
        probabilities = logits.float().softmax(dim=-1).cpu()
        if not torch.isfinite(probabilities).all():
            raise FloatingPointError("classifier gave probabilities that are NaN.")
        return probabilities

    def scores(self, pixels: torch.Tensor, class_labels: Sequence[int | None]) -> list[float | None]:
        """The probability of each picture's class, or of its likeliest class where it has none to be of.

        `None` for all after a failure, which is reported once.
        """
        if not self.failed:
            try:
                rows = zip(self.probabilities(pixels), class_labels, strict=True)
                return [float(row.max() if label is None else row[label]) for row, label in rows]
            except Exception as error:
                self.failed = True
                warnings.warn(
                    f"classifier failed ({type(error).__name__}: {error}): the candidates from here on are not "
                    "ranked, but kept in the order they were drawn.",
                    IncompleteResultWarning,
                    stacklevel=3,
                )
        return [None] * len(pixels)
