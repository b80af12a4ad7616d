"""Check the settings of a run before it starts."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Interval
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger

from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.errors import InputError
from htr_lightning.parameters import Seed, Weight, check_parameters, check_value, find_target
from htr_lightning.training.compilation import backend

SETTINGS: dict[str, Any] = {
    "seed": Seed,
    "threads": Annotated[int, Interval(ge=1, le=1024)],
    "name": str,
    "start": Path | None,
    "resume": Path | None,
    "teacher": Path | None,
    "teacher_weight": Weight | None,  # htr fine-tune has no teacher
    "keep_alphabet": bool,
    "compile": bool | str,
    "find": Literal["lr", "batch"] | None,
    "callbacks": Mapping[str, Callback],
    "logger": Mapping[str, Logger],
    "trainer": Trainer,
    "model": Callable[..., Any],
    "data": LineDataModule,
    "replay": LineDataModule | None,
}


def check_settings(settings: dict[str, Any]) -> None:
    """Check the type and range of each setting in a config.

    Args:
        settings: resolved config of train.py.

    Raises:
        InputError: if a setting has the wrong type or is out of range, or the accelerator, the package of a logger or
            the backend that compiles is not available.
    """
    for key, hint in SETTINGS.items():
        check_value(settings.get(key), hint, key)
    for group, part in settings.items():
        check_parameters(part, group)
    backend(settings.get("compile", False))
    for name, logger in settings["logger"].items():
        package = getattr(find_target(logger["_target_"]), "package", None)  # of the tracker, which is an extra
        if package and find_spec(package) is None:
            raise InputError(f"logger={name}: {package} is not installed; install htr-lightning[{package}]")
    best = settings["callbacks"].get("checkpoint")
    if best and best.get("monitor") is None:
        raise InputError("callbacks.checkpoint.monitor=null: the best checkpoint needs a metric; use val/cer")
    accelerator = settings["trainer"]["accelerator"]
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise InputError(f"trainer.accelerator={accelerator}: PyTorch finds no GPU; fix the driver or use trainer=cpu")
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise InputError("trainer.accelerator=mps: PyTorch finds no Apple GPU; use trainer=cpu")


def check_trainer(trainer: Trainer, settings: Any) -> ModelCheckpoint:
    """Check that a trainer will train, validate and save the best checkpoint; return the callback that saves it.

    Args:
        trainer: trainer to check.
        settings: config of the trainer, used in messages.

    Raises:
        InputError: if the training, the validation or the checkpoint callback is disabled.
    """
    if settings.get("fast_dev_run"):
        raise InputError(f"trainer.fast_dev_run={settings.fast_dev_run}: saves no checkpoint; use trainer=debug")
    if settings.get("overfit_batches"):
        raise InputError(f"trainer.overfit_batches={settings.overfit_batches}: not supported; use data.subset=[0,N] to "
                         "train on N lines")  # fmt: skip
    for key in ("max_epochs", "max_steps", "limit_train_batches"):
        if getattr(trainer, key) == 0:
            raise InputError(f"trainer.{key}={settings[key]}: nothing would be trained; use a positive number")
    if not trainer.limit_val_batches or settings.get("val_check_interval") == 0:
        key = "val_check_interval" if trainer.limit_val_batches else "limit_val_batches"
        raise InputError(f"trainer.{key}={settings[key]}: without validation there is no best checkpoint; remove this "
                         "override")  # fmt: skip
    best = trainer.checkpoint_callback
    if not isinstance(best, ModelCheckpoint) or best.monitor is None or best.save_top_k == 0:
        raise InputError("callbacks.checkpoint is missing: it saves the best checkpoint of a run; remove the override "
                         "that disables it")  # fmt: skip
    return best
