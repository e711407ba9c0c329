"""Configuration of the VQ-VAE of sound."""

import math

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

QUANTIZERS = ("vector", "ema")
ESTIMATOR_NAMES = ("straight_through", "rotation")


@strict
class AudioVQVAEConfig(PreTrainedConfig):
    r"""Configuration of an [`AudioVQVAE`].

    The encoder's defaults are those of *Neural Discrete Representation Learning* (https://arxiv.org/abs/1711.00937),
    Section 4.3: six convolutions of stride 2 and window 4, so that a code stands for 64 samples, and K = 512. The
    paper does not give the widths.

    Args:
        sampling_rate (`int`, defaults to 16000): Samples a second of the waveforms the model is meant for.
        num_embeddings (`int`, defaults to 512): Number of codes K.
        embedding_dim (`int`, defaults to 64): Size of a code vector D.
        num_downsamples (`int`, defaults to 6): Convolutions of stride 2; a code stands for `2**num_downsamples`
            samples.
        hidden_size (`int`, defaults to 256): Width of the strided convolutions.
        decoder_hidden_size (`int`, defaults to 64): Width of the dilated convolutions, which run at every sample.
        num_dilations (`int`, defaults to 10): Dilated layers of a block, with dilations 1, 2, 4, ...
        num_blocks (`int`, defaults to 2): Blocks of dilated layers.
        num_sample_values (`int`, defaults to 256): Mu-law values of a sample.
        quantizer (`str`, defaults to `"vector"`): `"vector"` or `"ema"`, see `mosaics.quantizers`.
        gradient_estimator (`str`, defaults to `"straight_through"`): Or `"rotation"`.
        commitment_cost (`float`, defaults to 0.25): beta, the weight of the commitment loss.
        ema_decay (`float`, defaults to 0.99): Decay of the averages of `"ema"`.
    """

    model_type = "mosaics_audio_vqvae"
    sampling_rate: int = 16000
    num_embeddings: int = 512
    embedding_dim: int = 64
    num_downsamples: int = 6
    hidden_size: int = 256
    decoder_hidden_size: int = 64
    num_dilations: int = 10
    num_blocks: int = 2
    num_sample_values: int = 256
    quantizer: str = "vector"
    gradient_estimator: str = "straight_through"
    commitment_cost: float | int = 0.25
    ema_decay: float | int = 0.99

    @property
    def downsample_factor(self) -> int:
        """Samples of a code."""
        return 2**self.num_downsamples

    @property
    def codes_per_second(self) -> float:
        """Codes a second at `sampling_rate`."""
        return self.sampling_rate / self.downsample_factor

    def validate_sizes(self):
        """Every size is in its range; called by the strict dataclass."""
        least = {
            "sampling_rate": 1,
            "num_embeddings": 2,
            "embedding_dim": 1,
            "num_downsamples": 1,
            "hidden_size": 1,
            "decoder_hidden_size": 1,
            "num_dilations": 1,
            "num_blocks": 1,
            "num_sample_values": 2,
        }
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ValueError(f"AudioVQVAEConfig.{name} must be at least {smallest}, got {getattr(self, name)}.")

    def validate_objective(self):
        """Weights are in their ranges and names known; called by the strict dataclass."""
        for name, choices in (("quantizer", QUANTIZERS), ("gradient_estimator", ESTIMATOR_NAMES)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"AudioVQVAEConfig.{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}."
                )
        if not 0 <= self.commitment_cost < math.inf:
            raise ValueError(f"AudioVQVAEConfig.commitment_cost must be finite and >= 0, got {self.commitment_cost}.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"AudioVQVAEConfig.ema_decay must be in [0, 1), got {self.ema_decay}.")


__all__ = ["AudioVQVAEConfig"]
