"""A tiny configuration and inputs of each model, in the form that transformers' common tests ask for."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedConfig

from mosaics import AudioVQVAEConfig, VQVAEConfig
from testing_utils import tiny_dalle, tiny_dvae, tiny_pixelcnn, tiny_vqvae2, tiny_wavenet

BATCH_SIZE = 3


class ModelTester:
    """What `ModelTesterMixin` reads: sizes, and fresh inputs for each test."""

    is_training = True
    batch_size = BATCH_SIZE

    def __init__(self, config: PreTrainedConfig, inputs: Callable[[], dict[str, Any]], **sizes: int):
        self.config, self.inputs = config, inputs
        for name, size in sizes.items():
            setattr(self, name, size)

    def get_config(self) -> PreTrainedConfig:
        return type(self.config).from_dict(self.config.to_dict())

    def prepare_config_and_inputs_for_common(self) -> tuple[PreTrainedConfig, dict[str, Any]]:
        torch.manual_seed(0)
        return self.get_config(), self.inputs()


def pixels() -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.rand(BATCH_SIZE, 3, 16, 16)}


def codes(*shape: int) -> torch.Tensor:
    return torch.randint(16, (BATCH_SIZE, *shape))


def text_and_codes() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(1, 200, (BATCH_SIZE, 12)), "indices": torch.randint(32, (BATCH_SIZE, 4, 4))}


def vqvae_config(**fields: Any) -> VQVAEConfig:
    sizes = {"image_size": 16, "num_embeddings": 16, "embedding_dim": 4, "hidden_size": 12, "num_residual_layers": 1}
    return VQVAEConfig(**sizes, residual_hidden_size=6, **fields)


def audio_vqvae_config() -> AudioVQVAEConfig:
    sizes = {"num_embeddings": 16, "embedding_dim": 4, "num_downsamples": 3, "hidden_size": 8, "num_dilations": 2}
    return AudioVQVAEConfig(**sizes, decoder_hidden_size=8, num_sample_values=16)


TESTERS: dict[str, Callable[[], ModelTester]] = {
    "DiscreteVAE": lambda: ModelTester(tiny_dvae().config, pixels),
    "VQVAE": lambda: ModelTester(vqvae_config(), pixels),
    "VQVAE2": lambda: ModelTester(tiny_vqvae2().config, pixels),
    "AudioVQVAE": lambda: ModelTester(
        audio_vqvae_config(), lambda: {"waveform": 2 * torch.rand(BATCH_SIZE, 1, 64) - 1}
    ),
    "PixelCNN": lambda: ModelTester(tiny_pixelcnn().config, lambda: {"indices": codes(4, 6)}),
    "WaveNet": lambda: ModelTester(tiny_wavenet().config, lambda: {"indices": codes(10)}),
    "DalleTransformer": lambda: ModelTester(
        tiny_dalle().config, text_and_codes, seq_length=27, hidden_size=32, num_hidden_layers=2, num_attention_heads=2
    ),
}
