"""The optimizer, with the usual split of the parameters."""

import math

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.tensor import DTensor

from mosaics.training.config import TrainingConfig
from mosaics.training.muon import MuonWithAdamW
from mosaics.training.schedules import learning_rate_at

__all__ = ["build_optimizer", "clip_gradients", "decayed_parameters", "hidden_matrices", "scheduled_learning_rate"]


def decayed_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters that weight decay applies to: weight matrices and convolution kernels.

    Norms, biases and embeddings are spared, and so is every other parameter with fewer than two dimensions and every
    parameter named `codebook` (a table of codes is an embedding).
    """
    decayed = set()
    for module_name, module in model.named_modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            spared = parameter.ndim < 2 or name == "codebook" or "embedding" in name or name.endswith("bias")
            if parameter.requires_grad and not spared:
                decayed.add(f"{module_name}.{name}" if module_name else name)
    return decayed


def hidden_matrices(model: nn.Module) -> set[str]:
    """Names of the parameters that Muon is for: weights of linear layers, apart from the output heads."""
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.weight.requires_grad and not name.endswith("head")
    }


def build_optimizer(model: nn.Module, config: TrainingConfig, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer that `config.optimizer` names, over the trained parameters of a model, fused where PyTorch has it.

    Raises:
        ValueError: If the model has no parameter that requires a gradient, or Muon no matrix to work on.
    """
    decayed = decayed_parameters(model)
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not named:
        raise ValueError(f"{type(model).__name__} has no parameter with requires_grad=True: nothing to train.")
    matrices = hidden_matrices(model) if config.optimizer == "muon" else set()
    if config.optimizer == "muon" and not matrices:
        raise ValueError(f"optimizer=muon works on linear layers, {type(model).__name__} has none: use adamw.")

    def group(names: set[str], weight_decay: float) -> list[dict]:
        parameters = [parameter for name, parameter in named if name in names]
        return [{"params": parameters, "weight_decay": weight_decay}] if parameters else []

    others = {name for name, _ in named} - matrices
    adamw_groups = group(others & decayed, config.weight_decay) + group(others - decayed, 0.0)
    arguments = {
        "lr": config.learning_rate,
        "betas": (config.adam_beta1, config.adam_beta2),
        "eps": config.adam_epsilon,
    }
    if matrices:
        return MuonWithAdamW(group(matrices, config.weight_decay), adamw_groups, **arguments)
    fused = device.type in ("cpu", "cuda", "xpu", "mps") and all(p.is_floating_point() for _, p in named)
    return torch.optim.AdamW(adamw_groups, fused=fused, **arguments)


def scheduled_learning_rate(config: TrainingConfig, step: int) -> float:
    """Learning rate of the optimizer step that follows `step` others, as the fields of `config` say."""
    return learning_rate_at(
        step,
        peak=config.learning_rate,
        end=config.learning_rate_end,
        warmup_steps=config.warmup_steps,
        decay_steps=config.decay_steps,
        schedule=config.lr_schedule,
        decay_start=config.lr_decay_start,
    )


def clip_gradients(accelerator: Accelerator, model: nn.Module, max_norm: float | None) -> torch.Tensor:
    """Scales the gradients of a prepared model down to a norm, if there is a limit.

    Returns:
        The norm they had before, over all parameters also when the model is sharded.
    """
    norm = accelerator.clip_grad_norm_(model.parameters(), math.inf if max_norm is None else max_norm)
    return norm.full_tensor() if isinstance(norm, DTensor) else torch.as_tensor(norm)
