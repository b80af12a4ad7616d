"""Check and restore the state of an interrupted run that a checkpoint contains in addition to its recognizer."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from traceback import walk_tb
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from htr_lightning import checkpoint
from htr_lightning.config import fast_precision, on_cpu
from htr_lightning.errors import InputError, first_line, printable
from htr_lightning.training.run_log import log

STATE = {"optimizer_states": list, "lr_schedulers": list, "loops": dict, "callbacks": dict}
UNLEARNED = (  # settings that change neither what is learned nor in which order
    "name", "run_dir", "resume", "start", "keep_alphabet", "threads", "find", "logger*", "callbacks.*folder",
    "callbacks.*dirpath", "callbacks.last.minutes", "callbacks.transcriptions.*", "*data.workers", "*data.cache_mb",
    "replay.workers", "replay.cache_mb", "trainer.default_root_dir", "trainer.logger*", "trainer.callbacks*",
    "trainer.log_every_n_steps", "trainer.enable_*", "trainer.profiler", "trainer.num_sanity_val_steps",
    "data.seed", "data.preprocess*", "data.normalizer*", "data.augment*", "data.replay", "data.replay.*",
    "replay.preprocess*", "replay.normalizer*",
)  # fmt: skip
RESTORING = "lightning.pytorch.trainer.connectors.checkpoint_connector"
STEPPING = ("torch.optim.", "htr_lightning.optim", "htr_lightning.schedule", __name__)


def check_state(path: str) -> int:
    """Return the number of steps of the run in a checkpoint.

    Raises:
        InputError: if the checkpoint does not contain the state of a run, for example if only weights were saved.
    """
    content = checkpoint.read(path)
    for key, kind in STATE.items():
        if not isinstance(content.get(key), kind) or (key in ("optimizer_states", "loops") and not content[key]):
            raise InputError(
                f"{path}: contains no {key}, so its run cannot be resumed; begin a new run with start={path}"
            )
    return content["global_step"] if isinstance(content.get("global_step"), int) else 0


def resumed_precision(card: Mapping[str, Any], trainer: DictConfig) -> str:
    """Return the precision in which a run goes on: that of the resumed run, unless one is given or this is impossible.

    A precision that this machine is slow at, or does not have, is reported.

    Args:
        card: card of the checkpoint.
        trainer: config of the trainer of the new run.
    """
    is_default = OmegaConf.is_interpolation(trainer, "precision")  # otherwise, a recipe, group or override sets it
    new, old = trainer.precision, card["training"].get("trainer", {}).get("precision")
    if old is None or old == new or not is_default:
        return new
    if old == "16-mixed" and on_cpu(trainer.accelerator, True, False):
        rank_zero_only(log.warning)(f"resume: a CPU cannot compute in {old} as the run did; it goes on in {new}")
        return new
    slow = "bf16" in str(old) and "bf16" not in fast_precision(trainer.accelerator)
    remedy = "; this machine emulates it: trainer.precision=32-true is faster" if slow else ""
    rank_zero_only(log.info)(f"resume: computes in {old} like the resumed run, not in {new}{remedy}")
    return old


class Position(NamedTuple):
    """The place in a run from which it goes on: the epoch, and the number of its batches that are done."""

    epoch: int
    batch: int


def position(loops: Mapping[str, Any]) -> Position:
    """Return how far a run was when a checkpoint was saved.

    Args:
        loops: state of Lightning's `fit_loop` in the checkpoint, saved at any time after a step.
    """
    epochs, progress = loops["epoch_progress"]["current"], loops["epoch_loop.batch_progress"]
    within = epochs["started"] > epochs["processed"]  # else, the epoch has been counted, even if it was cut short
    epoch, done = epochs["processed"] - (not within), progress["current"]
    # at the start of a batch, `is_last_batch` refers to this batch rather than to the one before it
    is_complete = progress["is_last_batch"] and done["ready"] == done["processed"]
    return Position(epoch + 1, 0) if is_complete else Position(epoch, done["processed"])


def rewind(loops: dict[str, Any], steps: int) -> None:
    """Change the state of Lightning's `fit_loop` in a checkpoint to that between two batches.

    Lightning itself restores a state only if it was saved at certain moments: a checkpoint saved before the last batch
    of an epoch would otherwise go on with the next epoch, for example.

    Args:
        loops: state of the loop.
        steps: number of optimizer steps done.
    """
    epoch, batch = position(loops)
    total = loops["epoch_loop.batch_progress"]["total"]["processed"]
    begun = epoch + (batch > 0)
    epochs = {"ready": begun, "started": begun, "processed": epoch, "completed": epoch}
    loops["epoch_progress"] = {"total": epochs, "current": dict(epochs)}
    loops["epoch_loop.batch_progress"] = {
        "total": dict.fromkeys(epochs, total), "current": dict.fromkeys(epochs, batch), "is_last_batch": False
    }  # fmt: skip
    for part in loops["epoch_loop.val_loop.batch_progress"].values():
        if isinstance(part, dict):
            part.update(dict.fromkeys(part, part["completed"]))  # a validation is not resumed within
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = steps


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the settings and data that differ between a run and the run that it resumes, e.g. "seed 0 -> 1".

    Args:
        old: card of the checkpoint.
        new: card of the recognizer that is about to be trained.
    """
    before, after = (
        _flat({**card["training"], "model": card["model"]} | _described(card["data"])) for card in (old, new)
    )
    return [
        f"{key} {_shown(before.get(key))} -> {_shown(after.get(key))}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not any(fnmatch(key, pattern) for pattern in UNLEARNED)
    ]


def _described(data: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{split} lines": f"{its['lines']} ({its['sha256'][:8]})" for split, its in data.items()}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one dict whose keys are joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _shown(value: Any) -> str:
    return "null" if value is None else printable(str(value))[:60]


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
