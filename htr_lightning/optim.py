"""How weights are learned: schedules that fit the length of the run, rates by depth, the head before the rest,
sharpness-aware steps, an average of weights."""

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
    """How much of a fit is done, in [0, 1]: by the clock, the steps or the epochs, whichever is furthest.

    With several ranks the first one's clock counts, so that all take the same learning rate.

    Raises:
        InputError: nothing bounds the run.
    """
    done: list[float] = []
    if trainer.max_steps > 0:
        done.append(trainer.global_step / trainer.max_steps)
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        batches = trainer.num_training_batches
        ready = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        within = min(1.0, ready / batches) if math.isfinite(batches) and batches else 0.0
        done.append((trainer.current_epoch + within) / trainer.max_epochs)
    for timer in trainer.callbacks:
        if isinstance(timer, Timer) and timer._duration:
            elapsed = timer.time_elapsed() / timer._duration
            done.append(trainer.strategy.broadcast(elapsed) if trainer.world_size > 1 else elapsed)
    if not done:
        raise InputError(
            "the run has no end: set trainer.max_time=DD:HH:MM:SS, trainer.max_epochs or trainer.max_steps"
        )
    return min(1.0, max(done))


class OneCycle(LRScheduler):
    """Warm-up to the optimizer's learning rate and a cosine down to nearly nothing, over the whole run (Smith and
    Topin, 2017, "Super-convergence", arXiv:1708.07120).

    Args:
        optimizer: its learning rates are the peaks.
        progress: the share of the run that is done, asked at every step.
        warmup: share of the run spent rising.
        start: first learning rate as a share of the peak.
        end: last learning rate as a share of the peak.
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
        """Share of the peak when `done` of the run is over."""
        if done < self.warmup:
            return self.start + (1 - self.start) * done / self.warmup
        falling = (done - self.warmup) / max(1e-9, 1 - self.warmup)
        return self.end + (1 - self.end) * 0.5 * (1 + math.cos(math.pi * min(1.0, falling)))

    def get_lr(self) -> list[float]:
        factor = self.factor(self.progress() if self._started else 0.0)
        return [base * factor for base in self.base_lrs]

    @property
    def _started(self) -> bool:
        return self.last_epoch > 0  # the run's length is not known before the first step

    def state_dict(self) -> dict[str, int]:
        """Only the count of steps: the position is the run's, the shape is the config's."""
        return {"last_epoch": self.last_epoch}


def rates_by_depth(net: nn.Module, classes: int, decay: float) -> list[dict[str, Any]]:
    """Parameter groups in which a layer learns `decay` times as fast as the one behind it (Howard and Ruder, 2018,
    "Universal language model fine-tuning for text classification", arXiv:1801.06146, section 3.2, with 1 / 2.6).

    Args:
        net: see `layers`.
        classes: its outputs.
        decay: from the head, which learns at the full rate, to each layer before it.

    Returns:
        Groups with a `name`, and the `share` that its learning rate has of the optimizer's.

    Raises:
        InputError: a decay that is none.
    """
    if not 0 < decay <= 1:
        raise InputError(f"model.layer_decay={decay}: give a factor above 0 and up to 1, which is one rate for all")
    found = layers(net, classes)
    groups = [{"params": layer.parameters, "name": layer.name, "share": decay ** (len(found) - depth)}
              for depth, layer in enumerate(found, start=1)]  # fmt: skip
    placed = {parameter for group in groups for parameter in group["params"]}
    groups[0]["params"] += [parameter for parameter in net.parameters() if parameter not in placed]
    return groups


class FreezeBackbone(Callback):
    """Lets only the layer of the classes learn in the first part of a run, so that a head that starts afresh does not
    spoil the layers before it (Kumar et al., 2022, "Fine-tuning can distort pretrained features and underperform
    out-of-distribution", arXiv:2202.10054).

    What is frozen has its gradients dropped before the step, rather than `requires_grad=False`: several ranks agree at
    the start on the parameters whose gradients they exchange. Its batch norms stand still as well.

    Args:
        fraction: of the run; 0 freezes nothing.
    """

    def __init__(self, fraction: float = 0.1) -> None:
        if not 0 <= fraction < 1:
            raise InputError(
                f"callbacks.freeze_backbone.fraction={fraction}: give a share of the run, at least 0 and below 1"
            )
        self.fraction = fraction
        self._frozen: list[nn.Module] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        outputs = getattr(pl_module, "outputs", None)
        if outputs is None:
            raise InputError("callbacks=fine_tune: what is trained has no head for labels; use another callbacks=")
        self._frozen = [m for layer in layers(pl_module.net, outputs)[:-1] for m in layer.modules]  # type: ignore[arg-type]
        if self.fraction:
            rank_zero_only(print)(f"only the head learns in the first {self.fraction:.0%} of the run")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if not self._frozen:
            return
        learns = progress(trainer) >= self.fraction
        for norm in (m for part in self._frozen for m in part.modules() if isinstance(m, NORMS)):
            norm.train(learns)
        if learns:
            self._frozen = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        for part in self._frozen:
            part.zero_grad()  # to none: no momentum, no weight decay


def plateau(
    optimizer: Optimizer, progress: Callable[[], float], monitor: str, mode: str, factor: float, patience: int
) -> dict[str, Any]:
    """Lightning's description of torch's `ReduceLROnPlateau`, asked after the validation of every epoch.

    Args:
        optimizer: its learning rates are those of the start.
        progress: not asked; what is monitored decides.
        monitor: the figure that is logged, such as val/loss.
        mode: "min" where smaller is better, or "max".
        factor: of the learning rate when the figure stands still.
        patience: epochs without a better figure before that.
    """
    scheduler = ReduceLROnPlateau(optimizer, mode=mode, factor=factor, patience=patience)  # type: ignore[arg-type]
    return {"scheduler": scheduler, "interval": "epoch", "monitor": monitor}


class SAM(Optimizer):
    """Steps by the gradient at the worst point nearby, rho * g / |g| away (Foret et al., 2021, "Sharpness-aware
    minimization for efficiently improving generalization", arXiv:2010.01412, equation 2 and algorithm 1).

    It computes two gradients a step, so a step takes twice as long; the loss that is logged is that of the second. It
    has the learning rates and the state of the optimizer that it wraps: schedules and checkpoints see only that one.
    Both gradients are averages over all ranks, and both forward passes move batch norm's statistics.

    Args:
        params: parameters or their groups.
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
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take a step; `closure` clears the gradients, computes the loss and its gradients, and returns the loss.

        Raises:
            InputError: there is no closure, or gradients of earlier batches wait to be added to.
        """
        if closure is None:
            raise InputError("optimizer=sam computes each gradient twice, which trainer.precision=16-mixed does not "
                             "allow; use bf16-mixed or 32-true")  # fmt: skip
        params = [p for group in self.param_groups for p in group["params"]]
        if any(p.grad is not None for p in params):
            raise InputError("optimizer=sam cannot add up the gradients of several batches; set "
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
        finally:  # a run that Ctrl-C stops here saves its own weights
            for p, own in zip(moved, before, strict=True):
                p.copy_(own)
        self.base.step()
        self.zero_grad()  # so that the next step sees whether there was accumulation
        return loss

    def state_dict(self) -> dict[str, Any]:
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.base.load_state_dict(state_dict)
        self._share()


class EMA(WeightAveraging):
    """An exponential moving average of weights and batch norm's statistics, over about 1 / (1 - decay) steps.

    Validation scores the average, a checkpoint's `state_dict` is the average, and so it is what is tested, transcribed
    and started from; resuming goes on with the weights behind it. In the first steps the average is shorter, decay
    (1 + n) / (10 + n) after n updates, as in TensorFlow's `ExponentialMovingAverage`.

    Args:
        decay: weight of the average against the newest weights.
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
        self._average_model.to(pl_module.device)  # the copy was made before the model came to its device

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        self._validating = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_end(trainer, pl_module)
        self._validating = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._validating:  # stopped by Ctrl-C while the two have changed places
            states = checkpoint["state_dict"], checkpoint["current_model_state"]
            checkpoint["current_model_state"], checkpoint["state_dict"] = states

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":  # or a test after it would load the weights behind the average
            self._average_model = None
