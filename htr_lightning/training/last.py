"""Save the state of a run between two steps: regularly, and when a signal asks the run to stop."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from htr_lightning.parameters import Positive
from htr_lightning.training.callbacks import log
from htr_lightning.training.module import TrainingModule
from htr_lightning.training.signals import handled
from htr_lightning.training.summary import relative

# Ctrl-C, schedulers, a closed terminal, and the warning that SLURM sends with --signal=USR1@60. Windows lacks some.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")


class LastCheckpoint(Callback):
    """A callback that saves `checkpoints/last.ckpt`, from which a run can be resumed as if it had not been interrupted.

    It saves after each validation, every few minutes, and when the run is asked to stop, always between two steps and
    on all ranks after the same one. A signal, whichever rank receives it, stops the run with the exit code 128 plus its
    number. A second signal, or one that arrives before or after the training, stops the run at once and saves nothing.

    Args:
        folder: run folder.
        minutes: time between two checkpoints.
    """

    def __init__(self, folder: str, minutes: Positive = 10.0) -> None:
        self.path, self.minutes = Path(folder) / "checkpoints" / "last.ckpt", minutes
        self._training = False
        self._received = 0
        self._validated = False  # since the last checkpoint
        self._saved = 0.0

    @contextmanager
    def handling(self, trainer: Trainer) -> Iterator[None]:
        """Handle signals within the context, in which the trainer is to be used."""
        if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
            yield
            return

        def receive(number: int, frame: FrameType | None) -> None:
            if self._training and not self._received:
                self._received = number
                return
            if trainer.strategy.launcher is not None:
                trainer.strategy.launcher.kill(number)  # otherwise, the other ranks would report that this one is gone
            raise _stopped(trainer, number)

        # Lightning's handler waits for the other ranks inside the handler, which hangs if they are exchanging anything
        trainer._signal_connector._sigterm_notifier_fn = lambda *_: None  # type: ignore[method-assign]
        with handled(NAMES, receive):
            yield

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._training, self._saved = True, time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = not trainer.sanity_checking

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Save or stop; at the start of a batch, the one before it is completely recorded."""
        if batch_idx % trainer.accumulate_grad_batches == 0:  # accumulated gradients are not saved
            self._save_or_stop(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_or_stop(trainer, pl_module)
        self._training = False

    def _save_or_stop(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        received = self._received
        due = self._validated or time.monotonic() - self._saved >= 60 * self.minutes
        if trainer.world_size > 1:
            agreed = torch.tensor([received, due])  # on the CPU, as `ranks.prepare` lets them exchange it
            torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MAX)
            received, due = agreed.tolist()
        if (due or received) and trainer.global_step:
            pl_module.check_losses()
            for logger in trainer.loggers:
                logger.save()  # the resumed run logs only the steps after this one
            trainer.save_checkpoint(self.path, weights_only=False)
            self._validated, self._saved = False, time.monotonic()
        if not received:
            return
        if trainer.global_step:
            log.info(f"stopped by {signal.Signals(received).name} at step {trainer.global_step}; continue with "
                     f"resume={relative(self.path.parent.parent)}")  # fmt: skip
        raise _stopped(trainer, received)


def _stopped(trainer: Trainer, number: int) -> SIGTERMException:
    """Return the exception that ends a process of a run; rank 0 states the signal in its exit code.

    The other processes of a machine end with 0, because Lightning kills rank 0 as soon as one of them fails.
    """
    return SIGTERMException(128 + number if trainer.local_rank == 0 else 0)
