"""Callbacks that restore the best checkpoint, validate at the end of a run and freeze the backbone."""

import math
import os
import shutil
from pathlib import Path
from typing import Any, TypeVar

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.optim import Optimizer

from htr_lightning.checkpoint import read
from htr_lightning.data.batch import Batch
from htr_lightning.net.depth import NORMS, layers
from htr_lightning.parameters import BelowOne
from htr_lightning.schedule import progress
from htr_lightning.training.module import TrainingModule, log

Kind = TypeVar("Kind", bound=Callback)


class RestoreBest(Callback):
    """A callback that copies the best checkpoint of a resumed run, with its score, to the folder of the new run.

    Of the paths in the resumed checkpoint, only the name of the best checkpoint is used: the file must be in the same
    folder. Other paths are forgotten, because `ModelCheckpoint` would delete the files.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.ckpt_path:
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ModelCheckpoint):
                _forget_other_files(callback)
        best = find(trainer, ModelCheckpoint)
        if best is None or best.best_model_score is not None:
            return
        content = read(trainer.ckpt_path)
        state = content.get("callbacks", {}).get(best.state_key, {})
        score = state.get("best_model_score")
        source = Path(trainer.ckpt_path).parent / Path(str(state.get("best_model_path"))).name
        if not isinstance(score, Tensor) or not source.is_file():
            best.best_model_path = ""  # there is no best checkpoint, so the first validation saves one
            return
        read(source)
        path = Path(str(best.dirpath)) / "best.ckpt"
        if trainer.is_global_zero and not (path.exists() and path.samefile(source)):  # the run folder was moved
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, path)
        best.best_model_path = best.kth_best_model_path = str(path)
        best.best_model_score = best.kth_value = score
        best.best_k_models = {str(path): score}


def _forget_other_files(callback: ModelCheckpoint) -> None:
    """Reset the state of a callback, restored from a checkpoint, if it names files outside the callback's folder."""
    paths = [callback.best_model_path, callback.kth_best_model_path, callback.last_model_path, *callback.best_k_models]
    if any(path and os.path.dirname(path) != callback.dirpath for path in paths):
        callback.best_model_path = callback.kth_best_model_path = callback.last_model_path = ""
        callback.best_model_score = None
        callback.best_k_models = {}


class ValidateAtEnd(Callback):
    """A callback that validates at the end of runs limited by steps or epochs, and after every epoch if configured.

    On its own, Lightning validates at the end of a run only if the run is limited by time, and assumes that all epochs
    have the same length.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.val_check_interval == 1.0 and trainer.check_val_every_n_epoch:
            trainer.val_check_batch = math.inf  # Lightning sets it to the number of batches in the first epoch

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        epochs = trainer.max_epochs or -1
        is_last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch  # epochs may differ in length
        last_batch = is_last and 0 < epochs <= trainer.current_epoch + 1
        if last_batch or 0 < trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True


class FreezeBackbone(Callback):
    """A callback that trains only the head during the first part of a run.

    This prevents a newly initialised head from distorting the pretrained layers (Kumar et al., 2022, "Fine-tuning can
    distort pretrained features and underperform out-of-distribution", arXiv:2202.10054). Gradients of frozen layers are
    dropped before each step; `requires_grad=False` does not work, because distributed ranks decide at the start which
    gradients they exchange. Batch norms in frozen layers keep their statistics.

    Args:
        fraction: fraction of the run during which only the head is trained; 0 disables freezing.
    """

    def __init__(self, fraction: BelowOne = 0.1) -> None:
        self.fraction = fraction
        self._frozen: list[nn.Module] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        recognizer = pl_module.recognizer
        self._frozen = [m for layer in layers(recognizer.net, recognizer.num_classes)[:-1] for m in layer.modules]
        if self.fraction:
            rank_zero_only(log.info)(f"training only the head for the first {self.fraction:.0%} of the run")

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
            layer.zero_grad()  # sets gradients to None, so that momentum and weight decay do not apply


def find(trainer: Trainer, kind: type[Kind]) -> Kind | None:
    """Return the trainer's first callback of the given type, or None."""
    return next((callback for callback in trainer.callbacks if isinstance(callback, kind)), None)  # type: ignore[attr-defined]
