"""The VQ-VAE of sound of *Neural Discrete Representation Learning* (2017, https://arxiv.org/abs/1711.00937, 4.2)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from transformers.utils import ModelOutput, can_return_tuple

from mosaics.layers.gated_activation import gated_activation
from mosaics.layers.initialization import GATE_GAIN, init_fan_in_, is_linear
from mosaics.likelihoods import mu_law_decode, mu_law_encode
from mosaics.models.audio_vqvae.configuration_audio_vqvae import AudioVQVAEConfig
from mosaics.models.image_checks import check_indices, check_range
from mosaics.models.pretrained import MosaicsPreTrainedModel
from mosaics.outputs import always_set
from mosaics.quantizers import EMAVectorQuantizer, VectorQuantizer


@dataclass
class AudioVQVAEOutput(ModelOutput):
    """What [`AudioVQVAE`] returns.

    Args:
        loss: Scalar, reconstruction_loss + codebook_loss + commitment_cost * commitment_loss.
        reconstruction_loss: Scalar, -log p(x | z) in nats per sample, of mu-law values.
        codebook_loss: Scalar, mean of (sg[z] - e)^2; 0 for the EMA quantizer.
        commitment_loss: Scalar, mean of (z - sg[e])^2, unweighted.
        bits_per_dim: Scalar, the negative ELBO under the uniform prior over codes in bits per sample, the codes'
            log2 K each included; of mu-law values.
        reconstruction: `(B, 1, T)` in [-1, 1], the most probable sample at each time.
        indices: `(B, t)` the codes.
        perplexity: Scalar, exp of the entropy of the code frequencies in the batch.
        codebook_usage: Scalar, share of the codes that occur in the batch.
    """

    loss: torch.Tensor = always_set()
    reconstruction_loss: torch.Tensor = always_set()
    codebook_loss: torch.Tensor = always_set()
    commitment_loss: torch.Tensor = always_set()
    bits_per_dim: torch.Tensor = always_set()
    reconstruction: torch.Tensor = always_set()
    indices: torch.Tensor = always_set()
    perplexity: torch.Tensor = always_set()
    codebook_usage: torch.Tensor = always_set()


class Encoder(nn.Module):
    """Waveforms `(B, 1, T)` to the vectors z_e, `(B, D, t)`: strided convolutions with window 4."""

    def __init__(self, config: AudioVQVAEConfig):
        super().__init__()
        widths = [1] + [config.hidden_size] * config.num_downsamples
        self.downsamples = nn.ModuleList(nn.Conv1d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))
        self.output = nn.Conv1d(config.hidden_size, config.embedding_dim, 1)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        hidden = waveform
        for layer in self.downsamples:
            hidden = F.relu(layer(hidden))
        return self.output(hidden)


class GateReader(nn.Conv1d):
    """A 1x1 convolution behind a gate, whose outputs are small."""


class DilatedLayer(nn.Module):
    """A gated dilated convolution over past and future, `x + conv1(gate(dilated(x)))`, and its skip output.

    Nothing reads the first output of the last layer, which has none.
    """

    def __init__(self, channels: int, dilation: int, is_last: bool):
        super().__init__()
        self.dilated = nn.Conv1d(channels, 2 * channels, 3, padding=dilation, dilation=dilation)
        self.output = None if is_last else GateReader(channels, channels, 1)
        self.skip = GateReader(channels, channels, 1)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gated = gated_activation(self.dilated(features))
        return features if self.output is None else features + self.output(gated), self.skip(gated)


class Decoder(nn.Module):
    """Code vectors `(B, D, t)` to logits over the mu-law values of each sample, `(B, V, T)`."""

    def __init__(self, config: AudioVQVAEConfig):
        super().__init__()
        widths = [config.embedding_dim] + [config.hidden_size] * (config.num_downsamples - 1)
        widths.append(config.decoder_hidden_size)
        self.upsamples = nn.ModuleList(nn.ConvTranspose1d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))
        dilations = [2**layer for layer in range(config.num_dilations)] * config.num_blocks
        self.layers = nn.ModuleList(
            DilatedLayer(config.decoder_hidden_size, dilation, is_last=number == len(dilations))
            for number, dilation in enumerate(dilations, start=1)
        )
        self.hidden = nn.Conv1d(config.decoder_hidden_size, config.decoder_hidden_size, 1)
        self.head = nn.Conv1d(config.decoder_hidden_size, config.num_sample_values, 1)

    def forward(self, quantized: torch.Tensor) -> torch.Tensor:
        features = self.upsamples[0](quantized)
        for layer in self.upsamples[1:]:
            features = layer(F.relu(features))
        skips = features.new_zeros(())
        for layer in self.layers:
            features, skip = layer(features)
            skips = skips + skip
        hidden = self.hidden(F.relu(skips / math.sqrt(len(self.layers))))
        return self.head(F.relu(hidden))


class AudioVQVAEPreTrainedModel(MosaicsPreTrainedModel):
    """Initialisation and loading shared by the audio VQ-VAE's classes."""

    config: AudioVQVAEConfig
    config_class = AudioVQVAEConfig
    base_model_prefix = "audio_vqvae"
    main_input_name = "waveform"
    input_modalities = "audio"
    _no_split_modules = ["DilatedLayer"]  # noqa: RUF012 (the form transformers expects)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, VectorQuantizer | EMAVectorQuantizer):
            module.reset_parameters()
        elif isinstance(module, GateReader):
            init_fan_in_(module, gain=GATE_GAIN)
        elif is_linear(module):
            init_fan_in_(module, gain=math.sqrt(2))  # a ReLU halves the mean square; codes need features of size 1


class AudioVQVAE(AudioVQVAEPreTrainedModel):
    r"""The VQ-VAE of sound: waveforms to sequences of codes, 64 times shorter, and back.

    *Neural Discrete Representation Learning* (https://arxiv.org/abs/1711.00937), Section 4.3. The decoder upsamples
    the codes and gives, through gated dilated convolutions, a categorical distribution over the mu-law values of each
    sample. It differs from the paper's WaveNet in one thing: the samples are independent given the codes, so a
    waveform is decoded in one pass; the paper's decoder reads the samples before each.

    Example:
    ```python
    >>> import torch
    >>> from mosaics import AudioVQVAE, AudioVQVAEConfig
    >>> config = AudioVQVAEConfig(num_embeddings=16, hidden_size=8, decoder_hidden_size=8, num_dilations=3)
    >>> vqvae = AudioVQVAE(config).eval()
    >>> indices = vqvae.encode(torch.rand(2, 1, 640) - 0.5)
    >>> indices.shape
    torch.Size([2, 10])
    >>> vqvae.decode(indices).shape
    torch.Size([2, 1, 640])

    ```
    """

    __call__: Callable[..., AudioVQVAEOutput]  # what `nn.Module` makes of `forward`

    def __init__(self, config: AudioVQVAEConfig):
        super().__init__(config)
        self.encoder = Encoder(config)
        sizes = (config.num_embeddings, config.embedding_dim)
        self.quantizer = (
            EMAVectorQuantizer(*sizes, decay=config.ema_decay, gradient_estimator=config.gradient_estimator)
            if config.quantizer == "ema"
            else VectorQuantizer(*sizes, gradient_estimator=config.gradient_estimator)
        )
        self.decoder = Decoder(config)
        self.post_init()

    @can_return_tuple
    def forward(self, waveform: torch.Tensor) -> AudioVQVAEOutput:
        r"""The loss of a batch of waveforms, Eq. 3 of the paper, and their reconstruction.

            loss = -log p(x | z_q) + || sg[z_e] - e ||^2 + beta || z_e - sg[e] ||^2

        Each term is a mean: the first over the samples, the others over the elements of z_e. The constant log K of
        each code is left out of the loss and counted in `bits_per_dim`.

        Args:
            waveform: `(B, 1, T)` or `(B, T)` in [-1, 1] at `config.sampling_rate`; T divisible by
                `config.downsample_factor`.

        Raises:
            ValueError: On a wrong shape, dtype or range; when not training, on values that are not finite.
        """
        waveform = self._check_waveform(waveform)
        bottleneck = self.quantizer(self.encoder(waveform.to(self.dtype)))
        logits = self.decoder(bottleneck.quantized).float()
        values = self.config.num_sample_values
        nll = F.cross_entropy(logits, mu_law_encode(waveform.float()[:, 0], values))
        regularisers = bottleneck.codebook_loss + self.config.commitment_cost * bottleneck.commitment_loss
        code_nats = math.log(self.config.num_embeddings) / self.config.downsample_factor  # per sample
        return AudioVQVAEOutput(
            loss=nll + regularisers,
            reconstruction_loss=nll,
            codebook_loss=bottleneck.codebook_loss,
            commitment_loss=bottleneck.commitment_loss,
            bits_per_dim=(nll.detach() + code_nats) / math.log(2),
            reconstruction=self._most_probable(logits),
            indices=bottleneck.indices,
            perplexity=bottleneck.perplexity,
            codebook_usage=bottleneck.codebook_usage,
        )

    def encode(self, waveform: torch.Tensor) -> torch.Tensor:
        """The codes `(B, t)` of waveforms `(B, 1, T)` or `(B, T)` in [-1, 1]."""
        return self.quantizer.encode(self.encoder(self._check_waveform(waveform).to(self.dtype)))

    def decode(self, indices: torch.Tensor) -> torch.Tensor:
        """The waveforms `(B, 1, T)` in [-1, 1] that codes `(B, t)` stand for."""
        check_indices(indices, self.config.num_embeddings, ("batch", "time"))
        return self._most_probable(self.decoder(self.quantizer.lookup(indices).to(self.dtype)))

    def _most_probable(self, logits: torch.Tensor) -> torch.Tensor:
        """`(B, V, T)` to the waveform `(B, 1, T)`."""
        return mu_law_decode(logits.argmax(dim=1, keepdim=True), self.config.num_sample_values)

    def _check_waveform(self, waveform: torch.Tensor) -> torch.Tensor:
        """The waveform as `(B, 1, T)`."""
        factor = self.config.downsample_factor
        if not waveform.is_floating_point():
            raise ValueError(f"waveform must be floating point in [-1, 1], got dtype {waveform.dtype}.")
        if waveform.ndim not in (2, 3) or (waveform.ndim == 3 and waveform.shape[1] != 1):
            raise ValueError(
                f"waveform must have shape (batch, 1, time) or (batch, time), got {tuple(waveform.shape)}. Average "
                "the channels of stereo sound first."
            )
        if waveform.shape[-1] % factor or waveform.numel() == 0:
            raise ValueError(
                f"The length of waveform must be a positive multiple of {factor}, got {tuple(waveform.shape)}. "
                "Pad or cut it first."
            )
        check_range("waveform", waveform, -1.0, 1.0, self.training)
        return waveform if waveform.ndim == 3 else waveform[:, None]


__all__ = ["AudioVQVAE", "AudioVQVAEOutput"]
