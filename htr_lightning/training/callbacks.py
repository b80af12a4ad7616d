"""What a run does besides its steps: measure its speed, keep the best checkpoint when resumed, validate at its end,
train the head first."""

import math
import shutil
import time
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only
from torch import nn
from torch.optim import Optimizer

from htr_lightning.data.batch import Batch
from htr_lightning.errors import InputError
from htr_lightning.net.depth import NORMS, layers
from htr_lightning.schedule import progress
from htr_lightning.training.module import TrainingModule

Kind = TypeVar("Kind", bound=Callback)


class Throughput(Callback):
    """Training lines per second, not counting the time spent on validation."""

    def __init__(self) -> None:
        self.lines, self.seconds = 0, 0.0
        self._since: float | None = None
        self.started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self.seconds += now - (self._since or now)
        self._since = now
        self.lines += len(batch.ids) * trainer.world_size
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined] # set outside the class
            pl_module.log("train/lines_per_second", self.rate, batch_size=len(batch.ids))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.perf_counter()

    @property
    def rate(self) -> float:
        return self.lines / self.seconds if self.seconds else 0.0


class RestoreBest(Callback):
    """Copies the best checkpoint of the resumed run into the folder of the new one, where it is the one to beat."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        best = find(trainer, ModelCheckpoint)
        if best is None or not trainer.ckpt_path or best.best_model_score is not None:
            return
        state = torch.load(trainer.ckpt_path, weights_only=True, map_location="cpu")["callbacks"].get(best.state_key)
        if state is None or state["best_model_score"] is None or not Path(state["best_model_path"]).is_file():
            best.best_model_path = ""  # there was none, or it is gone: the first validation saves one
            return
        path = Path(str(best.dirpath)) / "best.ckpt"
        if trainer.is_global_zero:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(state["best_model_path"], path)
        best.best_model_path = best.kth_best_model_path = str(path)
        best.best_model_score = best.kth_value = state["best_model_score"]
        best.best_k_models = {str(path): state["best_model_score"]}


class ValidateAtEnd(Callback):
    """Validates at the end of a run that is bounded by steps or epochs, as Lightning does for one bounded by time, and
    at the end of every epoch if so configured, even where epochs have different numbers of batches."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.val_check_interval == 1.0 and trainer.check_val_every_n_epoch:
            trainer.val_check_batch = math.inf  # Lightning takes the first epoch's number of batches

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        epochs = trainer.max_epochs or -1
        is_last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch  # epochs may differ in length
        last_batch = is_last and 0 < epochs <= trainer.current_epoch + 1
        if last_batch or 0 < trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True


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
        assert isinstance(pl_module, TrainingModule)
        recognizer = pl_module.recognizer
        self._frozen = [m for layer in layers(recognizer.net, recognizer.num_classes)[:-1] for m in layer.modules]
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


def find(trainer: Trainer, kind: type[Kind]) -> Kind | None:
    """The trainer's first callback of a kind."""
    return next((callback for callback in trainer.callbacks if isinstance(callback, kind)), None)  # type: ignore[attr-defined]
