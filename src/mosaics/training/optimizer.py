"""AdamW with the usual split of the parameters."""

import torch
from torch import nn

from mosaics.training.config import TrainingConfig

__all__ = ["build_optimizer", "decayed_parameters"]


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


def build_optimizer(model: nn.Module, config: TrainingConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW over the trained parameters of a model, fused where PyTorch has it.

    Raises:
        ValueError: If the model has no parameter that requires a gradient.
    """
    decayed = decayed_parameters(model)
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not named:
        raise ValueError(f"{type(model).__name__} has no parameter with requires_grad=True: nothing to train.")
    groups = [
        {"params": [p for name, p in named if name in decayed], "weight_decay": config.weight_decay},
        {"params": [p for name, p in named if name not in decayed], "weight_decay": 0.0},
    ]
    fused = device.type in ("cpu", "cuda", "xpu", "mps") and all(p.is_floating_point() for _, p in named)
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=fused,
    )
