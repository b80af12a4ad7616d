"""Read, check, load and write checkpoints: single files of plain data from which recognizers are rebuilt.

The description in a checkpoint (config, data, commit, versions) is composed in card.py.
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
from numpy import ndarray

from htr_lightning.decoder.language import Language
from htr_lightning.errors import InputError
from htr_lightning.metrics.calibration import check_platt_scaling
from htr_lightning.model.base import Recognizer
from htr_lightning.output import check_checkpoint
from htr_lightning.version import __version__

PACKAGE = "htr_lightning"
FORMAT = 2  # increased when code for the old format could misread the new format
TRAINING = ("optimizer", "scheduler", "layer_decay", "source")  # model config keys not needed for transcription


def read(path: str | Path, expected: int = FORMAT) -> dict[str, Any]:
    """Read the content of a checkpoint (plain data and tensors) without executing any code.

    Args:
        path: path to the checkpoint.
        expected: format that the checkpoint must have.

    Raises:
        InputError: if the file is missing, is not a checkpoint, contains pickled objects, or has another format.
    """
    path = Path(path)
    check_checkpoint(path)
    try:
        if zipfile.is_zipfile(path):  # torch does not verify the checksums it writes
            with zipfile.ZipFile(path) as archive:
                if (part := archive.testzip()) is not None:
                    raise ValueError(f"the checksum of {part} does not match")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about pickle protocols; unreadable files are rejected below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: is not a checkpoint, or contains pickled objects, which are not loaded since they can run code; "
            "use a checkpoint written by htr_lightning"
        ) from None
    except Exception as error:  # the unpickler can raise any exception on corrupted bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: is not a checkpoint or is corrupted ({reason}); download it again") from None
    card = content.get("htr") if isinstance(content, dict) else None
    if not isinstance(card, dict) or not isinstance(card.get("format"), int):
        raise InputError(
            f"{path}: not written by htr_lightning (no format number); use a checkpoint trained with train.py"
        )
    if card["format"] > FORMAT:
        raise InputError(
            f"{path}: unsupported format {card['format']} (htr_lightning {__version__} supports up to {FORMAT}); "
            "upgrade htr_lightning"
        )
    if card["format"] != expected:
        upgrade = f"convert it with htr upgrade {path} --out NEW.ckpt"
        remedy = upgrade if card["format"] < expected else "this checkpoint needs no conversion"
        raise InputError(f"{path}: expected format {expected}, got {card['format']}; {remedy}")
    if not isinstance(alphabet := card.get("alphabet"), list) or not all(isinstance(c, str) for c in alphabet):
        raise InputError(f"{path}: invalid alphabet (expected a list of characters); download the checkpoint again")
    return content


def load(path: str | Path, allow: Sequence[str] = ()) -> Recognizer:
    """Load the recognizer in a checkpoint, ready to transcribe.

    Args:
        path: path to the checkpoint.
        allow: packages besides htr_lightning whose classes the checkpoint may use.

    Raises:
        InputError: if the file cannot be read (see `read`), the checkpoint uses a class that is not allowed, or its
            weights do not fit the model.
    """
    content = read(path)
    card = content["htr"]
    check_targets(card.get("model"), allow, str(path))
    try:
        made = construct({key: value for key, value in card["model"].items() if key not in TRAINING})
        recognizer: Recognizer = made(alphabet=card["alphabet"], **content.get("parts", {}))
        recognizer.load_state_dict(content["state_dict"])
        if "language" in content:  # added by `htr tune-decoder`
            recognizer = recognizer.with_language(Language.from_plain(content["language"]))
        recognizer.calibration = check_platt_scaling(card.get("calibration", (1.0, 0.0)))  # added by `htr calibrate`
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path}: config and weights do not match ({str(error).splitlines()[0]}); train the model again"
        ) from None
    recognizer.card = card
    return recognizer.eval()


def construct(config: Any) -> Any:
    """Build the object described by plain data, inner objects first; the data must have passed `check_targets`.

    A dict with a `_target_` becomes a call to that class with the other keys as arguments, or a partial call if
    `_partial_` is true, as in `hydra.utils.instantiate` with `_convert_="all"`.
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
    """Raise InputError if a nested config names a class that `check_target` rejects."""
    for target in targets(config):
        check_target(target, allow, where)


def with_tensors(plain: Any) -> Any:
    """Replace the arrays in nested plain data with tensors, since a checkpoint cannot contain arrays."""
    if isinstance(plain, dict):
        return {key: with_tensors(value) for key, value in plain.items()}
    return torch.from_numpy(plain) if isinstance(plain, ndarray) else plain


def targets(config: Any) -> Iterable[str]:
    """Yield every `_target_` in a nested config, and every string that OmegaConf could resolve to one."""
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
    """Reject a `_target_` unless it is a class defined in this package or in an allowed package.

    Checking the prefix is not enough, because `htr_lightning.checkpoint.os.system` starts with the package name too.
    The name must resolve to a class whose `__module__` is in an allowed package; functions are rejected because calling
    one can have side effects. Only modules of allowed packages are imported.

    Raises:
        InputError: if the target is rejected.
    """
    refusal = InputError(f"{where}: uses '{target}', which is not a class in {PACKAGE} and could run arbitrary "
                         "code; if you trust its package, pass allow=[PACKAGE]")  # fmt: skip
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


def write(content: dict[str, Any], path: str | Path) -> None:
    """Write a checkpoint, keeping the previous one if the disk is full or the process is killed.

    The checkpoint is written to a temporary file, which then replaces the previous checkpoint.

    Raises:
        InputError: if the folder cannot be written to or the disk is full.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
        if beside.exists():
            beside.unlink()
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        kept = "; the previous checkpoint is kept" if path.exists() else ""
        raise InputError(
            f"{path}: cannot write the checkpoint ({reason}{kept}); free up disk space or choose another folder"
        ) from None
