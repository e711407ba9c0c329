"""*Taming Transformers for High-Resolution Image Synthesis* (Esser et al. 2020, https://arxiv.org/abs/2012.09841)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from mosaics.layers.initialization import init_fan_in_, is_linear
from mosaics.models.image_checks import check_indices, check_pixels
from mosaics.models.pretrained import MosaicsPreTrainedModel
from mosaics.models.vqgan.bottlenecks import build_bottleneck
from mosaics.models.vqgan.configuration_vqgan import VQGANConfig
from mosaics.outputs import always_set
from mosaics.quantizers import GumbelQuantizer, NormalizedVectorQuantizer, VectorQuantizer

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vq_model import VQModel


@dataclass
class VQGANOutput(ModelOutput):
    """What [`VQGAN`] returns.

    Args:
        reconstruction: `(B, C, H, W)` in [0, 1].
        indices: `(B, h, w)` the code of each position.
    """

    reconstruction: torch.Tensor = always_set()
    indices: torch.Tensor = always_set()


class VQGANPreTrainedModel(MosaicsPreTrainedModel):
    """Initialisation and loading shared by the VQGAN's classes."""

    config: VQGANConfig
    config_class = VQGANConfig
    base_model_prefix = "vqgan"
    main_input_name = "pixel_values"
    input_modalities = "image"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, VectorQuantizer | NormalizedVectorQuantizer):
            module.reset_parameters()
        elif isinstance(module, GumbelQuantizer):
            init.normal_(module.codebook)
            init.zeros_(module.bias)
        elif isinstance(module, nn.GroupNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif is_linear(module):
            init_fan_in_(module)


class VQGAN(VQGANPreTrainedModel):
    r"""The image tokenizer of the VQGAN: pictures to grids of codes and back.

    *Taming Transformers for High-Resolution Image Synthesis* (https://arxiv.org/abs/2012.09841), Section 3.1, for
    weights that were trained elsewhere: the perceptual and adversarial losses are not part of it, so [`forward`] has
    no loss. Encoder and decoder are those of diffusers' `VQModel`, which [`to_diffusers`] gives.

    Example:
    ```python
    >>> import torch
    >>> from mosaics.models.vqgan import VQGAN, VQGANConfig
    >>> config = VQGANConfig(image_size=16, num_embeddings=32, embedding_dim=4, latent_channels=4, hidden_size=32,
    ...     channel_multipliers=[1, 1], num_residual_layers=1, attention_levels=[])
    >>> vqgan = VQGAN(config).eval()
    >>> indices = vqgan.encode(torch.rand(1, 3, 16, 16))
    >>> indices.shape
    torch.Size([1, 8, 8])
    >>> vqgan.decode(indices).shape
    torch.Size([1, 3, 16, 16])

    ```
    """

    __call__: Callable[..., VQGANOutput]  # what `nn.Module` makes of `forward`

    def __init__(self, config: VQGANConfig):
        # Here and not above: diffusers imports transformers' Auto classes, whose registration imports this module.
        from diffusers.models.autoencoders.vae import Decoder, Encoder

        super().__init__(config)
        sizes = _autoencoder_sizes(config)
        down, up = sizes.pop("down_block_types"), sizes.pop("up_block_types")
        channels, latent = config.num_channels, config.latent_channels
        self.encoder = Encoder(channels, latent, down_block_types=down, double_z=False, **sizes)
        self.bottleneck = build_bottleneck(config)
        self.decoder = Decoder(latent, channels, up_block_types=up, **sizes)
        self.post_init()

    @can_return_tuple
    def forward(self, pixel_values: torch.Tensor) -> VQGANOutput:
        """Codes of pictures `(B, C, H, W)` in [0, 1], and their reconstruction from them.

        Args:
            pixel_values: `(B, C, H, W)` in [0, 1]; H and W divisible by `config.downsample_factor`.

        Raises:
            ValueError: On a wrong shape, dtype or range.
        """
        indices = self.encode(pixel_values)
        return VQGANOutput(reconstruction=self.decode(indices), indices=indices)

    def encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The codes `(B, h, w)` of pictures `(B, C, H, W)` in [0, 1]."""
        check_pixels(pixel_values, self.config.num_channels, self.config.downsample_factor)
        return self.bottleneck.encode(self.encoder((2 * pixel_values - 1).to(self.dtype)))

    def decode(self, indices: torch.Tensor) -> torch.Tensor:
        """The pictures `(B, C, H, W)` in [0, 1] that codes `(B, h, w)` stand for."""
        check_indices(indices, self.config.num_embeddings, ("batch", "height", "width"))
        decoded = self.decoder(self.bottleneck.lookup(indices).to(self.dtype))
        return ((decoded.float() + 1) / 2).clamp(0, 1)

    def to_diffusers(self) -> "VQModel":
        """The same weights, copied, as diffusers' `VQModel`, which works on pixels from -1 to 1.

        Its quantizer multiplies the codebook loss by beta and not the commitment loss, which matters only if it is
        trained further.

        Raises:
            ValueError: The codes are not those of the nearest vectors: `config.quantizer` is not `"vector"`.
        """
        from diffusers.models.autoencoders.vq_model import VQModel

        config = self.config
        if config.quantizer != "vector":
            raise ValueError(
                f"diffusers' VQModel finds the nearest code and has no quantizer={config.quantizer!r}; only a VQGAN "
                "with quantizer='vector' can become one."
            )
        autoencoder = VQModel(
            in_channels=config.num_channels,
            out_channels=config.num_channels,
            latent_channels=config.latent_channels,
            sample_size=config.image_size,
            num_vq_embeddings=config.num_embeddings,
            vq_embed_dim=config.embedding_dim,
            scaling_factor=1.0,
            **_autoencoder_sizes(config),
        )
        names = {"bottleneck.quantizer.codebook": "quantize.embedding.weight"}
        weights = {names.get(key, key).removeprefix("bottleneck."): value for key, value in self.state_dict().items()}
        autoencoder.load_state_dict(weights)
        module: nn.Module = autoencoder  # diffusers' own `to` is wrapped so that its type is lost
        module.to(self.dtype)
        return autoencoder.eval()


def _autoencoder_sizes(config: VQGANConfig) -> dict:
    """The arguments that encoder, decoder and `VQModel` of diffusers share."""
    return {
        "block_out_channels": config.widths,
        "layers_per_block": config.num_residual_layers,
        "norm_num_groups": config.norm_groups,
        "down_block_types": tuple(
            "AttnDownEncoderBlock2D" if here else "DownEncoderBlock2D" for here in config.has_attention
        ),
        "up_block_types": tuple(
            "AttnUpDecoderBlock2D" if here else "UpDecoderBlock2D" for here in config.has_attention[::-1]
        ),
    }


__all__ = ["VQGAN", "VQGANOutput"]
