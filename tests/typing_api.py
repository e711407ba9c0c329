"""Uses the public names as a program would; `make types` checks that each expression has the type a user expects.

Not run: a type checker reads it.
"""

from typing import assert_type

import numpy as np
import torch
from PIL import Image

from mosaics import (
    VQGAN,
    VQVAE,
    VQVAE2,
    AudioVQVAE,
    DallePipeline,
    DallePipelineOutput,
    DallePytorchTransformer,
    DallePytorchVAE,
    DalleTransformer,
    DiscreteVAE,
    DiscreteVAEConfig,
    PixelCNN,
    VQVAEConfig,
    VQVAEPipeline,
    WaveNet,
    __version__,
    default_checkpoint,
)
from mosaics.models.dalle import DalleTransformerOutput
from mosaics.models.dvae import DiscreteVAEOutput
from mosaics.quantizers import QuantizerOutput, VectorQuantizer


def tokenizers(pixel_values: torch.Tensor) -> None:
    assert_type(__version__, str)
    dvae = DiscreteVAE.from_pretrained("user/name", subfolder="dvae", dtype="auto")
    assert_type(dvae, DiscreteVAE)
    assert_type(dvae.config, DiscreteVAEConfig)
    assert_type(dvae.config.grid_size, int)
    assert_type(dvae.encode(pixel_values), torch.Tensor)
    assert_type(dvae.decode(dvae.encode(torch.rand(1, 3, 16, 16))), torch.Tensor)
    output = dvae(pixel_values, gumbel_temperature=0.5)
    assert_type(output, DiscreteVAEOutput)
    output.loss.backward()
    assert_type(output.perplexity, torch.Tensor)
    dvae.save_pretrained("folder", variant="fp16")

    vqvae = VQVAE(VQVAEConfig(image_size=32, quantizer="ema"))
    assert_type(vqvae(pixel_values).bits_per_dim, torch.Tensor | None)
    assert_type(VQVAE2.from_pretrained("folder").encode(pixel_values), tuple[torch.Tensor, ...])
    assert_type(VQVAE2.from_pretrained("folder")(pixel_values).indices, tuple[torch.Tensor, ...])
    assert_type(AudioVQVAE.from_pretrained("folder")(pixel_values).loss, torch.Tensor)
    assert_type(VQGAN.from_pretrained("folder")(pixel_values).reconstruction, torch.Tensor)
    assert_type(DallePytorchVAE.from_pretrained("folder")(pixel_values).loss, torch.Tensor)
    assert_type(VectorQuantizer(512, 64).forward(pixel_values), QuantizerOutput)


def priors(indices: torch.Tensor, input_ids: torch.Tensor) -> None:
    assert_type(PixelCNN.from_pretrained("folder").generate(4, seed=0), torch.Tensor)
    assert_type(PixelCNN.from_pretrained("folder")(indices).logits, torch.Tensor)
    assert_type(WaveNet.from_pretrained("folder").generate(4, length=100), torch.Tensor)
    transformer = DalleTransformer.from_pretrained("folder")
    output = transformer(input_ids, indices, output_hidden_states=True)
    assert_type(output, DalleTransformerOutput)
    assert_type(output.hidden_states, tuple[torch.Tensor, ...] | None)
    assert_type(transformer.generate(input_ids, num_candidates=8, seed=1), torch.Tensor)
    assert_type(DallePytorchTransformer.from_pretrained("folder")(input_ids, indices), DalleTransformerOutput)


def pipelines() -> None:
    pipe = DallePipeline.from_pretrained(default_checkpoint())
    assert_type(pipe, DallePipeline)
    output = pipe("a lion on a blue background", num_candidates=16, seed=0)
    assert isinstance(output, DallePipelineOutput)  # a tuple with return_dict=False
    assert_type(output.images, list[Image.Image] | np.ndarray | torch.Tensor)
    assert_type(output.seeds, list[int])
    assert_type(VQVAEPipeline.from_pretrained("folder").num_timesteps, int)
