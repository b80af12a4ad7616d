"""Optimization: how much of a run is done, the schedule over it, layer-wise learning rates, SAM."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Timer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from htr_lightning.errors import InputError
from htr_lightning.net.depth import layers


def progress(trainer: Trainer) -> float:
    """The completed fraction of a fit, in [0, 1]: by time, steps or epochs, whichever is furthest.

    Rank 0's clock counts, so that all ranks use the same learning rate.

    Raises:
        InputError: nothing limits the run.
    """
    done: list[float] = []
    if trainer.max_steps > 0:
        done.append(trainer.global_step / trainer.max_steps)
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        batches = trainer.num_training_batches
        ready = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        within = min(1.0, ready / batches) if math.isfinite(batches) and batches else 0.0
        done.append((trainer.current_epoch + within) / trainer.max_epochs)
    for timer in trainer.callbacks:  # type: ignore[attr-defined] # Lightning sets it outside the class
        if isinstance(timer, Timer) and timer._duration:
            elapsed = timer.time_elapsed() / timer._duration
            done.append(trainer.strategy.broadcast(elapsed) if trainer.world_size > 1 else elapsed)
    if not done:
        raise InputError(
            "nothing limits the run: set trainer.max_time=DD:HH:MM:SS, trainer.max_epochs or trainer.max_steps"
        )
    return min(1.0, max(done))


class OneCycle(LRScheduler):
    """Linear warm-up to the optimizer's learning rate, then cosine decay to nearly zero, over the whole run (Smith and
    Topin, 2017, "Super-convergence", arXiv:1708.07120).

    Args:
        optimizer: its learning rates are the peaks.
        progress: returns the completed fraction of the run; called at every step.
        warmup: fraction of the run spent on the warm-up.
        start: first learning rate as a fraction of the peak.
        end: last learning rate as a fraction of the peak.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        progress: Callable[[], float],
        warmup: float = 0.1,
        start: float = 0.05,
        end: float = 0.001,
    ) -> None:
        self.progress, self.warmup, self.start, self.end = progress, warmup, start, end
        super().__init__(optimizer)

    def factor(self, done: float) -> float:
        """The learning rate as a fraction of the peak once `done` of the run is over."""
        if done < self.warmup:
            return self.start + (1 - self.start) * done / self.warmup
        falling = (done - self.warmup) / max(1e-9, 1 - self.warmup)
        return self.end + (1 - self.end) * 0.5 * (1 + math.cos(math.pi * min(1.0, falling)))

    def get_lr(self) -> list[float | Tensor]:
        factor = self.factor(self.progress() if self._started else 0.0)
        return [base * factor for base in self.base_lrs]

    @property
    def _started(self) -> bool:
        return self.last_epoch > 0  # the length of the run is unknown before the first step

    def state_dict(self) -> dict[str, int]:
        """Only the step count: the position follows from the run, the shape from the config."""
        return {"last_epoch": self.last_epoch}


def rates_by_depth(net: nn.Module, classes: int, decay: float) -> list[dict[str, Any]]:
    """Parameter groups for layer-wise learning rate decay (Howard and Ruder, 2018, "Universal language model
    fine-tuning for text classification", arXiv:1801.06146, section 3.2, where it is 1 / 2.6).

    Args:
        net: see `layers`.
        classes: number of its outputs.
        decay: factor from each layer to the one before it; the head learns at the full rate.

    Returns:
        Groups with a `name` and an `lr_scale`, the factor on the optimizer's learning rate.

    Raises:
        InputError: `decay` is not in (0, 1].
    """
    if not 0 < decay <= 1:
        raise InputError(
            f"model.layer_decay={decay}: give a factor above 0 and up to 1, where 1 is the same rate for all"
        )
    found = layers(net, classes)
    groups: list[dict[str, Any]] = [
        {"params": layer.parameters, "name": layer.name, "lr_scale": decay ** (len(found) - depth)}
        for depth, layer in enumerate(found, start=1)
    ]
    placed = {parameter for group in groups for parameter in group["params"]}
    groups[0]["params"] += [parameter for parameter in net.parameters() if parameter not in placed]
    return groups


class SAM(Optimizer):
    """Sharpness-aware minimization: steps by the gradient at w + rho * g / |g| (Foret et al., 2021, "Sharpness-aware
    minimization for efficiently improving generalization", arXiv:2010.01412, equation 2 and algorithm 1).

    Each step computes two gradients and takes twice as long; the logged loss is the second one. It shares learning
    rates and state with the optimizer it wraps: schedules and checkpoints see only that one. Both gradients are
    averaged over all ranks, and both forward passes update batch norm statistics.

    Args:
        params: parameters or parameter groups.
        base: called with the parameters; the optimizer that takes the step.
        rho: radius of the neighbourhood.
    """

    def __init__(self, params: Iterable[Any], base: Callable[[Iterable[Any]], Optimizer], rho: float = 0.05) -> None:
        self.base, self.rho = base(params), rho
        super().__init__(self.base.param_groups, self.base.defaults)
        self._share()

    def _share(self) -> None:
        self.param_groups, self.state = self.base.param_groups, self.base.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step; `closure` clears the gradients, runs forward and backward, and returns the loss.

        Raises:
            InputError: there is no closure, or gradients are being accumulated.
        """
        if closure is None:
            raise InputError("optimizer=sam computes each gradient twice, which trainer.precision=16-mixed does not "
                             "allow; use bf16-mixed or 32-true")  # fmt: skip
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
        finally:  # a run interrupted here still saves its own weights
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
