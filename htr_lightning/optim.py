"""Learning-rate schedules that fit the length of the run, whatever bounds it."""

import math
from collections.abc import Callable
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Timer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from htr_lightning.errors import InputError


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
