r"""Weights with which a VQ-VAE begins as transform coding: principal components of the cells, and k-means of them.

A VQ-VAE of random weights has to find out with noisy gradients how several codes of a position share what there is to
say; for many thousand steps they say much the same. What they converge to is near what linear algebra gives at once:

1. The pixels of a cell, the `downsample_factor` x `downsample_factor` pixels of a position, are decorrelated by their
   principal components. Rate-distortion theory gives component j, of variance v_j, the bits max(0, log2(v_j / D) / 2),
   D chosen so that they add up to the bits of a position (Cover & Thomas, *Elements of Information Theory*, 10.3.3).
2. The components are dealt out to the L codes of a position such that each has about log2 K bits (the eigenvalue
   allocation of *Optimized Product Quantization*, Ge et al. 2013, Section 3.2.2).
3. Each codebook is k-means of the components of its code.

The network computes this exactly where its ReLUs are passed in pairs, x = relu(x) - relu(-x): the first channels of
each layer carry the linear path, the others keep their random weights, and residual branches begin at zero. Training
goes on from there.
"""

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from mosaics.layers.residual import ResidualOutput
from mosaics.quantizers import ProductQuantizer, kmeans, nearest_codes

if TYPE_CHECKING:
    from mosaics.models.vqvae.modeling_vqvae import VQVAE, Decoder, Encoder

KMEANS_ITERATIONS = 15
MAX_KMEANS_VECTORS = 32_768


def water_filling(variances: torch.Tensor, bits: float) -> torch.Tensor:
    """The bits `(J,)` of components with the variances `(J,)` that keep most of them, `bits` in all; float64."""
    positive = variances.double().clamp(min=torch.finfo(torch.float64).tiny)
    low, high = positive.log2().min() - 2 * bits, positive.log2().max()
    for _ in range(100):  # bisection for log2 of the distortion D
        middle = (low + high) / 2
        spent = ((positive.log2() - middle) / 2).clamp(min=0).sum()
        low, high = (middle, high) if spent > bits else (low, middle)
    return ((positive.log2() - high) / 2).clamp(min=0)


def balanced_groups(bits: torch.Tensor, num_groups: int, max_size: int) -> list[list[int]]:
    """Deals components, the most important first, to the group that has fewest bits and room.

    Args:
        bits: `(J,)` bits of each component, in falling order.
        num_groups: Number of groups.
        max_size: Components of a group at most.

    Returns:
        The indices of each group's components; those that find no room are left out.
    """
    groups: list[list[int]] = [[] for _ in range(num_groups)]
    filled = [0.0] * num_groups
    for index, amount in enumerate(bits.tolist()):
        free = [group for group in range(num_groups) if len(groups[group]) < max_size]
        if not free:
            break
        chosen = min(free, key=lambda group: (filled[group], len(groups[group])))
        groups[chosen].append(index)
        filled[chosen] += amount
    return groups


def cells_of(pixels: torch.Tensor, num_downsamples: int) -> torch.Tensor:
    """The pixels of each position's cell, `(B, C, H, W)` to `(B, C 4^n, h, w)`, ordered as the network's layers do."""
    for _ in range(num_downsamples):
        pixels = F.pixel_unshuffle(pixels, 2)
    return pixels


class PrincipalComponents:
    """Principal components of cells about the mean colour.

    Args:
        cells: `(N, C 4^n)` cells as [`cells_of`] gives them.
        num_channels: Colour channels C.

    Attributes:
        mean: `(C 4^n,)` the mean colour, repeated over the cell.
        variances: `(C 4^n,)` falling.
        axes: `(C 4^n, C 4^n)`, a column for each component.
    """

    def __init__(self, cells: torch.Tensor, num_channels: int):
        by_channel = cells.double().unflatten(1, (num_channels, -1))
        self.mean = by_channel.mean(dim=(0, 2)).repeat_interleave(by_channel.shape[2])
        centred = cells.double() - self.mean
        variances, axes = torch.linalg.eigh(centred.T @ centred / len(cells))
        self.variances, self.axes = variances.flip(0).clamp(min=0), axes.flip(1)


@torch.no_grad()
def start_from_principal_components(model: "VQVAE", pixel_values: torch.Tensor, generator: torch.Generator) -> None:
    """Gives `model` the weights and codes that this file describes; see [`VQVAE.initialize_from`]."""
    config = model.config
    cells = cells_of(2 * pixel_values.float() - 1, config.num_downsamples).movedim(1, -1).flatten(0, 2)
    values = cells.shape[1]
    if 2 * values > config.hidden_size:
        raise ValueError(
            f"VQVAE.initialize_from needs two channels for each of the {values} values of a cell: hidden_size of at "
            f"least {2 * values}, got {config.hidden_size}."
        )
    components = PrincipalComponents(cells, config.num_channels)
    bits = water_filling(components.variances, config.latents_per_position * math.log2(config.num_embeddings))
    groups = balanced_groups(bits, config.latents_per_position, config.embedding_dim)
    used = [index for group in groups for index in group]
    rows = [
        latent * config.embedding_dim + place for latent, group in enumerate(groups) for place in range(len(group))
    ]
    axes, mean = components.axes[:, used].float(), components.mean.float()
    spread = components.variances[used].sum().item()
    if spread < 1e-12:
        raise ValueError("VQVAE.initialize_from needs pictures that differ, got pixel_values of one colour.")
    size = config.latents_per_position * config.embedding_dim
    scale = (size / spread) ** 0.5  # features of mean square 1
    _start_encoder(model.encoder, axes, mean, rows, scale)
    vectors = model.features(pixel_values.to(model.device))
    _start_codebooks(model.quantizer, vectors, generator)
    entries = model.join_latents(model.quantizer.lookup(model.quantizer.encode(vectors)))
    decoded = entries.movedim(1, -1).flatten(0, 2)[:, rows].float().cpu() / scale @ axes.T + mean
    residuals = (cells - decoded).unflatten(1, (config.num_channels, -1)).movedim(1, -1).flatten(0, 1)
    colour = mean[:: values // config.num_channels]
    _start_decoder(model.decoder, axes / scale, rows, *model.likelihood.linear_start(colour, residuals))


def _start_encoder(encoder: "Encoder", axes: torch.Tensor, mean: torch.Tensor, rows: list[int], scale: float) -> None:
    """Channels j and J + j of the last hidden layer become component j and its negative; the output joins them."""
    kernel = _unshuffle_kernel(encoder.downsamples[0].in_channels)
    for number, layer in enumerate(encoder.downsamples):
        inputs = kernel if number == 0 else _paired(kernel, dim=1)
        _set_kernel(layer, _paired(inputs, dim=0))
        kernel = _unshuffle_kernel(len(kernel))
    projection = F.pad(axes.T[:, :, None, None], (1, 1, 1, 1))  # the middle of 3 x 3
    _set_kernel(encoder.input, _paired(_paired(projection, dim=1), dim=0), _paired(-(mean @ axes), dim=0))
    _silence_branches(encoder.blocks)
    joined = torch.zeros(encoder.output.out_channels, 2 * axes.shape[1], 1, 1)
    joined[rows, :, 0, 0] = scale * _paired(torch.eye(axes.shape[1]), dim=1)
    _set_kernel(encoder.output, joined)


def _start_codebooks(quantizer: nn.Module, vectors: torch.Tensor, generator: torch.Generator) -> None:
    """Every codebook becomes k-means of the vectors `(B, D, h, w, L)` that it quantizes."""
    parts = quantizer.parts if isinstance(quantizer, ProductQuantizer) else [quantizer]
    for part, own in zip(parts, vectors.unbind(-1), strict=True):
        rows = own.movedim(1, -1).flatten(0, -2).float()
        chosen = torch.randperm(len(rows), generator=generator)[:MAX_KMEANS_VECTORS].to(rows.device)
        centroids = kmeans(rows[chosen], part.num_embeddings, KMEANS_ITERATIONS, generator)
        part.start_at(centroids, torch.bincount(nearest_codes(rows, centroids), minlength=len(centroids)))


def _start_decoder(
    decoder: "Decoder", axes: torch.Tensor, rows: list[int], matrix: torch.Tensor, bias: torch.Tensor
) -> None:
    """The components of the codes, back to pixels, to the parameters `matrix @ pixel + bias` of the likelihood."""
    count = axes.shape[1]
    selection = torch.zeros(count, decoder.input.in_channels, 3, 3)
    selection[torch.arange(count), rows, 1, 1] = 1
    _set_kernel(decoder.input, _paired(selection, dim=0))
    _silence_branches(decoder.blocks)
    linear, values = axes.T, len(axes)  # what arrives, (J, values of a block)
    for number, layer in enumerate(decoder.upsamples):
        values //= 4
        kernel = torch.einsum("jv,vokl->jokl", linear, _unshuffle_kernel(values))
        linear = torch.eye(values)
        if number + 1 < len(decoder.upsamples):
            _set_kernel(layer, _paired(_paired(kernel, dim=0), dim=1))
        else:
            parameters = torch.einsum("jckl,pc->jpkl", kernel, matrix)
            _set_kernel(layer, _paired(parameters, dim=0), bias)


def _unshuffle_kernel(channels: int) -> torch.Tensor:
    """Pixel-unshuffle by 2 as a convolution of size 4, stride 2 and padding 1, `(4 channels, channels, 4, 4)`.

    As the weight of a transposed convolution of the same sizes it is pixel-shuffle.
    """
    kernel = torch.zeros(4 * channels, channels, 4, 4)
    for place in range(4):
        kernel[place::4, :, 1 + place // 2, 1 + place % 2] = torch.eye(channels)
    return kernel


def _paired(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    """A tensor and its negative, along one axis: what writes, or reads, x as relu(x) and relu(-x)."""
    return torch.cat([tensor, -tensor], dim=dim)


def _set_kernel(layer: nn.Conv2d | nn.ConvTranspose2d, kernel: torch.Tensor, bias: torch.Tensor | None = None) -> None:
    """The first output channels become those of the kernel, which reads the first input channels only."""
    weight = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
    kernel = kernel.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else kernel
    outputs, inputs = kernel.shape[:2]
    weight[:outputs] = 0
    weight[:outputs, :inputs] = kernel.to(weight)
    assert layer.bias is not None
    layer.bias[:outputs] = 0 if bias is None else bias.to(layer.bias)


def _silence_branches(blocks: nn.Module) -> None:
    """Residual branches add nothing at first."""
    for module in blocks.modules():
        if isinstance(module, ResidualOutput):
            nn.init.zeros_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
