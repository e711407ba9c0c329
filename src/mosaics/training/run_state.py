"""The state of a run as named tensors, the same whichever way Accelerate spreads the model over processes.

Everything goes into safetensors and JSON files under names that mean something (`decoder.conv.weight/exp_avg`).
Reading them executes nothing, and a checkpoint written by one process can be read by many.
"""

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.distributed.tensor import DTensor

from mosaics.training.checkpointing import CheckpointError
from mosaics.training.processes import unwrap

__all__ = [
    "load_model_state",
    "load_optimizer_state",
    "model_state",
    "optimizer_state",
    "read_tensors",
    "write_tensors",
]


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Writes tensors to a safetensors file; disk errors are `OSError`s that name the file."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{path.name}: {error}") from error


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads all tensors of a safetensors file to the CPU."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _is_sharded(model: nn.Module) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def _gathering() -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=True)


def model_state(accelerator: Accelerator, model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers by name; of tensors that share memory, the first name only.

    With a sharded model every process must call this, and the tensors are on the main process only.
    """
    if _is_sharded(model):
        from torch.distributed.checkpoint.state_dict import get_model_state_dict

        gathered: Any = get_model_state_dict(model, options=_gathering())  # typed as dictionaries within each other
        return dict(gathered)
    state = unwrap(accelerator, model).state_dict()
    return {name: tensor for name, tensor in state.items() if name not in _aliases(state)}


def _aliases(state: dict[str, torch.Tensor]) -> set[str]:
    """Names of tensors that share their memory with one that comes before (tied weights)."""
    seen: set[tuple[Any, ...]] = set()
    aliases = set()
    for name, tensor in state.items():
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and place in seen:
            aliases.add(name)
        seen.add(place)
    return aliases


def check_model_state(accelerator: Accelerator, model: nn.Module, state: dict[str, torch.Tensor], file: Path) -> None:
    """Compares names and shapes with those of the model, before anything is changed."""
    own = unwrap(accelerator, model).state_dict()
    expected = {name: tensor.shape for name, tensor in own.items() if name not in _aliases(own)}
    _compare_shapes(
        expected, {name: tensor.shape for name, tensor in state.items() if name not in _aliases(own)}, file
    )


def load_model_state(accelerator: Accelerator, model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Puts checked tensors into the model."""
    if _is_sharded(model):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

        set_model_state_dict(model, dict(state), options=StateDictOptions(full_state_dict=True))
        return
    own = unwrap(accelerator, model).state_dict()
    with torch.no_grad():
        for name, tensor in state.items():
            if name in own:
                own[name].copy_(tensor)


def _named_trainable(accelerator: Accelerator, model: nn.Module) -> dict[str, nn.Parameter]:
    named = unwrap(accelerator, model).named_parameters()
    return {name: parameter for name, parameter in named if parameter.requires_grad}


def optimizer_state(
    accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    """The optimizer's tensors, as `<parameter>/<quantity>`: learning rates are functions of the step, not state."""
    if _is_sharded(model):
        from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

        gathered: Any = get_optimizer_state_dict(model, optimizer, options=_gathering())  # typed wider than it is
        by_name = gathered.get("state", {})
    else:
        named = _named_trainable(accelerator, model)
        by_name = {name: optimizer.state[p] for name, p in named.items() if p in optimizer.state}
    return {
        f"{name}/{quantity}": torch.as_tensor(value)
        for name, quantities in by_name.items()
        for quantity, value in quantities.items()
    }


def check_optimizer_state(
    accelerator: Accelerator, model: nn.Module, state: dict[str, torch.Tensor], file: Path
) -> None:
    """Checks that every tensor belongs to a parameter and has its shape (or is a count), before anything changes."""
    named = _named_trainable(accelerator, model)
    for key, tensor in state.items():
        name, _, quantity = key.rpartition("/")
        if name not in named:
            raise CheckpointError(f"{file}: {key} belongs to no trained parameter of this model.")
        if quantity != "step" and tensor.shape != named[name].shape:
            raise CheckpointError(
                f"{file}: {key} has shape {tuple(tensor.shape)}, the parameter {tuple(named[name].shape)}."
            )


def load_optimizer_state(
    accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, torch.Tensor]
) -> None:
    """Puts checked tensors into the optimizer."""
    by_name: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in state.items():
        name, _, quantity = key.rpartition("/")
        by_name.setdefault(name, {})[quantity] = tensor.clone()  # optimizers keep, and change, what they are given
    if _is_sharded(model):
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            get_optimizer_state_dict,
            set_optimizer_state_dict,
        )

        groups = get_optimizer_state_dict(model, optimizer)["param_groups"]  # by name, on every process
        full: Any = {"state": by_name, "param_groups": groups}
        set_optimizer_state_dict(model, optimizer, full, options=StateDictOptions(full_state_dict=True))
        return
    own = optimizer.state_dict()  # numbers the parameters in the order of the groups
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    number_of = {id(parameter): number for number, parameter in enumerate(parameters)}
    named = _named_trainable(accelerator, model)
    states = {number_of[id(named[name])]: quantities for name, quantities in by_name.items()}
    optimizer.load_state_dict({"state": states, "param_groups": own["param_groups"]})


def _compare_shapes(expected: dict[str, torch.Size], found: dict[str, torch.Size], file: Path) -> None:
    problems = [f"missing {name}" for name in expected if name not in found]
    problems += [f"unexpected {name}" for name in found if name not in expected]
    problems += [
        f"{name} is {tuple(found[name])} in the file and {tuple(shape)} in the model"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(f"{file} does not fit the model: {'; '.join(problems[:5])}{more}.")
