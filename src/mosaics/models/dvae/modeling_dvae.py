"""The discrete VAE of *Zero-Shot Text-to-Image Generation* (Ramesh et al. 2021, https://arxiv.org/abs/2102.12092)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from mosaics.likelihoods import logit_laplace_nll, map_pixels, unmap_pixels
from mosaics.models.dvae.configuration_dvae import DiscreteVAEConfig
from mosaics.models.dvae.layers import Decoder, Encoder, MainPath, PathEnd, PixelHead
from mosaics.models.image_checks import check_indices, check_pixels
from mosaics.models.pretrained import MosaicsPreTrainedModel
from mosaics.outputs import always_set
from mosaics.quantizers import GumbelQuantizer, GumbelQuantizerOutput, kmeans, nearest_codes


@dataclass
class DiscreteVAEOutput(ModelOutput):
    """What [`DiscreteVAE`] returns.

    Args:
        loss: Scalar, the negative ELBO in nats per pixel channel, the KL weighted by `kl_weight`.
        reconstruction_loss: Scalar, -log p(x | z) of the logit-Laplace likelihood in nats per pixel channel.
        kl: Scalar, KL(q(z|x) || Uniform(K)) in nats per code position, unweighted.
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


class DiscreteVAEPreTrainedModel(MosaicsPreTrainedModel):
    """Initialisation and loading shared by the dVAE's classes."""

    config: DiscreteVAEConfig
    config_class = DiscreteVAEConfig
    base_model_prefix = "dvae"
    main_input_name = "pixel_values"
    input_modalities = "image"
    _no_split_modules = ["BottleneckBlock"]  # noqa: RUF012 (the form transformers expects)
    _keep_in_fp32_modules_strict = ["encoder.output"]  # noqa: RUF012 (the form transformers expects)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # OpenAI's initialisation: normal with variance 1 / fan-in, biases zero.
        if isinstance(module, nn.Conv2d):
            init.normal_(module.weight, std=1 / math.sqrt(module.weight[0].numel()))
            if module.bias is not None:
                init.zeros_(module.bias)
            if self.config.identity_start:
                self._start_as_identity(module)
        elif isinstance(module, GumbelQuantizer):
            # One code is seen at a time (fan-in 1 in effect), unlike the dense 1x1 convolution the paper writes.
            init.normal_(module.codebook, std=1.0)
            init.zeros_(module.bias)

    def _start_as_identity(self, module: nn.Conv2d) -> None:
        """`config.identity_start`: features are mapped pixels, which are positive, so that no ReLU changes them."""
        if isinstance(module, PathEnd):
            init.zeros_(module.weight)
        elif isinstance(module, MainPath):
            init.dirac_(module.weight)
            bias = torch.zeros_like(module.bias)
            bias[module.in_channels :] = 0.1  # spare channels: constant, but positive, or no gradient would reach them
            init.copy_(module.bias, bias)
        elif isinstance(module, PixelHead):
            # The straight line through the ends of the logit on [epsilon, 1 - epsilon].
            epsilon, means = self.config.pixel_epsilon, module.out_channels // 2
            slope = 2 * math.log((1 - epsilon) / epsilon) / (1 - 2 * epsilon)
            weight, bias = torch.zeros_like(module.weight), torch.zeros_like(module.bias)
            weight[:means] = slope * nn.init.dirac_(torch.empty_like(weight[:means]))
            bias[:means] = -slope / 2
            init.copy_(module.weight, weight)
            init.copy_(module.bias, bias)


class DiscreteVAE(DiscreteVAEPreTrainedModel):
    r"""The discrete VAE of DALL-E: pictures to grids of codes and back.

    *Zero-Shot Text-to-Image Generation* (https://arxiv.org/abs/2102.12092), Sections 2.1 and A. The encoder gives a
    categorical distribution over K codes at each grid position, relaxed by Gumbel-softmax in training; the decoder
    gives a logit-Laplace distribution of each pixel channel.

    Example:
    ```python
    >>> import torch
    >>> from mosaics import DiscreteVAE, DiscreteVAEConfig
    >>> dvae = DiscreteVAE(DiscreteVAEConfig(image_size=16, num_embeddings=32, hidden_size=8, num_groups=2)).eval()
    >>> indices = dvae.encode(torch.rand(1, 3, 16, 16))
    >>> indices.shape
    torch.Size([1, 8, 8])
    >>> dvae.decode(indices).shape
    torch.Size([1, 3, 16, 16])

    ```
    """

    __call__: Callable[..., DiscreteVAEOutput]  # what `nn.Module` makes of `forward`

    def __init__(self, config: DiscreteVAEConfig):
        super().__init__(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        gumbel_temperature: float = 1.0,
        kl_weight: float = 0.0,
        straight_through: bool = False,
        bypass_codes: bool = False,
        indices: torch.Tensor | None = None,
    ) -> DiscreteVAEOutput:
        r"""The negative ELBO of a batch of pictures, and their reconstruction.

            loss = ( -log p(x | z) + kl_weight * sum over positions of KL(q(z|x) || Uniform(K)) ) / (C H W)

        Args:
            pixel_values: `(B, C, H, W)` in [0, 1]; H and W divisible by `config.downsample_factor`.
            gumbel_temperature: Temperature tau of the relaxation in training (paper: 1 to 1/16).
            kl_weight: beta, the weight of the KL term (paper: 0 to 6.6).
            straight_through: In training, decode single sampled codes instead of mixtures.
            bypass_codes: Decode the encoder's features themselves, as an autoencoder without codes: a warm-up before
                [`initialize_codes`]. Needs `codebook_dim` equal to the encoder's last width.
            indices: `(B, h, w)` codes to decode in place of the encoder's, which is then left alone: to train a
                decoder by itself, on codes that [`encode`] gave without autocast.

        Raises:
            ValueError: On a wrong shape, dtype, range or temperature.
        """
        if bypass_codes and indices is not None:
            raise ValueError("give indices or bypass_codes, not both: either codes are decoded, or features are.")
        if indices is not None:
            codes = self._given_codes(pixel_values, indices)
        else:
            logits, features = self._encode(pixel_values)
            codes = self.decoder.quantizer(logits, gumbel_temperature, straight_through)
            if bypass_codes:
                self._check_widths()
                codes.quantized = features + 0 * codes.quantized  # a gradient for each parameter: DDP waits for all
        mean, log_scale = self.decoder(codes.quantized).float().chunk(2, dim=1)
        if self.config.min_log_scale is not None:
            log_scale = self.config.min_log_scale + F.softplus(log_scale - self.config.min_log_scale)
        reconstruction_loss = logit_laplace_nll(pixel_values, mean, log_scale, self.config.pixel_epsilon)
        positions_per_dimension = codes.indices[0].numel() / pixel_values[0].numel()  # h w / (C H W)
        return DiscreteVAEOutput(
            loss=reconstruction_loss + kl_weight * positions_per_dimension * codes.kl,
            reconstruction_loss=reconstruction_loss,
            kl=codes.kl,
            reconstruction=unmap_pixels(mean.sigmoid(), self.config.pixel_epsilon),
            indices=codes.indices,
            perplexity=codes.perplexity,
            codebook_usage=codes.codebook_usage,
        )

    def logits(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Unnormalised log-probabilities of the codes, `(B, K, h, w)`, of pictures `(B, C, H, W)` in [0, 1]."""
        return self._encode(pixel_values)[0]

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The encoder's last features `(B, D, h, w)`, which the logits are linear in, of pictures in [0, 1]."""
        return self._encode(pixel_values)[1]

    @torch.no_grad()
    def initialize_codes(
        self, features: torch.Tensor, sharpness: float = 5.0, generator: torch.Generator | None = None
    ) -> None:
        r"""Starts the codes where the encoder's features are, by k-means, so that none is dead from the start.

        The codebook becomes the centroids e_k, and the encoder's last layer the logits `-s ||f - e_k||^2` up to a term
        that all codes share, which are linear in the features f: the most probable code is the nearest centroid.
        s is `sharpness` over the mean squared distance to the nearest centroid.

        Args:
            features: `(N, D)`, or `(B, D, h, w)` as [`features`] gives them; at least `num_embeddings` vectors.
            sharpness: How much more probable near centroids are than far ones.
            generator: Source of the random choices, on the CPU; with several processes, equal on all.
        """
        self._check_widths()
        vectors = features if features.ndim == 2 else features.permute(0, 2, 3, 1).flatten(end_dim=2)
        vectors = vectors.float()
        centroids = kmeans(vectors, self.config.num_embeddings, generator=generator)
        error = (vectors - centroids[nearest_codes(vectors, centroids)]).square().sum(dim=1).mean()
        scale = sharpness / error.clamp(min=1e-8)
        self.decoder.quantizer.codebook.copy_(centroids)
        self.decoder.quantizer.bias.zero_()
        self.encoder.output.weight.copy_((2 * scale * centroids)[:, :, None, None])
        self.encoder.output.bias.copy_(-scale * centroids.square().sum(dim=1))

    @torch.no_grad()
    def settle_codes(self, features: torch.Tensor, margin: float = 0.5) -> int:
        """Lowers the biases of codes that rounding could take for those of some features, and returns how many.

        Afterwards the code of each of the features leads by `margin`, or by less over a code that is another's, and
        the same one is chosen on every machine and in every batch.

        Args:
            features: `(N, D)`, those that occur again and again, such as the ones of flat backgrounds.
            margin: By how much the logit leads, in nats.
        """
        logits = self.encoder.output(features[:, :, None, None])[:, :, 0, 0]
        leading, codes = logits.max(dim=1, keepdim=True)
        excess = F.pad(logits - leading + margin, (0, 0, 0, 1))  # and a row of zeros
        lowered = excess.clamp(min=0).amax(dim=0).index_fill(0, codes.flatten(), 0)
        self.encoder.output.bias.sub_(lowered)
        return int((lowered > 0).sum())

    def encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The most probable codes `(B, h, w)` of pictures `(B, C, H, W)` in [0, 1]."""
        return self.logits(pixel_values).argmax(dim=1)

    def decode(self, indices: torch.Tensor) -> torch.Tensor:
        """The pictures `(B, C, H, W)` in [0, 1] that codes `(B, h, w)` stand for."""
        check_indices(indices, self.config.num_embeddings, ("batch", "height", "width"))
        mean, _ = self.decoder(self.decoder.quantizer.lookup(indices)).chunk(2, dim=1)
        return unmap_pixels(mean.float().sigmoid(), self.config.pixel_epsilon)

    @torch.no_grad()
    def split_codes(
        self, features: torch.Tensor, margin: float = 2.0, generator: torch.Generator | None = None
    ) -> int:
        r"""Gives the codes that no feature uses half of the cell of one that many use, and returns how many.

        The splitting step of vector quantizer design (Linde, Buzo and Gray 1980), on the logits: the dead code k takes
        those features of the crowded code j that are nearer to one of them, f, than to their mean m,

            logit_k(x) = logit_j(x) + d (f - m).(x - (f + m) / 2),   d such that the difference at f is `margin`,

        and starts with j's code vector, so that nothing is decoded otherwise before the two learn apart.

        Args:
            features: `(B, D, h, w)` as [`features`] gives them, or `(N, D)`.
            margin: Difference of the two logits at f and, with the other sign, at m.
            generator: Source of the random choices, on the CPU; with several processes, equal on all.
        """
        weight, bias = self.encoder.output.weight[:, :, 0, 0], self.encoder.output.bias
        vectors = features if features.ndim == 2 else features.permute(0, 2, 3, 1).flatten(end_dim=2)
        vectors = vectors.float()
        indices = torch.cat([F.linear(part, weight, bias).argmax(dim=1) for part in vectors.split(4096)])
        counts = torch.bincount(indices, minlength=len(weight))
        means = torch.zeros_like(weight).index_add_(0, indices, vectors) / counts.clamp(min=1)[:, None]
        spread = torch.zeros_like(bias).index_add_(0, indices, (vectors - means[indices]).square().sum(dim=1))
        dead = (counts == 0).nonzero()[:, 0]
        parents = spread.argsort(descending=True)[: min(len(dead), int((spread > 0).sum()))]
        dead = dead[: len(parents)]

        # A random member of each cell: the one with the highest of random priorities.
        priority = torch.randperm(len(vectors), generator=generator).to(vectors.device)
        highest = torch.full_like(counts, -1).scatter_reduce_(0, indices, priority, "amax")
        member = priority.argsort()[highest[parents]]
        direction = vectors[member] - means[parents]
        direction *= 2 * margin / direction.square().sum(dim=1, keepdim=True).clamp(min=1e-12)
        middle = (vectors[member] + means[parents]) / 2
        self.encoder.output.weight[dead] = (weight[parents] + direction)[:, :, None, None]
        self.encoder.output.bias[dead] = bias[parents] - (direction * middle).sum(dim=1)
        self.decoder.quantizer.codebook[dead] = self.decoder.quantizer.codebook[parents]
        return len(dead)

    def _encode(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        check_pixels(pixel_values, self.config.num_channels, self.config.downsample_factor, self.training)
        return self.encoder(map_pixels(pixel_values, self.config.pixel_epsilon).to(self.dtype))

    def _given_codes(self, pixel_values: torch.Tensor, indices: torch.Tensor) -> GumbelQuantizerOutput:
        factor = self.config.downsample_factor
        check_pixels(pixel_values, self.config.num_channels, factor, self.training)
        check_indices(indices, self.config.num_embeddings, ("batch", "height", "width"))
        expected = (len(pixel_values), pixel_values.shape[2] // factor, pixel_values.shape[3] // factor)
        if tuple(indices.shape) != expected:
            raise ValueError(
                f"indices must have the shape {expected} of the codes of pixel_values, got {tuple(indices.shape)}."
            )
        return self.decoder.quantizer.select(indices)

    def _check_widths(self) -> None:
        width = self.encoder.output.weight.shape[1]
        if self.config.codebook_dim != width:
            raise ValueError(
                f"Codes can start from the encoder's features only if codebook_dim equals their width: codebook_dim "
                f"is {self.config.codebook_dim}, hidden_size * 2**(num_groups - 1) is {width}."
            )


__all__ = ["DiscreteVAE", "DiscreteVAEOutput"]
