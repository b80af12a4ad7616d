"""Keep the failures of loggers away from the run."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger

from htr_lightning.errors import first_line

PAUSE = 60.0  # seconds in which a logger that has failed is sent nothing
SHARE = 0.1  # of the time of a run that a logger may spend on failing, e.g. until connections time out


class Guarded(Logger):
    """A logger whose failures do not end the run.

    The first failure is told. Then the logger is sent nothing for a while, and what it has missed is counted.

    Args:
        logger: logger to guard.
    """

    def __init__(self, logger: Logger) -> None:
        super().__init__()
        self.logger = logger
        self.missed = 0
        self._again = 0.0  # time from which the logger is sent something

    def send(self, method: str, *arguments: Any) -> None:
        """Call a method of the logger, if it has this method."""
        function = getattr(self.logger, method, None)
        if function is None:
            return
        started = time.monotonic()
        if started < self._again:
            self.missed += 1
            return
        try:
            function(*arguments)
        except Exception as error:
            ended = time.monotonic()
            self._again = ended + max(PAUSE, (ended - started) / SHARE)
            self.missed += 1
            if self.missed == 1:
                reason = first_line(error).rstrip(".")
                _warn(f"{self.title}: {reason}; the run goes on, and logs there again when it can")

    @property
    def title(self) -> str:
        """The name of the logger in messages."""
        return getattr(self.logger, "title", type(self.logger).__name__)

    @property
    def experiment(self) -> Any:
        """What the logger logs to, which is opened on first use, when a wrong setting still ends the run."""
        return getattr(self.logger, "experiment", None)

    @property
    def name(self) -> str | None:
        return self.logger.name

    @property
    def version(self) -> int | str | None:
        return self.logger.version

    @property
    def root_dir(self) -> str | None:
        return self.logger.root_dir

    @property
    def log_dir(self) -> str | None:
        return self.logger.log_dir

    @property
    def save_dir(self) -> str | None:
        return self.logger.save_dir

    @property
    def group_separator(self) -> str:
        return self.logger.group_separator

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.send("log_metrics", metrics, step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.send("log_hyperparams", params, *args)

    def log_graph(self, model: Any, input_array: Any = None) -> None:
        self.send("log_graph", model, input_array)

    def save(self) -> None:
        self.send("save")

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        self.send("after_save_checkpoint", checkpoint_callback)

    def finalize(self, status: str) -> None:
        self._again = 0.0
        self.send("finalize", status)
        if self.missed:
            _warn(f"{self.title}: not logged {self.missed} time{'s' * (self.missed > 1)}; metrics.csv has all metrics")
            self.missed = 0


def guard(trainer: Trainer, steps: int) -> None:
    """Guard the loggers of a trainer, and tell them after which step the run begins.

    Args:
        trainer: trainer that has logged nothing yet.
        steps: number of steps done by the run that is resumed; 0 for a new one.
    """
    trainer.loggers = [Guarded(logger) for logger in trainer.loggers]
    send(trainer, "begin", steps)


def send(trainer: Trainer, method: str, *arguments: Any) -> None:
    """Call a method of each logger that has it; see `training.logger`."""
    for logger in trainer.loggers:
        (getattr(logger, "send", None) or Guarded(logger).send)(method, *arguments)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers in nested values, such as those of summary.json, with their keys joined by slashes."""
    found: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{prefix}{key}"] = float(value)
    return found


def _warn(text: str) -> None:
    logging.getLogger("htr_lightning").warning(text)
