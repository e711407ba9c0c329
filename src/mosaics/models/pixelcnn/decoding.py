"""Sampling the codes of the gated PixelCNN, one after the other."""

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING

import torch

from mosaics.layers.inference import MIN_ROWS, row_wise_products
from mosaics.models.pixelcnn.configuration_pixelcnn import PixelCNNConfig
from mosaics.models.pixelcnn.decoder import Decoder
from mosaics.models.sampling_request import SampleBatch, SamplingRequest, SamplingStep

if TYPE_CHECKING:
    from mosaics.models.pixelcnn.modeling_pixelcnn import PixelCNN


def decode(
    model: "PixelCNN", request: SamplingRequest, callback: Callable[[SamplingStep], None] | None
) -> torch.Tensor:
    """Draws all samples (N, h, w) or (N, h, w, L), batch by batch."""
    device = model.head.weight.device
    height, width = request.shape[:2]
    indices = torch.empty(request.num_samples, request.num_positions, dtype=torch.long, device=device)
    with torch.autocast(device.type, enabled=False), row_wise_products(device):
        decoder = Decoder(model)
        for batch in request.batches(default_batch_size(model.config, (height, width), device), device):
            indices[batch.first_sample : batch.first_sample + batch.count] = _draw_batch(
                decoder, request, batch, callback
            )
    return indices.view(-1, *request.shape)


def _draw_batch(
    decoder: Decoder,
    request: SamplingRequest,
    batch: SampleBatch,
    callback: Callable[[SamplingStep], None] | None,
) -> torch.Tensor:
    """Draws the samples of a batch (count, h * w * L). Nothing here waits for the device."""
    height, width, *latent_axes = request.shape
    per_row = width * prod(latent_axes)
    given_rows = request.num_given // per_row
    indices = torch.zeros(batch.lanes, request.num_positions, dtype=torch.long, device=batch.uniforms.device)
    rows = indices.view(batch.lanes, *request.shape)
    decoder.start(batch.lanes, width, batch.class_labels, batch.conditions)
    if batch.prefix is not None:
        indices[:, : request.num_given] = batch.prefix
        for row in range(given_rows):
            decoder.read_row(row, rows[:, row])
    for row in range(given_rows, height):
        decoder.begin_row(row)
        for column in range(width):
            first = (row * width + column) * prod(latent_axes)
            features = decoder.columns(column)[:, 0]
            for position in range(first, first + prod(latent_axes)):
                logits = decoder.logits(features, indices[:, first:position])
                indices[:, position] = request.draw(logits, batch.uniforms[:, position])
                if callback is not None:
                    drawn = SamplingStep(position, request.num_positions, batch.first_sample, indices[: batch.count])
                    callback(drawn)
            decoder.write(rows[:, row, column : column + 1], column)
    return indices[: batch.count]


def default_batch_size(config: PixelCNNConfig, grid_size: tuple[int, int], device: torch.device) -> int:
    """Samples whose caches and windows fit into 512 MiB on the CPU, 4 GiB elsewhere."""
    budget = 2**29 if device.type == "cpu" else 2**32
    height, width = grid_size
    kernel = max(config.kernel_size, config.first_kernel_size)
    rows = config.num_layers * (kernel // 2 + 4) * (width + kernel)
    windows = width * (kernel // 2 + 1) * kernel
    whole_grids = height * width * (2 * config.num_attention_layers + bool(config.upper_grids))
    numbers = (rows + windows + whole_grids) * config.hidden_size
    return max(MIN_ROWS, budget // (4 * numbers))
