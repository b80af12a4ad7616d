"""Stop a run between two steps when it is asked to, and save its state."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from htr_lightning.training.console import log, relative

# Ctrl-C, schedulers, a closed terminal, and the warning that SLURM sends with --signal=USR1@60. Windows lacks some.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")


class Interrupt(Callback):
    """Let a signal stop the run: while it trains, after the same step on all ranks, so that they can save its state.

    The exit code is 128 plus the number of the signal. A second signal, or one that arrives before or after the
    training, stops the run at once and saves nothing. A signal that only one of the ranks receives stops all of them.

    Args:
        folder: run folder; the state is saved as `checkpoints/last.ckpt` in it.
    """

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / "checkpoints" / "last.ckpt"
        self._training = False
        self._received = 0

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
        numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
        replaced = {number: signal.signal(number, receive) for number in numbers}
        try:
            yield
        finally:
            for number, handler in replaced.items():
                signal.signal(number, handler)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._training = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stop if any rank has received a signal; at the start of a batch, the one before it is completely recorded."""
        self._stop_if_asked(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_if_asked(trainer)
        self._training = False

    def _stop_if_asked(self, trainer: Trainer) -> None:
        received = self._received
        if trainer.world_size > 1:
            agreed = torch.tensor(received, device=trainer.strategy.root_device)
            torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MAX)
            received = int(agreed)
        if not received:
            return
        name = signal.Signals(received).name
        if trainer.global_step:
            trainer.save_checkpoint(self.path, weights_only=False)
            log.info(f"stopped by {name} at step {trainer.global_step}; continue with resume={relative(self.path)}")
        raise _stopped(trainer, received)


def _stopped(trainer: Trainer, number: int) -> SIGTERMException:
    """Return the exception that ends a process of a run; rank 0 states the signal in its exit code.

    The other processes of a machine end with 0, because Lightning kills rank 0 as soon as one of them fails.
    """
    return SIGTERMException(128 + number if trainer.local_rank == 0 else 0)
