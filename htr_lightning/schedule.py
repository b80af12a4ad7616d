"""Measure the progress of a run and schedule its learning rate."""

import math
import re
from collections.abc import Callable
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Timer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from htr_lightning.errors import InputError
from htr_lightning.parameters import Fraction

UNITS = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+)s)?")


def clock(duration: Any) -> str | None:
    """Convert a duration to the format of Lightning's Trainer, "DD:HH:MM:SS".

    Args:
        duration: a number with a unit, such as "90m" or "1h30m" (d, h, m, s), or "DD:HH:MM:SS"; None for no limit.

    Raises:
        InputError: if the duration is invalid.
    """
    if duration is None:
        return None
    text = str(duration).replace(" ", "")
    found = UNITS.fullmatch(text) or re.fullmatch(r"(\d+):(\d+):(\d+):(\d+)", text)
    parts = [int(part or 0) for part in found.groups()] if text and found else []
    if any(parts):
        days, hours, minutes, seconds = parts
        minutes, seconds = minutes + seconds // 60, seconds % 60
        hours, minutes = hours + minutes // 60, minutes % 60
        return f"{days + hours // 24:02}:{hours % 24:02}:{minutes:02}:{seconds:02}"
    raise InputError(
        f"trainer.max_time={duration}: invalid duration; expected e.g. 90s, 20m, 2h, 1h30m or 1d, or null for no limit"
    )


def progress(trainer: Trainer) -> float:
    """Return the completed fraction of the run, as computed by `completed` on rank 0.

    All ranks must call this function; they use the clock of rank 0, so that their learning rates are the same.
    """
    done = completed(trainer)
    return trainer.strategy.broadcast(done) if trainer.world_size > 1 else done


def completed(trainer: Trainer) -> float:
    """Return the completed fraction of a run, from 0 to 1, by time, steps or epochs, whichever is furthest along.

    Raises:
        InputError: if the run has no limit on time, steps or epochs.
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
            done.append(timer.time_elapsed() / timer._duration)
    if not done:
        raise InputError("the run has no limit; set trainer.max_time=2h, trainer.max_epochs or trainer.max_steps")
    return min(1.0, max(done))


class OneCycle(LRScheduler):
    """A learning-rate schedule over the whole run, with a linear warm-up to the optimizer's learning rate and a cosine
    decay to nearly zero (Smith and Topin, 2017, "Super-convergence", arXiv:1708.07120).

    Args:
        optimizer: optimizer whose learning rates are the peaks.
        progress: function that returns the completed fraction of the run; called at each step.
        warmup: fraction of the run spent on the warm-up.
        start: first learning rate as a fraction of the peak.
        end: last learning rate as a fraction of the peak.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        progress: Callable[[], float],
        warmup: Fraction = 0.1,
        start: Fraction = 0.05,
        end: Fraction = 0.001,
    ) -> None:
        self.progress, self.warmup, self.start, self.end = progress, warmup, start, end
        super().__init__(optimizer)

    def factor(self, done: float) -> float:
        """Return the learning rate, as a fraction of the peak, after a fraction `done` of the run."""
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
        """Return only the step count; the position follows from the run, and the shape from the config."""
        return {"last_epoch": self.last_epoch}
