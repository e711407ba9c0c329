"""Sampling the codes of WaveNet, one after the other."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from mosaics.layers.inference import MIN_ROWS, row_wise_products
from mosaics.models.sampling_request import SampleBatch, SamplingRequest, SamplingStep
from mosaics.models.wavenet.configuration_wavenet import WaveNetConfig
from mosaics.models.wavenet.decoder import READ_AT_ONCE, Decoder

if TYPE_CHECKING:
    from mosaics.models.wavenet.modeling_wavenet import WaveNet


def decode(
    model: "WaveNet", request: SamplingRequest, callback: Callable[[SamplingStep], None] | None
) -> torch.Tensor:
    """Draws all samples (N, T), batch by batch."""
    device = model.head.weight.device
    indices = torch.empty(request.num_samples, request.num_positions, dtype=torch.long, device=device)
    with torch.autocast(device.type, enabled=False), row_wise_products(device):
        decoder = Decoder(model)
        for batch in request.batches(default_batch_size(model.config, request, device), device):
            indices[batch.first_sample : batch.first_sample + batch.count] = _draw_batch(
                decoder, request, batch, callback
            )
    return indices


def _draw_batch(
    decoder: Decoder,
    request: SamplingRequest,
    batch: SampleBatch,
    callback: Callable[[SamplingStep], None] | None,
) -> torch.Tensor:
    """Draws the samples of a batch (count, T). Nothing here waits for the device."""
    indices = torch.zeros(batch.lanes, request.num_positions, dtype=torch.long, device=batch.uniforms.device)
    decoder.start(batch.lanes, batch.class_labels, batch.conditions)
    if batch.prefix is not None and request.num_given:
        indices[:, : request.num_given] = batch.prefix
        decoder.read(batch.prefix)
    for position in range(request.num_given, request.num_positions):
        drawn = request.draw(decoder.logits(), batch.uniforms[:, position])
        indices[:, position] = drawn
        decoder.write(drawn)
        if callback is not None:
            callback(SamplingStep(position, request.num_positions, batch.first_sample, indices[: batch.count]))
    return indices[: batch.count]


def default_batch_size(config: WaveNetConfig, request: SamplingRequest, device: torch.device) -> int:
    """Samples whose rings and windows fit into 512 MiB on the CPU, 4 GiB elsewhere."""
    budget = 2**29 if device.type == "cpu" else 2**32
    rings = (config.kernel_size - 1) * sum(config.dilations)
    windows = min(READ_AT_ONCE, request.num_given) * (2 * config.kernel_size + 4)
    condition = request.num_positions if config.condition_factor is not None else 0
    return max(MIN_ROWS, budget // (4 * config.hidden_size * (rings + windows + condition + 1)))
