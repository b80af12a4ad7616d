"""Optimization: schedules that span the run, layer-wise learning rates, a frozen backbone, SAM, weight averaging."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer, WeightAveraging
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from htr_lightning.errors import InputError
from htr_lightning.net.depth import NORMS, layers


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
        Groups with a `name` and a `share`, the factor on the optimizer's learning rate.

    Raises:
        InputError: `decay` is not in (0, 1].
    """
    if not 0 < decay <= 1:
        raise InputError(
            f"model.layer_decay={decay}: give a factor above 0 and up to 1, where 1 is the same rate for all"
        )
    found = layers(net, classes)
    groups: list[dict[str, Any]] = [
        {"params": layer.parameters, "name": layer.name, "share": decay ** (len(found) - depth)}
        for depth, layer in enumerate(found, start=1)
    ]
    placed = {parameter for group in groups for parameter in group["params"]}
    groups[0]["params"] += [parameter for parameter in net.parameters() if parameter not in placed]
    return groups


class FreezeBackbone(Callback):
    """Trains only the head in the first part of a run, so that a newly initialised head does not distort the
    pretrained layers (Kumar et al., 2022, "Fine-tuning can distort pretrained features and underperform
    out-of-distribution", arXiv:2202.10054).

    Gradients of frozen layers are dropped before the step; `requires_grad=False` would not do, since distributed ranks
    fix at the start which gradients they exchange. Frozen batch norms keep their statistics.

    Args:
        fraction: of the run; 0 freezes nothing.
    """

    def __init__(self, fraction: float = 0.1) -> None:
        if not 0 <= fraction < 1:
            raise InputError(
                f"callbacks.freeze_backbone.fraction={fraction}: give a fraction of the run, at least 0 and below 1"
            )
        self.fraction = fraction
        self._frozen: list[nn.Module] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        outputs = getattr(pl_module, "outputs", None)
        if outputs is None:
            raise InputError("callbacks=fine_tune: this model has no head for labels; choose another callbacks=")
        self._frozen = [m for layer in layers(pl_module.net, outputs)[:-1] for m in layer.modules]  # type: ignore[arg-type]
        if self.fraction:
            rank_zero_only(print)(f"only the head is trained in the first {self.fraction:.0%} of the run")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if not self._frozen:
            return
        learns = progress(trainer) >= self.fraction
        for norm in (m for layer in self._frozen for m in layer.modules() if isinstance(m, NORMS)):
            norm.train(learns)
        if learns:
            self._frozen = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        for layer in self._frozen:
            layer.zero_grad()  # to None, so that momentum and weight decay do not apply either


def plateau(
    optimizer: Optimizer, progress: Callable[[], float], monitor: str, mode: str, factor: float, patience: int
) -> dict[str, Any]:
    """Lightning's scheduler config for torch's `ReduceLROnPlateau`, stepped after each epoch's validation.

    Args:
        optimizer: its learning rates are the initial ones.
        progress: unused; the monitored metric decides.
        monitor: a logged metric, such as val/loss.
        mode: "min" or "max", whichever is better.
        factor: applied to the learning rate when the metric stops improving.
        patience: epochs without improvement before that.
    """
    scheduler = ReduceLROnPlateau(optimizer, mode=mode, factor=factor, patience=patience)  # type: ignore[arg-type]
    return {"scheduler": scheduler, "interval": "epoch", "monitor": monitor}


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


class EMA(WeightAveraging):
    """Exponential moving average of weights and batch norm statistics, over about 1 / (1 - decay) steps.

    Validation scores the average, and a checkpoint's `state_dict` is the average: that is what is tested, used for
    transcription and started from. A resumed run continues with the raw weights. Early on the average is shorter: decay
    is (1 + n) / (10 + n) after n updates, as in TensorFlow's `ExponentialMovingAverage`.

    Args:
        decay: weight of the average against the current weights.
    """

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__(multi_avg_fn=self._update)
        self.decay = decay
        self._validating = False

    @torch.no_grad()
    def _update(self, average: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        n = int(count)
        decay = min(self.decay, (1 + n) / (10 + n))
        for own, new in zip(average, current, strict=True):
            own.lerp_(new, 1 - decay) if own.is_floating_point() else own.copy_(new)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._average_model is not None
        self._average_model.to(pl_module.device)  # copied before the model was moved to its device

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        self._validating = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_end(trainer, pl_module)
        self._validating = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._validating:  # interrupted while the two are swapped
            states = checkpoint["state_dict"], checkpoint["current_model_state"]
            checkpoint["current_model_state"], checkpoint["state_dict"] = states

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":  # or the test after it would load the raw weights
            self._average_model = None
