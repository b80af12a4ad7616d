"""Check the state of an interrupted run that a checkpoint contains in addition to its recognizer."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

import torch
from torch import Tensor

from htr_lightning import checkpoint
from htr_lightning.errors import InputError, first_line

STATE = {"optimizer_states": list, "lr_schedulers": list, "loops": dict, "callbacks": dict}
RESTORING = "lightning.pytorch.trainer.connectors.checkpoint_connector"
STEPPING = ("torch.optim.", "htr_lightning.optim", "htr_lightning.schedule", __name__)


def check_state(path: str) -> None:
    """Raise InputError if a checkpoint does not contain the state of a run, for example if only weights were saved."""
    content = checkpoint.read(path)
    for key, kind in STATE.items():
        if not isinstance(content.get(key), kind) or (key in ("optimizer_states", "loops") and not content[key]):
            raise InputError(
                f"{path}: contains no {key}, so its run cannot be resumed; begin a new run with start={path}"
            )


def check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Check a restored optimizer; if fused, it would access memory outside a tensor that is too small.

    Raises:
        ValueError: if a tensor is neither a number nor as large as its weight, or a setting is not a finite number.
    """
    for group in optimizer.param_groups:
        for name, default in optimizer.defaults.items():
            value = group.get(name)
            if isinstance(default, float) and not (isinstance(value, float | int) and math.isfinite(value)):
                raise ValueError(f"{name}: expected a number, got {value!r}")
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape not in (weight.shape, ()):
                raise ValueError(f"{name}: expected {tuple(weight.shape)}, got {tuple(value.shape)}")
            if isinstance(value, Tensor) and not torch.isfinite(value).all():
                raise ValueError(f"{name} contains values that are not finite")


@contextmanager
def restoring(path: str | None) -> Iterator[None]:
    """Turn an error that is due to the state of a run in a checkpoint into an InputError that names the checkpoint.

    Lightning and PyTorch check little of this state, some of it only when the optimizer takes a step.

    Args:
        path: path to the checkpoint that is resumed, or None if the context resumes no run.
    """
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if path is None or not _is_due_to_state(error):
            raise
        raise InputError(
            f"{path}: the state of its run cannot be restored ({first_line(error)}); repeat the overrides of that "
            f"run, which are listed in .hydra/overrides.yaml in its run folder, or begin a new run with start={path}"
        ) from None


def _is_due_to_state(error: BaseException) -> bool:
    """Return whether an error was raised while the state was restored, or by an optimizer or a scheduler itself."""
    frames: list[Any] = [frame for frame, _ in walk_tb(error.__traceback__)]
    origins = [(frame.f_globals.get("__name__", ""), frame.f_code.co_name.lstrip("_")) for frame in frames]
    return origins[-1][0].startswith(STEPPING) or any(
        module == RESTORING and function.startswith(("restore", "resume")) for module, function in origins
    )
