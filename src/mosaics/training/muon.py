"""Muon for the hidden weight matrices, AdamW for everything else, as one optimizer."""

from collections.abc import Callable
from typing import Any, overload

import torch

__all__ = ["MuonWithAdamW"]


class MuonWithAdamW(torch.optim.Optimizer):
    r"""`torch.optim.Muon` and `torch.optim.AdamW` side by side, with one state and one list of parameter groups.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) orthogonalises the momentum of each matrix.
    Its steps are scaled to the size of AdamW's (Liu et al. 2025, https://arxiv.org/abs/2502.16982), so that both take
    the same learning rate and weight decay.

    Args:
        muon_groups: Parameter groups of matrices.
        adamw_groups: Parameter groups of all other parameters.
        lr: Learning rate of both.
        momentum: Decay of Muon's momentum.
        betas: As in `torch.optim.AdamW`.
        eps: As in `torch.optim.AdamW`.
    """

    def __init__(
        self,
        muon_groups: list[dict[str, Any]],
        adamw_groups: list[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
    ):
        self.muon = torch.optim.Muon(muon_groups, lr=lr, momentum=momentum, adjust_lr_fn="match_rms_adamw")
        self.adamw = torch.optim.AdamW(adamw_groups, lr=lr, betas=betas, eps=eps, fused=True)
        super().__init__([*self.muon.param_groups, *self.adamw.param_groups], {"lr": lr})
        self._share()

    def _share(self) -> None:
        """The parts work on this optimizer's own groups and state."""
        split = len(self.muon.param_groups)
        self.muon.param_groups, self.adamw.param_groups = self.param_groups[:split], self.param_groups[split:]
        self.muon.state = self.adamw.state = self.state

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of both parts."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.muon.step()
        self.adamw.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Puts back what `state_dict` returned."""
        super().load_state_dict(state_dict)
        self._share()
