"""What a checkpoint folder holds, and how it is written and read.

```
checkpoint-00001000/
  config.json, model.safetensors             the weights being trained; `from_pretrained` loads the folder
  averaged/config.json, model.safetensors    the averaged weights, in float32; loads with subfolder="averaged"
  optimizer.safetensors                      <parameter>/<quantity>
  rng-00000.safetensors, ...                 the random generators of each process
  state.json                                 step, place in the data, settings, averages being taken
  manifest.json                              size and SHA-256 of each of these
```

Everything is read and checked before anything of the run is changed.
"""

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
from mosaics.training.averaging import IterateAverage
from mosaics.training.checkpointing import CheckpointError, find_checkpoint, list_checkpoints, verify_checkpoint
from mosaics.training.config import TrainingConfig
from mosaics.training.data_order import Position
from mosaics.training.identity import check_unchanged, with_new_fields
from mosaics.training.processes import unwrap
from mosaics.training.randomness import capture_rng

__all__ = ["Snapshot", "checkpoint_bytes", "read_snapshot", "write_snapshot"]

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """What was read. `rng` is `None` if another number of processes wrote the checkpoint."""

    path: Path
    step: int
    position: Position
    weights: dict[str, torch.Tensor]
    moments: dict[str, torch.Tensor]
    averages: dict[str, torch.Tensor]
    rng: dict[str, torch.Tensor] | None
    metrics: dict[str, list[float]]
    refused_steps: list[int]
    scaler: dict[str, Any] | None


def checkpoint_bytes(model: torch.nn.Module) -> int:
    """About what a checkpoint takes: weights, two moments and the average, with some room."""
    return 4 * sum(p.numel() * max(p.element_size(), 4) for p in model.parameters()) + 2_000_000


def write_snapshot(
    folder: Path,
    accelerator: Accelerator,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    average: IterateAverage | None,
    state: Mapping[str, Any],
) -> None:
    """Writes this process's files into a folder; every process calls it, as sharded weights are gathered here."""
    weights = run_state.model_state(accelerator, model)
    moments = run_state.optimizer_state(accelerator, model, optimizer)
    averages = None if average is None else average.state()
    rng_file = folder / f"rng-{accelerator.process_index:05d}.safetensors"
    run_state.write_tensors(rng_file, capture_rng(accelerator.device))
    if not accelerator.is_main_process:
        return
    config = unwrap(accelerator, model).config
    run_state.write_tensors(folder / "model.safetensors", weights)
    run_state.write_tensors(folder / "optimizer.safetensors", moments)
    config.save_pretrained(folder)
    if averages is not None:
        (folder / "averaged").mkdir()
        run_state.write_tensors(folder / "averaged" / "model.safetensors", weights | averages)
        config.save_pretrained(folder / "averaged")
    (folder / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")


def read_snapshot(
    config: TrainingConfig,
    accelerator: Accelerator,
    model: torch.nn.Module,
    settings: Mapping[str, Any],
    averaging: bool,
) -> Snapshot | None:
    """The state to resume from, as `config.resume_from_checkpoint` says; `None` to start from the beginning."""
    path = _choose(config, accelerator)
    if path is None:
        return None
    try:
        saved = json.loads((path / "state.json").read_text(encoding="utf-8"))
        known = with_new_fields(saved["settings"], model)
        changes = check_unchanged(known, settings, config.allow_changed, str(path))
        step, position = saved["step"], Position(saved["epoch"], saved["step_in_epoch"])
        metrics, refused_steps, processes = saved["metrics"], saved["refused_steps"], saved["num_processes"]
        scaler = saved.get("scaler")
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
    return Snapshot(path, step, position, weights, moments, averages, rng, metrics, refused_steps, scaler)


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
