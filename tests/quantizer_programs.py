"""Programs of several processes for the quantizers' tests, run by `training_programs.in_processes`."""

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from mosaics.quantizers import EMAVectorQuantizer

K, D, STEPS = 8, 4, 4


def batches(poison_step=None):
    """Whole batches (8, D, 3, 3); a few clusters, so that some codes die."""
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        centres = 3 * torch.randn(5, D, generator=generator)
        chosen = centres[torch.randint(5, (8, 3, 3), generator=generator)]
        batch = (chosen + 0.3 * torch.randn(8, 3, 3, D, generator=generator)).movedim(-1, 1)
        if step == poison_step:
            batch[0, 0, 0, 0] = torch.nan
        yield batch


def train_codebook(rank=0, world=1, poison_step=None):
    """A quantizer after the rank's shares of the batches."""
    quantizer = EMAVectorQuantizer(K, D, decay=0.5, revival_threshold=0.2).train()
    for batch in batches(poison_step):
        quantizer(batch.chunk(world)[rank])
    return quantizer


def train_codebook_on_each(output_dir, poison_step=None):
    """Trains on this process's shares, together with the other processes, and saves every process's buffers."""
    dist.init_process_group("gloo")
    quantizer = train_codebook(dist.get_rank(), dist.get_world_size(), poison_step)
    save_file(quantizer.state_dict(), f"{output_dir}/{dist.get_rank()}.safetensors")
    dist.destroy_process_group()
