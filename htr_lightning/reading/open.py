"""Load a checkpoint, several as an ensemble, or an exported recognizer, for transcription.

Imports torch only to load checkpoints.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from htr_lightning.errors import InputError, check_integer
from htr_lightning.export import runtime
from htr_lightning.metrics.calibration import check_calibration
from htr_lightning.pretrained import DEFAULT, is_exported, locate
from htr_lightning.reading.reader import Reader
from htr_lightning.transcription import Transcriber

if TYPE_CHECKING:
    from htr_lightning.model.base import Recognizer


def load(
    *checkpoints: str | Path,
    device: str = "auto",
    greedy: bool = False,
    views: int = 1,
    calibration: Sequence[float] | None = None,
    weights: Sequence[float] | None = None,
) -> Reader:
    """Load a checkpoint, or several as an ensemble.

    Args:
        checkpoints: paths to one or more checkpoints or to an exported file, or names of recognizers that ship with the
            package; none for `pretrained.DEFAULT`.
        device: "cpu", "cuda", "cuda:N", or "auto" for a GPU if one is available.
        greedy: whether to decode without beam search, language model or lexicon.
        views: number of slightly modified views of each line, for test-time augmentation.
        calibration: slope and bias that calibrate the confidences of lines, or of lines, words and characters,
            replacing those in the checkpoint.
        weights: weights of the checkpoints in an ensemble; None for equal weights.

    Raises:
        InputError: if a checkpoint cannot be loaded or an argument is invalid.
    """
    names = [str(path) for path in checkpoints or [DEFAULT]]
    return Reader(load_all(names, device, greedy, views, calibration, weights))


def load_one(path: str, device: str = "auto", greedy: bool = False) -> "Recognizer":
    """Load the recognizer in a checkpoint onto a device; see `load`.

    Raises:
        InputError: if the checkpoint cannot be loaded or the device is not available.
    """
    try:
        import torch
    except ImportError:
        raise InputError(
            f"{path}: reading checkpoints needs PyTorch; install htr-lightning[train], or use a file written by "
            "htr export"
        ) from None
    from htr_lightning import checkpoint

    try:
        target = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        torch.zeros(1, device=target).item()  # fails if the device is not available, or is "meta"
    except (RuntimeError, AssertionError, TypeError, ValueError):
        raise InputError(f"device={device}: not available; use auto, cpu, or cuda:N for an NVIDIA GPU") from None
    recognizer = checkpoint.load(path)
    return (recognizer.greedy() if greedy else recognizer).to(target)


def load_all(
    paths: Sequence[str],
    device: str = "auto",
    greedy: bool = False,
    views: int = 1,
    calibration: Sequence[float] | None = None,
    weights: Sequence[float] | None = None,
    exported: bool = True,
) -> Transcriber:
    """Load the recognizer in one checkpoint or exported file, or an ensemble of checkpoints or views; see `load`.

    A recognizer that ships with the package is read from its exported file, which gives the same text and loads in a
    tenth of the time, unless `exported` is false or the device is a GPU.

    Raises:
        InputError: if a checkpoint cannot be loaded, the checkpoints cannot be combined, or an argument is invalid.
    """
    check_integer("views", views, 1)
    if weights is not None:
        _check_weights(weights, paths)
    recognizer: Transcriber
    if len(paths) > 1 or views > 1:
        for path in filter(is_exported, paths):
            raise InputError(f"{path}: is an exported recognizer, which cannot be combined; use checkpoints (*.ckpt)")
        members = [load_one(path, device, greedy) for path in paths]
        from htr_lightning.reading.voting import Ensemble  # imports torch, as checkpoints do

        recognizer = Ensemble(members, paths, views, single=greedy, weights=weights)
    elif is_exported(paths[0]) or (exported and _ships(paths[0]) and device in ("auto", "cpu")):
        recognizer = runtime.load(paths[0], device, greedy)
    else:
        recognizer = load_one(paths[0], device, greedy)
    if calibration is not None:
        try:
            recognizer.calibration = check_calibration(calibration)
        except (ValueError, TypeError):
            raise InputError(
                f"calibration={_joined(calibration)}: expected SLOPE,BIAS of lines, or of lines, words and characters, "
                "as printed by htr calibrate"
            ) from None
    return recognizer


def _ships(path: str) -> bool:
    return locate(path, ".onnx") != Path(path)


def _check_weights(weights: Sequence[float], paths: Sequence[str]) -> None:
    if len(paths) == 1:
        raise InputError(f"weights={_joined(weights)}: only one checkpoint is loaded ({paths[0]}); remove the weights, "
                         "or add checkpoints")  # fmt: skip
    try:
        valid = len(weights) == len(paths) and all(0 <= one < math.inf for one in weights) and any(weights)
    except TypeError:
        valid = False
    if not valid:
        raise InputError(
            f"weights={_joined(weights)}: expected one number for each of the {len(paths)} checkpoints, none negative "
            "and at least one positive, as printed by htr calibrate"
        )


def _joined(numbers: object) -> str:
    several = numbers if isinstance(numbers, list | tuple) else [numbers]
    return ",".join(f"{one:g}" if isinstance(one, int | float) else str(one) for one in several)
