"""Bits per dimension of an image tokenizer: the length of a picture as codes and what the decoder still needs."""

import math
from typing import Any

import torch
from transformers import PreTrainedModel

from mosaics.evaluation.distortion import MeanOverImages
from mosaics.evaluation.result import Measured, Unavailable
from mosaics.likelihoods import logit_laplace_bits_per_dim


class BitsPerDim:
    """The negative ELBO in bits per pixel channel, with one code at each position and a uniform prior over codes.

        bits = (-log p(x | z) + number of codes * log K) / (C H W ln 2)

    The encoder is taken as it is used, deterministic: KL(q(z | x) || Uniform) is then log K for each code.

    Args:
        model: The image tokenizer.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.mean = model, MeanOverImages()

    def update(self, pixel_values: torch.Tensor, output: Any) -> None:
        """Takes in a batch `(B, C, H, W)` and what the model returned for it.

        Raises:
            Unavailable: The model gives no probability of 8-bit values.
        """
        self.mean.add(self._bits(pixel_values, output).double().expand(len(pixel_values)))

    def compute(self) -> Measured:
        """The mean over all pictures."""
        remark = ""
        if hasattr(self.model.config, "pixel_epsilon"):
            remark = "the logit-Laplace density times the width of an 8-bit step stands for the probability of a value"
        return Measured(self.mean.value, remark)

    def _bits(self, pixel_values: torch.Tensor, output: Any) -> torch.Tensor:
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
