"""A callback that lets something go wrong in a run; `test_deaths` adds it to the config of runs in other processes."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

FILLER = "filler"  # file that fills a disk


class Fault(Callback):
    """Let something go wrong at the start of a batch, on one rank.

    Args:
        kind: name of a signal for this process, for its `group` or for its `parent`, as in "SIGINT group"; or `worker`,
            `nan`, `full`, `full until the end` or `full at the test`.
        folder: folder on the disk that is filled; the time of the fault is written beside it.
        step: number of optimizer steps done.
        rank: rank on which it happens.
    """

    def __init__(self, kind: str, folder: str, step: int = 4, rank: int = 0) -> None:
        self.kind, self.folder, self.step, self.rank = kind, Path(folder), step, rank
        self._done = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_rank != self.rank or self.kind == "full at the test":
            return
        if self.kind == "full" and trainer.global_step == self.step + 3:
            (self.folder / FILLER).unlink(missing_ok=True)
        if trainer.global_step < self.step or self._done:
            return
        self._happen()
        if self.kind == "nan":
            batch.images[0] = float("nan")
        elif self.kind == "worker":
            os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        elif self.kind.startswith("full"):
            self._fill()
        else:
            name, _, who = self.kind.partition(" ")
            number = getattr(signal, name)
            if who == "group":
                os.killpg(0, number)
            else:
                os.kill(os.getppid() if who == "parent" else os.getpid(), number)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.kind == "full at the test" and trainer.global_rank == self.rank:
            self._happen()
            self._fill()

    def _happen(self) -> None:
        self._done = True
        (self.folder.parent / "fault").write_text(str(time.time()))

    def _fill(self) -> None:
        with (self.folder / FILLER).open("wb", buffering=0) as file:
            for size in (2**16, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass
