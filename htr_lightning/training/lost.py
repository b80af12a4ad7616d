"""Say which process of a run has died, in place of the errors that its death causes in the others."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from htr_lightning.errors import InputError, first_line
from htr_lightning.training.run_folder import LAST
from htr_lightning.training.summary import relative
from htr_lightning.training.sweep_job import ending

WAIT = 3.0  # seconds until a rank whose connection was closed has ended
GRACE = 0.5  # seconds to wait for others once one of them has ended
OBSERVER = "child-process-observer"


@contextmanager
def naming_lost(trainer: Trainer, folder: Path) -> Iterator[None]:
    """Turn an error that the death of another process has caused into an InputError that names this process.

    Args:
        trainer: trainer that is used in the context.
        folder: run folder.
    """
    trainer.callbacks.append(_Spared())  # type: ignore[attr-defined]
    try:
        yield
    except RuntimeError as error:
        if (told := _lost(trainer, error)) is None:
            raise
        resume = f"; continue with resume={relative(folder)}" if (folder / LAST).is_file() else ""
        raise InputError(told + resume) from None


def _lost(trainer: Trainer, error: RuntimeError) -> str | None:
    """Return which process has died, or None if an error has another cause."""
    reason = first_line(error).rstrip(" .")
    if reason.startswith("DataLoader worker"):
        return f"a loading process has died, perhaps for lack of memory ({reason}); reduce data.workers"
    if not _is_due_to_rank(trainer, error):
        return None
    started: list[Popen] = getattr(trainer.strategy.launcher, "procs", [])  # on the first rank of a machine
    until, ended = time.monotonic() + WAIT, dict[int, int]()
    while started and time.monotonic() < until:
        before, ended = ended, _ended(started)
        if ended and not before:
            until = min(until, time.monotonic() + GRACE)
        if any(map(_by_signal, ended.values())):
            break
        time.sleep(0.05)
    if ended:  # a rank that a signal has ended is the cause, and one with an error perhaps the first to notice it
        rank = min(ended, key=lambda rank: (not _by_signal(ended[rank]), rank))
        return f"rank {trainer.global_rank + rank} {ending(ended[rank])}"
    return f"rank {trainer.global_rank} lost another rank, whose message may say why ({reason.partition('. ')[0]})"


def _ended(started: list[Popen]) -> dict[int, int]:
    """Return the exit code of each rank that has failed."""
    return {rank: code for rank, process in enumerate(started, 1) if (code := process.poll())}


def _by_signal(code: int) -> bool:
    return not 0 <= code <= 128


def _is_due_to_rank(trainer: Trainer, error: BaseException) -> bool:
    """Return whether an error says that another rank cannot be reached."""
    said = isinstance(error, torch.distributed.DistError) or "gloo" in first_line(error)
    return trainer.world_size > 1 and isinstance(error, RuntimeError) and said


class _Spared(Callback):
    """A callback that lets a rank report the loss of another, because of which Lightning would kill it in seconds."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        for thread in threading.enumerate():
            if thread.name == OBSERVER and _is_due_to_rank(trainer, exception):
                observer: Any = thread
                observer._child_processes = []
