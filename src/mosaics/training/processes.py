"""How processes start and talk."""

import os
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedDataParallelKwargs, DistributedType
from transformers import PreTrainedModel

from mosaics.training.config import TrainingConfig

__all__ = ["build_accelerator", "fair_share_of_cores", "sum_over_processes", "unwrap"]

_UNSUPPORTED = (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM, DistributedType.XLA)


def build_accelerator(config: TrainingConfig) -> Accelerator:
    """The `Accelerator` of a run; what `accelerate launch` was told holds unless the config says otherwise.

    Also sets the precision of float32 matrix products. On CPU the default is "medium": PyTorch then uses oneDNN,
    about twice as fast as its default on AMD processors and still float32 where the processor has no matrix units
    for bfloat16 (AMX). And all cores compute: `accelerate launch` by itself would leave one thread to a process.

    Raises:
        ValueError: For a tracker that is not installed, or a way of spreading the model that exact checkpoints do not
            support here.
    """
    on_cpu = config.cpu or not torch.accelerator.is_available()
    torch.set_float32_matmul_precision(config.matmul_precision or ("medium" if on_cpu else "high"))
    trackers = [name.strip() for name in config.report_to.split(",") if name.strip() not in ("", "none")]
    missing = sorted(set(trackers) - {str(tracker) for tracker in get_available_trackers()} - {"all"})
    if missing:
        raise ValueError(
            f"report_to={config.report_to!r}: {', '.join(missing)} is not a tracker that is installed here. Install "
            "it, for example with `pip install mosaics[train]` for tensorboard."
        )
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        log_with=[*trackers] or None,
        project_dir=os.path.join(config.output_dir, "logs"),
        dynamo_backend="inductor" if config.torch_compile else None,
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("mixed_precision=fp16 needs an accelerator; on the CPU use bf16 or no.")
    kind = accelerator.distributed_type
    if kind in _UNSUPPORTED or (kind == DistributedType.FSDP and not accelerator.is_fsdp2):
        raise ValueError(
            f"TrainingRun cannot save and resume exactly under {kind.value}"
            + (" version 1" if kind == DistributedType.FSDP else "")
            + ". To shard a large model, use FSDP with `fsdp_version: 2` in the Accelerate configuration."
        )
    if accelerator.device.type == "cpu":
        torch.set_num_threads(config.cpu_threads or fair_share_of_cores())
    launched = accelerator.gradient_accumulation_steps
    if launched != config.gradient_accumulation_steps:
        raise ValueError(
            f"gradient_accumulation_steps is {config.gradient_accumulation_steps} in the arguments and {launched} in "
            "the Accelerate configuration; make them equal."
        )
    return accelerator


def fair_share_of_cores() -> int:
    """Cores that each process of this machine may use; `LOCAL_WORLD_SIZE` is what torchrun tells its processes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def sum_over_processes(accelerator: Accelerator, tensor: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all processes, on each of them."""
    return tensor if accelerator.num_processes == 1 else accelerator.reduce(tensor, reduction="sum")


def unwrap(accelerator: Accelerator, model: torch.nn.Module) -> PreTrainedModel:
    """The model of a run as it was before Accelerate and the compiler wrapped it."""
    return cast("PreTrainedModel", accelerator.unwrap_model(model, keep_torch_compile=False))
