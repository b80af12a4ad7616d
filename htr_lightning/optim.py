"""Layer-wise learning rates and the SAM optimizer; learning-rate schedules are in schedule.py."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from htr_lightning.errors import InputError
from htr_lightning.net.depth import layers
from htr_lightning.parameters import Weight


def rates_by_depth(net: nn.Module, classes: int, decay: float) -> list[dict[str, Any]]:
    """Return parameter groups for layer-wise learning-rate decay (Howard and Ruder, 2018, "Universal language model
    fine-tuning for text classification", arXiv:1801.06146, section 3.2, where the decay is 1 / 2.6).

    Args:
        net: network to divide into layers; see `layers`.
        classes: number of outputs of the network.
        decay: learning-rate factor from each layer to the one before it; the head uses the full rate.

    Returns:
        Parameter groups, each with a `name` and an `lr_scale`, the factor applied to the optimizer's learning rate.
    """
    found = layers(net, classes)
    groups: list[dict[str, Any]] = [
        {"params": layer.parameters, "name": layer.name, "lr_scale": decay ** (len(found) - depth)}
        for depth, layer in enumerate(found, start=1)
    ]
    placed = {parameter for group in groups for parameter in group["params"]}
    groups[0]["params"] += [parameter for parameter in net.parameters() if parameter not in placed]
    return groups


class SAM(Optimizer):
    """The sharpness-aware minimization optimizer, which steps along the gradient at w + rho * g / |g| (Foret et al.,
    2021, "Sharpness-aware minimization for efficiently improving generalization", arXiv:2010.01412, equation 2 and
    algorithm 1).

    Each step computes two gradients and takes about twice as long as usual; the logged loss is that of the second pass.
    Parameter groups and state are shared with the base optimizer, so schedules and checkpoints only see the base
    optimizer. Both gradients are averaged over all ranks, and both forward passes update batch norm statistics.

    Args:
        params: parameters or parameter groups.
        base: function called with the parameters that returns the base optimizer, which performs the step.
        rho: radius of the neighbourhood.
    """

    def __init__(self, params: Iterable[Any], base: Callable[[Iterable[Any]], Optimizer], rho: Weight = 0.05) -> None:
        self.base, self.rho = base(params), rho
        super().__init__(self.base.param_groups, self.base.defaults)
        self._share()

    def _share(self) -> None:
        self.param_groups, self.state = self.base.param_groups, self.base.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step and return the loss.

        Args:
            closure: function that clears the gradients, runs the forward and backward passes, and returns the loss.

        Raises:
            InputError: if there is no closure, or gradients are being accumulated.
        """
        if closure is None:
            raise InputError("optimizer=sam does not support trainer.precision=16-mixed; use bf16-mixed or 32-true")
        params = [p for group in self.param_groups for p in group["params"]]
        if any(p.grad is not None for p in params):
            raise InputError("optimizer=sam does not support gradient accumulation; set "
                             "trainer.accumulate_grad_batches=1")  # fmt: skip
        closure = torch.enable_grad()(closure)
        closure()
        moved = [p for p in params if p.grad is not None]
        before = [p.clone() for p in moved]
        scale = self.rho / (torch.nn.utils.get_total_norm([p.grad for p in moved if p.grad is not None]) + 1e-12)
        try:
            for p in moved:
                p.add_(p.grad * scale)
            loss = closure()
        finally:  # restore the weights, so that a run interrupted here saves the right ones
            for p, own in zip(moved, before, strict=True):
                p.copy_(own)
        self.base.step()
        self.zero_grad()  # so that the next step can tell whether gradients were accumulated
        return loss

    def state_dict(self) -> dict[str, Any]:
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.base.load_state_dict(state_dict)
        self._share()
