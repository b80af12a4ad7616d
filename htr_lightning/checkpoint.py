"""Read, check, load and write checkpoints: single files of plain data from which recognizers are rebuilt.

The description in a checkpoint (config, data, commit, versions) is composed in card.py.
"""

import os
import pickle
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor
from torch.nn.modules import module

from htr_lightning import torch_file
from htr_lightning.decoder.language import Language
from htr_lightning.errors import InputError, first_line
from htr_lightning.metrics.calibration import check_calibration
from htr_lightning.model.base import Recognizer
from htr_lightning.output import check_checkpoint
from htr_lightning.parameters import check_parameters
from htr_lightning.pretrained import is_exported, locate
from htr_lightning.slots import FORMAT, check_card, check_config, construct

TRAINING = ("optimizer", "scheduler", "layer_decay", "source")  # model config keys not needed for transcription
DTYPES = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64}  # of weights
LEVELS = 256  # of the log-probabilities of a compressed language model
INDEXED = ("log_probs", "backoffs")
SPARE = 1 << 26  # bytes that a network may hold in addition to its weights, such as tables of position encodings


def read(path: str | Path, expected: int = FORMAT) -> dict[str, Any]:
    """Read the content of a checkpoint (plain data and tensors) without executing any code.

    Args:
        path: path to the checkpoint.
        expected: format that the checkpoint must have.

    Raises:
        InputError: if the file is missing, is not a checkpoint, contains pickled objects, or has another format.
    """
    path = locate(path)
    check_checkpoint(path)
    if is_exported(str(path)):
        raise InputError(f"{path}: has been exported; use the checkpoint that it was made from")
    try:
        content = torch_file.load(path)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: is not a checkpoint, or contains pickled objects, which are not loaded since they can run code; "
            "use a checkpoint written by htr_lightning"
        ) from None
    except Exception as error:  # the unpickler can raise any exception on corrupted bytes
        raise InputError(
            f"{path}: is not a checkpoint or is corrupted ({first_line(error)}); use a checkpoint written by train.py"
        ) from None
    check_card(content.get("htr") if isinstance(content, dict) else None, str(path), expected)
    weights = content.get("state_dict")
    if not isinstance(weights, dict) or not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise InputError(f"{path}: contains no weights; use a checkpoint written by train.py")
    _decompress(content, path)
    for name, weight in weights.items():
        if weight.dtype not in DTYPES:
            raise InputError(f"{path}: unsupported weights ({name} has the type {weight.dtype}); use a checkpoint "
                             "written by train.py")  # fmt: skip
        if not torch.isfinite(weight).all():
            raise InputError(f"{path}: {name} contains values that are not finite, so the training has diverged; use "
                             "an earlier checkpoint, or train again with a lower optimizer.lr")  # fmt: skip
    return content


def compress(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a checkpoint with its weight matrices as 8-bit integers, for transcription and fine-tuning.

    Each row of a matrix (a class, a unit or an output channel) has a scale of its own, so that no weight changes by
    more than 1/254 of the largest in its row. The result is a quarter of the size and is read by `read`. Vectors, such
    as biases, are not changed, and the state of training is left out. The log-probabilities of a language model are
    replaced by 8-bit indices of `LEVELS` levels.
    """
    weights, scales = dict(content["state_dict"]), {}
    for name, weight in weights.items():
        if weight.is_floating_point() and weight.ndim > 1:
            largest = weight.float().abs().amax(tuple(range(1, weight.ndim)), keepdim=True)
            scales[name] = largest.clamp(min=torch.finfo(torch.float32).tiny) / 127
            weights[name] = (weight.float() / scales[name]).round().to(torch.int8)
    kept: dict[str, Any] = {key: content[key] for key in ("htr", "parts", "language") if key in content}
    if ngram := content.get("language", {}).get("ngram"):
        ngram = ngram | {key: _indexed(ngram[key]) for key in INDEXED}
        kept["language"] = content["language"] | {"ngram": ngram}
    return kept | {"state_dict": weights, "scales": scales}


def _indexed(values: Tensor) -> dict[str, Tensor]:
    """Replace values by indices of levels that are equally frequent, so that the extremes are exact."""
    values = values.float()
    ordered = values.sort().values
    levels = ordered[torch.linspace(0, len(ordered) - 1, LEVELS).round().long()]
    return {"levels": levels, "indices": torch.bucketize(values, (levels[1:] + levels[:-1]) / 2).to(torch.uint8)}


def _decompress(content: dict[str, Any], path: Path) -> None:
    """Replace the weights and the language model of a compressed checkpoint by floats."""
    weights, scales = content["state_dict"], content.pop("scales", {})
    language = content.get("language")
    ngram: Any = language.get("ngram") if isinstance(language, dict) else None
    try:
        for key, value in list(ngram.items()) if isinstance(ngram, dict) else ():
            if isinstance(value, dict):
                if value["levels"].ndim != 1 or value["indices"].ndim != 1:  # otherwise, the result may take terabytes
                    raise ValueError(f"{key}: levels of shape {tuple(value['levels'].shape)}")
                ngram[key] = value["levels"].float()[value["indices"].long()]
        for name, scale in scales.items():
            rows = (len(weights[name]), *[1] * (weights[name].ndim - 1))
            if scale.shape != rows or not weights[name].is_contiguous():  # otherwise, a product may take terabytes
                raise ValueError(f"{name}: {tuple(scale.shape)} scales for {tuple(weights[name].shape)} weights")
            weights[name] = weights[name] * scale.float()
    except Exception as error:  # the file may contain anything in place of tensors
        raise InputError(f"{path}: invalid compression ({error}); download the checkpoint again") from None


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
    check_model(content, str(path), allow)
    with _matching(path):
        recognizer = _build(content)
        recognizer.load_state_dict(content["state_dict"])
        if "language" in content:  # added by `htr tune-decoder`
            recognizer = recognizer.with_language(Language.from_plain(content["language"]))
        recognizer.calibration = check_calibration(card.get("calibration", (1.0, 0.0)))  # added by `htr calibrate`
    recognizer.card = card
    return recognizer.eval()


def check_model(content: dict[str, Any], path: str, allow: Sequence[str] = ()) -> None:
    """Check that the model of a checkpoint is safe to build and as large as its weights, without allocating it.

    Args:
        content: content of the checkpoint, see `read`.
        path: path to the checkpoint, used in messages.
        allow: packages besides htr_lightning whose classes the checkpoint may use.

    Raises:
        InputError: if the config is rejected by `check_config`, or describes another network than the weights.
    """
    check_config(content["htr"].get("model"), "model", path, allow)
    check_parts(content, path)
    with _matching(path):
        check_parameters({key: value for key, value in content["htr"]["model"].items() if key not in TRAINING}, "model")
    weights = content["state_dict"]
    with _matching(path), torch.device("meta"), _at_most(8 * len(weights) + 1000):
        sketch = _build(content)
        expected = {name: tuple(weight.shape) for name, weight in sketch.state_dict().items()}
        for name in expected | weights:
            found = tuple(weights[name].shape) if name in weights else None
            if expected.get(name) != found:
                raise ValueError(f"{name}: expected {expected.get(name)}, got {found}")
        held = sum(tensor.nbytes for tensor in (*sketch.parameters(), *sketch.buffers()))
        if held > 2 * sum(weight.nbytes for weight in weights.values()) + SPARE:
            raise ValueError("the network is larger than its weights")


def check_parts(content: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the parts of a checkpoint, from which `Recognizer.parts` is rebuilt.

    Raises:
        InputError: if a part would replace a setting, such as the source of a pretrained model.
    """
    parts = content.get("parts", {})
    taken = {"alphabet", *TRAINING, *content["htr"].get("model", {})}
    if not isinstance(parts, dict) or not taken.isdisjoint(parts):
        raise InputError(f"{path}: invalid parts; use a checkpoint written by train.py")
    return parts


def _build(content: dict[str, Any]) -> Recognizer:
    """Build the recognizer of a checkpoint, without its weights; its config must have passed `check_config`."""
    card = content["htr"]
    made = construct({key: value for key, value in card["model"].items() if key not in TRAINING})
    recognizer: Recognizer = made(alphabet=card["alphabet"], **content.get("parts", {}))
    return recognizer


@contextmanager
def _matching(path: str | Path) -> Iterator[None]:
    """Turn any error into an InputError that names a checkpoint."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}; use a checkpoint written by train.py") from None
    except Exception as error:  # constructors can raise any exception on unsuitable settings
        raise InputError(
            f"{path}: config and weights do not match ({first_line(error)}); train the model again"
        ) from None


@contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Raise ValueError as soon as more weights and modules than `count` are created within the context."""
    thread, left = threading.get_ident(), count

    def register(*_: Any) -> None:
        nonlocal left
        if threading.get_ident() == thread:  # the hooks see the modules of every thread
            left -= 1
            if left < 0:
                raise ValueError("the network has more layers than its weights")

    hooks = [
        module.register_module_parameter_registration_hook(register),
        module.register_module_module_registration_hook(register),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def with_tensors(plain: Any) -> Any:
    """Replace the arrays in nested plain data with tensors, since a checkpoint cannot contain arrays."""
    if isinstance(plain, dict):
        return {key: with_tensors(value) for key, value in plain.items()}
    return torch.from_numpy(plain) if isinstance(plain, ndarray) else plain


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
        reason = error.strerror if isinstance(error, OSError) else first_line(error)
        kept = "; the previous checkpoint is kept" if path.exists() else ""
        raise InputError(
            f"{path}: cannot write the checkpoint ({reason}{kept}); free up disk space or choose another folder"
        ) from None
