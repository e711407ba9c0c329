"""The discrete VAE of DALLE-pytorch (https://github.com/lucidrains/DALLE-pytorch), for checkpoints trained with it.

Unlike OpenAI's, it halves pictures by strided convolutions, has ReLUs and plain residual blocks, and models pixels by
the squared error.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from mosaics.models.dalle_pytorch_vae.configuration_dalle_pytorch_vae import DallePytorchVAEConfig
from mosaics.models.image_checks import check_indices, check_pixels
from mosaics.models.pretrained import MosaicsPreTrainedModel
from mosaics.outputs import always_set
from mosaics.quantizers.gumbel import gumbel_softmax, kl_to_uniform
from mosaics.quantizers.usage import code_statistics


@dataclass
class DallePytorchVAEOutput(ModelOutput):
    """What [`DallePytorchVAE`] returns.

    Args:
        loss: Scalar, `reconstruction_loss + kl_weight * kl`.
        reconstruction_loss: Scalar, mean squared or smooth L1 error of the normalised pixels.
        kl: Scalar, KL(q(z|x) || Uniform(K)) in nats per code position.
        reconstruction: `(B, C, H, W)` in [0, 1].
        indices: `(B, h, w)` the most probable code of each position.
        perplexity: Scalar, exp of the entropy of the code frequencies in the batch.
        codebook_usage: Scalar, share of the codes that occur in the batch.
    """

    loss: torch.Tensor = always_set()
    reconstruction_loss: torch.Tensor = always_set()
    kl: torch.Tensor = always_set()
    reconstruction: torch.Tensor = always_set()
    indices: torch.Tensor = always_set()
    perplexity: torch.Tensor = always_set()
    codebook_usage: torch.Tensor = always_set()


class ResidualBlock(nn.Module):
    """`x + conv(relu(conv(relu(conv(x)))))`, kernels 3, 3 and 1."""

    def __init__(self, channels: int):
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2) for kernel in (3, 3, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, third = self.convolutions
        return x + third(F.relu(second(F.relu(first(x)))))


class Encoder(nn.Module):
    """Normalised pixels `(B, C, H, W)` to logits over the codes `(B, K, h, w)`."""

    def __init__(self, config: DallePytorchVAEConfig):
        super().__init__()
        widths = [config.num_channels] + [config.hidden_size] * config.num_layers
        self.downsamples = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 4, stride=2, padding=1) for inputs, outputs in pairwise(widths)
        )
        self.residual_blocks = nn.ModuleList(
            ResidualBlock(config.hidden_size) for _ in range(config.num_residual_blocks)
        )
        self.output = nn.Conv2d(config.hidden_size, config.num_embeddings, 1)

    def forward(self, normalized: torch.Tensor) -> torch.Tensor:
        hidden = normalized
        for downsample in self.downsamples:
            hidden = F.relu(downsample(hidden))
        for block in self.residual_blocks:
            hidden = block(hidden)
        return self.output(hidden)


class Decoder(nn.Module):
    """Code vectors `(B, D, h, w)` to normalised pixels `(B, C, H, W)`."""

    def __init__(self, config: DallePytorchVAEConfig):
        super().__init__()
        has_blocks = config.num_residual_blocks > 0
        self.input = nn.Conv2d(config.codebook_dim, config.hidden_size, 1) if has_blocks else nn.Identity()
        self.residual_blocks = nn.ModuleList(
            ResidualBlock(config.hidden_size) for _ in range(config.num_residual_blocks)
        )
        widths = [config.hidden_size if has_blocks else config.codebook_dim] + [config.hidden_size] * config.num_layers
        self.upsamples = nn.ModuleList(
            nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1) for inputs, outputs in pairwise(widths)
        )
        self.output = nn.Conv2d(config.hidden_size, config.num_channels, 1)

    def forward(self, quantized: torch.Tensor) -> torch.Tensor:
        hidden = self.input(quantized)
        for block in self.residual_blocks:
            hidden = block(hidden)
        for upsample in self.upsamples:
            hidden = F.relu(upsample(hidden))
        return self.output(hidden)


class Codebook(nn.Module):
    """Code vectors `(K, D)`: looked up, or mixed in training."""

    def __init__(self, num_embeddings: int, embedding_dim: int):
        super().__init__()
        self.codebook = nn.Parameter(torch.empty(num_embeddings, embedding_dim))

    def lookup(self, indices: torch.Tensor) -> torch.Tensor:
        """`(B, h, w)` to `(B, D, h, w)`."""
        return F.embedding(indices, self.codebook).permute(0, 3, 1, 2)

    def mix(self, weights: torch.Tensor) -> torch.Tensor:
        """Weights of the codes `(B, K, h, w)` to `(B, D, h, w)`."""
        return torch.einsum("bkhw,kd->bdhw", weights.to(self.codebook.dtype), self.codebook)


class DallePytorchVAE(MosaicsPreTrainedModel):
    r"""The discrete VAE of DALLE-pytorch: pictures to grids of codes and back.

    Example:
    ```python
    >>> import torch
    >>> from mosaics.models.dalle_pytorch_vae import DallePytorchVAE, DallePytorchVAEConfig
    >>> vae = DallePytorchVAE(DallePytorchVAEConfig(image_size=16, num_layers=2, hidden_size=8)).eval()
    >>> indices = vae.encode(torch.rand(1, 3, 16, 16))
    >>> indices.shape
    torch.Size([1, 4, 4])
    >>> vae.decode(indices).shape
    torch.Size([1, 3, 16, 16])

    ```
    """

    config: DallePytorchVAEConfig
    config_class = DallePytorchVAEConfig
    base_model_prefix = "vae"
    main_input_name = "pixel_values"
    input_modalities = "image"
    _no_split_modules: tuple[str, ...] = ("ResidualBlock",)

    __call__: Callable[..., DallePytorchVAEOutput]  # what `nn.Module` makes of `forward`

    def __init__(self, config: DallePytorchVAEConfig):
        super().__init__(config)
        self.encoder = Encoder(config)
        self.quantizer = Codebook(config.num_embeddings, config.codebook_dim)
        self.decoder = Decoder(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            # PyTorch's own initialisation, which the project keeps.
            init.kaiming_uniform_(module.weight, a=5**0.5)
            bound = module.weight[0].numel() ** -0.5
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, Codebook):
            init.normal_(module.codebook)

    @can_return_tuple
    def forward(self, pixel_values: torch.Tensor, temperature: float | None = None) -> DallePytorchVAEOutput:
        r"""The loss of a batch of pictures, and their reconstruction.

        In training the code vectors are mixed by a Gumbel-softmax sample; otherwise the most probable one is taken.

        Args:
            pixel_values: `(B, C, H, W)` in [0, 1]; H and W divisible by `config.downsample_factor`.
            temperature: Temperature of the relaxation; `config.temperature` if not given.

        Raises:
            ValueError: On a wrong shape, dtype, range or temperature.
        """
        logits = self.logits(pixel_values)
        indices = logits.argmax(dim=1)
        normalized = self._normalize(pixel_values)
        decoded = self.decoder(self._quantize(logits, indices, temperature)).float()
        error = F.mse_loss if self.config.reconstruction_loss == "mse" else F.smooth_l1_loss
        reconstruction_loss = error(decoded, normalized.float())
        kl = kl_to_uniform(logits).mean()
        perplexity, usage = code_statistics(indices, self.config.num_embeddings)
        return DallePytorchVAEOutput(
            loss=reconstruction_loss + self.config.kl_weight * kl,
            reconstruction_loss=reconstruction_loss,
            kl=kl,
            reconstruction=self._denormalize(decoded),
            indices=indices,
            perplexity=perplexity,
            codebook_usage=usage,
        )

    def logits(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Unnormalised log-probabilities of the codes, `(B, K, h, w)`, of pictures `(B, C, H, W)` in [0, 1]."""
        check_pixels(pixel_values, self.config.num_channels, self.config.downsample_factor, self.training)
        return self.encoder(self._normalize(pixel_values))

    def encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The most probable codes `(B, h, w)` of pictures `(B, C, H, W)` in [0, 1]."""
        return self.logits(pixel_values).argmax(dim=1)

    def decode(self, indices: torch.Tensor) -> torch.Tensor:
        """The pictures `(B, C, H, W)` in [0, 1] that codes `(B, h, w)` stand for."""
        check_indices(indices, self.config.num_embeddings, ("batch", "height", "width"))
        return self._denormalize(self.decoder(self.quantizer.lookup(indices)).float())

    def _quantize(self, logits: torch.Tensor, indices: torch.Tensor, temperature: float | None) -> torch.Tensor:
        if not self.training:
            return self.quantizer.lookup(indices)
        weights = gumbel_softmax(logits, self.config.temperature if temperature is None else temperature)
        mixture = self.quantizer.mix(weights)
        if not self.config.straight_through:
            return mixture
        sampled = self.quantizer.lookup(weights.argmax(dim=1))
        return mixture + (sampled - mixture).detach()  # the value is the sampled code's, the gradient the mixture's

    def _normalize(self, pixel_values: torch.Tensor) -> torch.Tensor:
        mean, std = self._pixel_statistics()
        return ((pixel_values - mean) / std).to(self.dtype)

    def _denormalize(self, decoded: torch.Tensor) -> torch.Tensor:
        mean, std = self._pixel_statistics()
        return (decoded * std + mean).clamp(0, 1)

    def _pixel_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation of the channels, each `(C, 1, 1)` float32."""
        device = self.quantizer.codebook.device
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
            for values in self.config.pixel_statistics
        )
        return mean, std


__all__ = ["DallePytorchVAE", "DallePytorchVAEOutput"]
