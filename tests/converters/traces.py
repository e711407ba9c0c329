"""Outputs of a model's modules in the order in which they run, to be compared with a reference's."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def trace(model: nn.Module, kinds: tuple[str, ...], run: Callable[[], Any]) -> tuple[Any, list[torch.Tensor]]:
    """What `run` returns, and what the modules of these class names gave meanwhile."""
    outputs: list[torch.Tensor] = []
    modules = [module for module in model.modules() if type(module).__name__ in kinds]
    hooks = [module.register_forward_hook(lambda _, __, output: outputs.append(output)) for module in modules]
    with torch.no_grad():
        result = run()
    for hook in hooks:
        hook.remove()
    return result, outputs


def largest_difference(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """Over all outputs of two traces of equal length."""
    return max(float((one - other).abs().max()) for one, other in zip(ours, theirs, strict=True))
