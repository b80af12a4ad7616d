"""One file of plain data from which a recognizer is built again: read, checked, loaded, written.

What a checkpoint says about itself (config, data, commit, versions) is put together in card.py.
"""

import os
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from numpy import ndarray

from htr_lightning.card import FORMAT, TRAINING
from htr_lightning.decoder.language import Language
from htr_lightning.errors import InputError
from htr_lightning.metrics.calibration import check_platt_scaling
from htr_lightning.model.base import Recognizer
from htr_lightning.version import __version__

PACKAGE = "htr_lightning"


def read(path: str | Path, expected: int = FORMAT) -> dict[str, Any]:
    """The content of a checkpoint: plain data and tensors, nothing is executed.

    Args:
        path: of the file.
        expected: its format.

    Raises:
        InputError: the file is missing or not a checkpoint, holds pickled objects, or has another format.
    """
    path = Path(path)
    try:
        if zipfile.is_zipfile(path):  # torch does not look at the checksums that it wrote
            with zipfile.ZipFile(path) as archive:
                if (part := archive.testzip()) is not None:
                    raise ValueError(f"the checksum of {part} does not match")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: what cannot be read is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint; a run keeps its own in checkpoints/best.ckpt") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name the file in it, such as {path}/checkpoints/best.ckpt") from None
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: holds pickled objects or is not a checkpoint; it is not opened, since unpickling runs code. "
            "Use a file that htr_lightning wrote"
        ) from None
    except Exception as error:  # of damaged bytes the unpickler raises anything: IndexError, struct.error, ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a checkpoint, or damaged ({reason}); copy it again") from None
    card = content.get("htr") if isinstance(content, dict) else None
    if not isinstance(card, dict) or not isinstance(card.get("format"), int):
        raise InputError(f"{path}: not written by htr_lightning (no format number); train one with train.py")
    if card["format"] > FORMAT:
        raise InputError(
            f"{path}: format {card['format']}, but this htr_lightning {__version__} reads up to {FORMAT}; upgrade it"
        )
    if card["format"] != expected:
        remedy = (
            f"convert it with htr upgrade {path} --out NEW.ckpt" if card["format"] < expected else "use it as it is"
        )
        raise InputError(f"{path}: has format {card['format']} rather than {expected}; {remedy}")
    if not isinstance(alphabet := card.get("alphabet"), list) or not all(isinstance(c, str) for c in alphabet):
        raise InputError(f"{path}: its alphabet is not a list of characters; it is not loaded")
    return content


def load(path: str | Path, allow: Sequence[str] = ()) -> Recognizer:
    """The recognizer of a checkpoint, ready to read.

    Args:
        path: a checkpoint of a run.
        allow: packages besides htr_lightning whose classes the checkpoint may name.

    Raises:
        InputError: see `read`; or the checkpoint names a class outside the allow-list; or its weights do not fit.
    """
    content = read(path)
    card = content["htr"]
    check_targets(card.get("model"), allow, str(path))
    try:
        made = construct({key: value for key, value in card["model"].items() if key not in TRAINING})
        recognizer: Recognizer = made(alphabet=card["alphabet"], **content.get("parts", {}))
        recognizer.load_state_dict(content["state_dict"])
        if "language" in content:  # `htr tune-decoder` put it there
            recognizer = recognizer.with_language(Language.from_plain(content["language"]))
        recognizer.calibration = check_platt_scaling(card.get("calibration", (1.0, 0.0)))  # and `htr calibrate` that
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path}: its parts do not fit together ({str(error).splitlines()[0]}); train it again"
        ) from None
    recognizer.card = card
    return recognizer.eval()


def construct(config: Any) -> Any:
    """The object that plain data describe, inner ones first; see `check_targets`.

    A dict with a `_target_` is a call of that class with the other keys as arguments, with `_partial_` one that waits
    for more, as in `hydra.utils.instantiate` with `_convert_="all"`.
    """
    if isinstance(config, list | tuple):
        return [construct(value) for value in config]
    if not isinstance(config, dict):
        return config
    values = {key: construct(value) for key, value in config.items() if key not in ("_target_", "_partial_")}
    if "_target_" not in config:
        return values
    made = _find(config["_target_"])
    return partial(made, **values) if config.get("_partial_") else made(**values)


def _find(target: str) -> Any:
    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)


def check_targets(config: Any, allow: Sequence[str], where: str) -> None:
    """Raises InputError if a nested config names a class that `check_target` refuses."""
    for target in targets(config):
        check_target(target, allow, where)


def with_tensors(plain: Any) -> Any:
    """Nested plain data whose arrays are tensors, which is what a checkpoint may hold."""
    if isinstance(plain, dict):
        return {key: with_tensors(value) for key, value in plain.items()}
    return torch.from_numpy(plain) if isinstance(plain, ndarray) else plain


def targets(config: Any) -> Iterable[str]:
    """Every `_target_` in a nested config, and every string that OmegaConf would resolve, since that may make one."""
    if isinstance(config, dict):
        if "_target_" in config:
            yield config["_target_"]
        for value in config.values():
            yield from targets(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from targets(value)
    elif isinstance(config, str) and "${" in config:
        yield config


def check_target(target: Any, allow: Sequence[str], where: str) -> None:
    """Refuse a `_target_` that is not a class defined in this package or an allowed one.

    The prefix alone would not do: `htr_lightning.checkpoint.os.system` begins with it too. So the name must lead to
    a class whose `__module__` says that it was defined there; functions do things when they are called. Only modules of
    allowed packages are imported.

    Raises:
        InputError: it is refused.
    """
    refusal = InputError(f"{where}: names '{target}', which is not a class of {PACKAGE}; it is not loaded: it could be "
                         "any code. If it is your own, pass allow=[...]")  # fmt: skip
    packages = (PACKAGE, *allow)
    module_name, _, class_name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    if module_name.split(".")[0] not in packages:
        raise refusal
    try:
        found = getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError):
        raise refusal from None
    if not isinstance(found, type) or found.__module__.split(".")[0] not in packages:
        raise refusal


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the old file and renames, so that the previous checkpoint survives a full disk or a kill."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Raises InputError if the folder cannot be written or the disk is full."""
        path = Path(path)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(beside, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
            if beside.exists():
                beside.unlink()
            reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
            kept = "; the previous one is kept" if path.exists() else ""
            raise InputError(
                f"{path}: checkpoint not written ({reason}){kept}. Free space or choose another run folder"
            ) from None
