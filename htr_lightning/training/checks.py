"""Check the settings of a run before it starts."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from htr_lightning.errors import InputError, check_integer

TRAINER_MINIMUM = {
    "num_nodes": 1,
    "val_check_interval": 0,
    "check_val_every_n_epoch": 1,
    "log_every_n_steps": 0,
    "accumulate_grad_batches": 1,
    "num_sanity_val_steps": -1,
    "reload_dataloaders_every_n_epochs": 0,
    "min_epochs": 0,
    "min_steps": 0,
    "max_epochs": -1,
    "max_steps": -1,
}


def check_settings(settings: dict[str, Any]) -> None:
    """Check the seed, the number of threads, and the type of each argument in a config.

    Args:
        settings: resolved config of train.py.

    Raises:
        InputError: if a value has the wrong type or is out of range.
    """
    check_integer("seed", settings["seed"], 0, 2**32 - 1)
    check_integer("threads", settings["threads"], 1, 1024)
    accelerator = settings["trainer"]["accelerator"]
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise InputError(f"trainer.accelerator={accelerator}: PyTorch finds no GPU; fix the driver or use trainer=cpu")
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise InputError("trainer.accelerator=mps: PyTorch finds no Apple GPU; use trainer=cpu")
    for key, minimum in TRAINER_MINIMUM.items():
        value = settings["trainer"][key]
        if value is not None and not isinstance(value, float):
            check_integer(f"trainer.{key}", value, minimum)
    for key in ("start", "resume"):
        if not isinstance(path := settings.get(key), str | NoneType):
            raise InputError(f"{key}={path}: expected the path to a checkpoint")
    for group, part in settings.items():
        check_types(part, group)


def check_types(config: Any, path: str) -> None:
    """Check the arguments in a nested config against the annotations of the classes and functions that receive them.

    Args:
        config: section of a config, as plain data.
        path: key of the section, used in messages.

    Raises:
        InputError: if an argument has the wrong type.
    """
    if isinstance(config, list):
        for index, value in enumerate(config):
            check_types(value, f"{path}.{index}")
    elif isinstance(config, dict):
        hints = _hints(config["_target_"]) if "_target_" in config else {}
        for key, value in config.items():
            if key in hints and not _fits(value, hints[key]):
                raise InputError(f"{path}.{key}={'null' if value is None else value}: expected {_name(hints[key])}")
            check_types(value, f"{path}.{key}")


def _hints(target: str) -> dict[str, Any]:
    """Return the annotations of the parameters of a class or function, including any passed on through `**kwargs`."""
    module, _, name = target.rpartition(".")
    made = getattr(import_module(module), name)
    found: dict[str, Any] = {}
    for owner in made.__mro__ if inspect.isclass(made) else [made]:
        function = owner.__init__ if inspect.isclass(owner) else owner
        try:
            hints = get_type_hints(function)
        except (NameError, TypeError, AttributeError):
            hints = {}  # an annotation that cannot be evaluated
        found = hints | found
        parameters = inspect.signature(function).parameters.values() if callable(function) else ()
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value fits an annotation; doubtful cases count as fitting."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is Literal:
        return value in arguments
    if isinstance(value, dict | list) or hint is Any or isinstance(hint, TypeVar | str):
        return True  # built by another target, or checked by the class itself
    kind = origin or hint
    if not isinstance(kind, type):
        return True
    if value is None:
        return kind in (NoneType, object)
    if isinstance(value, bool):
        return kind in (bool, object)
    if isinstance(value, str):
        return kind in (str, Path, timedelta, object) or (kind in (Iterable, Sequence) and arguments == (str,))
    return kind is object or ((kind is float or isinstance(value, int)) and kind in (int, float))


def _name(hint: Any) -> str:
    """Describe an annotation in words."""
    words = {
        int: "an integer",
        float: "a number",
        bool: "true or false",
        str: "a string",
        NoneType: "null",
        Path: "a path",
    }
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(dict.fromkeys(_name(one) for one in get_args(hint)))
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    kind = get_origin(hint) or hint
    if kind in words:
        return words[kind]
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return "values by key, e.g. {a: 1, b: 2}"
    if isinstance(kind, type) and issubclass(kind, Iterable) and not issubclass(kind, Mapping | Iterator):
        return "a list"
    return f"a config for {kind.__name__}" if isinstance(kind, type) else "a config"


def check_trainer(trainer: Trainer, settings: Any) -> None:
    """Check that a trainer will train, validate and save the best checkpoint.

    Args:
        trainer: trainer to check.
        settings: config of the trainer, used in messages.

    Raises:
        InputError: if the training, the validation or the checkpoint callback is disabled.
    """
    if settings.fast_dev_run:
        raise InputError(f"trainer.fast_dev_run={settings.fast_dev_run}: saves no checkpoint; use trainer=debug")
    if settings.overfit_batches:
        raise InputError(f"trainer.overfit_batches={settings.overfit_batches}: not supported; use data.subset=[0,N] to "
                         "train on N lines")  # fmt: skip
    for key in ("max_epochs", "max_steps", "limit_train_batches"):
        if getattr(trainer, key) == 0:
            raise InputError(f"trainer.{key}={settings[key]}: nothing would be trained; use a positive number")
    if not trainer.limit_val_batches or settings.val_check_interval == 0:
        key = "val_check_interval" if trainer.limit_val_batches else "limit_val_batches"
        raise InputError(f"trainer.{key}={settings[key]}: without validation there is no best checkpoint; remove this "
                         "override")  # fmt: skip
    if not isinstance(best := trainer.checkpoint_callback, ModelCheckpoint) or best.monitor is None:
        raise InputError("callbacks.checkpoint is missing: it saves the best checkpoint of a run; remove the override "
                         "that disables it")  # fmt: skip
