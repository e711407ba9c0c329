"""Reading a checkpoint completely, and checking it, before anything of the run is changed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers.utils import logging

from mosaics.training import run_state
from mosaics.training.checkpointing import CheckpointError, find_checkpoint, list_checkpoints, verify_checkpoint
from mosaics.training.config import TrainingConfig
from mosaics.training.data_order import Position
from mosaics.training.identity import check_unchanged

__all__ = ["ResumedState", "read_checkpoint"]

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class ResumedState:
    """What a checkpoint holds. `rng` is `None` on a process that the checkpoint knows nothing of."""

    path: Path
    step: int
    position: Position
    weights: dict[str, torch.Tensor]
    moments: dict[str, torch.Tensor]
    averages: dict[str, torch.Tensor]
    rng: dict[str, torch.Tensor] | None
    metrics: dict[str, list[float]]
    refused_steps: list[int]


def read_checkpoint(
    config: TrainingConfig,
    accelerator: Accelerator,
    model: torch.nn.Module,
    settings: Mapping[str, Any],
    averaging: bool,
) -> ResumedState | None:
    """The state to resume from, as `config.resume_from_checkpoint` says; `None` to start from the beginning."""
    path = _choose(config, accelerator)
    if path is None:
        return None
    try:
        saved = json.loads((path / "state.json").read_text(encoding="utf-8"))
        changes = check_unchanged(saved["settings"], settings, config.allow_changed, str(path))
        step, position = saved["step"], Position(saved["epoch"], saved["step_in_epoch"])
        metrics, refused_steps, processes = saved["metrics"], saved["refused_steps"], saved["num_processes"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path / 'state.json'} cannot be read: {error!r}.") from error
    for name, (before, now) in changes.items():
        logger.warning(f"Resuming with {name} changed from {before!r} to {now!r}.")
    weights = run_state.read_tensors(path / "model.safetensors")
    run_state.check_model_state(accelerator, model, weights, path / "model.safetensors")
    moments = run_state.read_tensors(path / "optimizer.safetensors")
    run_state.check_optimizer_state(accelerator, model, moments, path / "optimizer.safetensors")
    averages = {}
    if averaging:
        averaged = path / "averaged" / "model.safetensors"
        averages = run_state.read_tensors(averaged) if averaged.exists() else weights
        run_state.check_model_state(accelerator, model, averages, averaged)
    rng_file = path / f"rng-{accelerator.process_index:05d}.safetensors"
    rng = run_state.read_tensors(rng_file) if processes == accelerator.num_processes else None
    if rng is None and accelerator.is_main_process:
        logger.warning(
            f"{path} was written by {processes} processes, this run has {accelerator.num_processes}: the data order "
            "is kept, the random numbers of the model are not."
        )
    return ResumedState(path, step, position, weights, moments, averages, rng, metrics, refused_steps)


def _choose(config: TrainingConfig, accelerator: Accelerator) -> Path | None:
    """The checkpoint to resume from; the main process decides for all."""
    decision: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            decision[0] = _choose_here(config)
        except (CheckpointError, ValueError) as error:
            decision[1] = error
    if accelerator.num_processes > 1:
        broadcast_object_list(decision)
    if decision[1] is not None:
        raise decision[1]
    return decision[0]


def _choose_here(config: TrainingConfig) -> Path | None:
    output_dir, wanted = Path(config.output_dir), config.resume_from_checkpoint
    if wanted == "latest":
        found = find_checkpoint(output_dir, lambda reason: logger.warning(f"Skipped a checkpoint: {reason}."))
        return found[0] if found is not None else None
    if wanted == "none":
        if existing := list_checkpoints(output_dir):
            raise ValueError(
                f"resume_from_checkpoint is none, but {existing[0][1]} exists. Use another output_dir, move the "
                "checkpoints away, or resume with --resume_from_checkpoint latest."
            )
        return None
    path = Path(wanted)
    if not path.is_dir():
        raise ValueError(f'resume_from_checkpoint must be "latest", "none" or a folder; {wanted!r} is none of them.')
    verify_checkpoint(path)
    return path
