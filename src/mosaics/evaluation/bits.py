"""Bits per dimension of an image tokenizer: the length of a picture as codes and what the decoder still needs."""

import math
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from mosaics.evaluation.distortion import MeanOverImages
from mosaics.evaluation.result import Measured, Unavailable
from mosaics.likelihoods import logit_laplace_bits_per_dim


class Coded(NamedTuple):
    """A batch as the tokenizer and its prior see it."""

    output: Any  # what the tokenizer returned
    class_labels: torch.Tensor | None = None  # (B,), on the device


class BitsPerDim:
    """The negative ELBO in bits per pixel channel, with one code at each position and a uniform prior over codes.

        bits = (-log p(x | z) + number of codes * log K) / (C H W ln 2)

    The encoder is taken as it is used, deterministic: KL(q(z | x) || Uniform) is then log K for each code.

    Args:
        model: The image tokenizer.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.mean = model, MeanOverImages()

    def update(self, pixel_values: torch.Tensor, coded: Coded) -> None:
        """Takes in a batch `(B, C, H, W)` and what the model returned for it.

        Raises:
            Unavailable: The model gives no probability of 8-bit values.
        """
        self.mean.add(self._bits(pixel_values, coded).double().expand(len(pixel_values)))

    def compute(self) -> Measured:
        """The mean over all pictures."""
        remark = ""
        if hasattr(self.model.config, "pixel_epsilon"):
            remark = "the logit-Laplace density times the width of an 8-bit step stands for the probability of a value"
        return Measured(self.mean.value, remark)

    def _bits(self, pixel_values: torch.Tensor, coded: Coded) -> torch.Tensor:
        output = coded.output
        if hasattr(self.model.config, "pixel_epsilon"):  # the discrete VAE
            codes_per_dimension = output.indices[0].numel() / pixel_values[0].numel()
            nats = output.reconstruction_loss + codes_per_dimension * math.log(self.model.config.num_embeddings)
            return logit_laplace_bits_per_dim(nats, self.model.config.pixel_epsilon)
        if getattr(output, "bits_per_dim", None) is None:
            raise Unavailable(
                f"this {type(self.model).__name__} is trained on the squared error, which is no probability of 8-bit "
                "values (a VQVAE with likelihood='logistic_mixture' has one)."
            )
        return output.bits_per_dim


class PriorBitsPerDim(BitsPerDim):
    """The same with a learned prior in the place of the uniform one: the codes cost -log p(z) instead of log K each.

        bits = (-log p(x | z) - log p(z)) / (C H W ln 2)

    Args:
        model: The image tokenizer, with one grid of codes.
        prior: The PixelCNN over its codes.

    Raises:
        Unavailable: There is no prior.
    """

    def __init__(self, model: PreTrainedModel, prior: PreTrainedModel | None) -> None:
        super().__init__(model)
        if prior is None:
            raise Unavailable("there is no prior: evaluate a VQVAEPipeline, or give one.")
        self.prior = prior.eval()

    def _bits(self, pixel_values: torch.Tensor, coded: Coded) -> torch.Tensor:
        bits, indices, labels = super()._bits(pixel_values, coded), coded.output.indices, coded.class_labels
        classes = self.prior.config.num_classes
        if classes is not None and labels is None:
            raise Unavailable(f"the prior has {classes} classes and the data set no class labels.")
        nats = self.prior(indices, None if classes is None else labels).loss  # a code
        codes_per_dimension = indices[0].numel() / pixel_values[0].numel()
        return bits + codes_per_dimension * (nats / math.log(2) - math.log2(self.model.config.num_embeddings))
