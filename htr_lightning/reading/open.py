"""Load a checkpoint, or several as an ensemble, for transcription."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from htr_lightning import checkpoint
from htr_lightning.errors import InputError
from htr_lightning.metrics.calibration import check_platt_scaling
from htr_lightning.model.base import Recognizer
from htr_lightning.reading.reader import Reader
from htr_lightning.reading.voting import Ensemble


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
        checkpoints: paths to one or more checkpoints.
        device: "cpu", "cuda", "cuda:N", or "auto" for a GPU if one is available.
        greedy: whether to decode without beam search, language model and lexicon.
        views: number of slightly modified views of each line, for test-time augmentation.
        calibration: slope and bias of the confidences, replacing those of the checkpoint.
        weights: weights of the checkpoints in an ensemble; None for equal weights.

    Raises:
        InputError: if a checkpoint cannot be loaded or an argument is invalid.
    """
    return Reader(load_all([str(path) for path in checkpoints], device, greedy, views, calibration, weights))


def load_one(path: str, device: str = "auto", greedy: bool = False) -> Recognizer:
    """Load the recognizer of a checkpoint onto a device; see `load`.

    Raises:
        InputError: if the checkpoint cannot be loaded or the device is not available.
    """
    recognizer = checkpoint.load(path)
    if greedy:
        recognizer = recognizer.greedy()
    try:
        return recognizer.to(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    except (RuntimeError, AssertionError):
        raise InputError(f"--device {device}: not available; use auto, cpu, or cuda:N for an NVIDIA GPU") from None


def load_all(
    paths: Sequence[str],
    device: str = "auto",
    greedy: bool = False,
    views: int = 1,
    calibration: Sequence[float] | None = None,
    weights: Sequence[float] | None = None,
) -> Recognizer | Ensemble:
    """Load the recognizer of one checkpoint, or an ensemble of several checkpoints or views; see `load`.

    Raises:
        InputError: if a checkpoint cannot be loaded, the checkpoints cannot be combined, or an argument is invalid.
    """
    if weights is not None:
        _check_weights(weights, paths)
    recognizer: Recognizer | Ensemble
    if len(paths) > 1 or views > 1:
        members = [load_one(path, device, greedy) for path in paths]
        recognizer = Ensemble(members, paths, views, single=greedy, weights=weights)
    else:
        recognizer = load_one(paths[0], device, greedy)
    if calibration is not None:
        try:
            recognizer.calibration = check_platt_scaling(calibration)
        except ValueError:
            raise InputError(f"--calibration {_joined(calibration)}: expected SLOPE,BIAS as printed by htr calibrate"
                             ) from None  # fmt: skip
    return recognizer


def _check_weights(weights: Sequence[float], paths: Sequence[str]) -> None:
    if len(paths) == 1:
        raise InputError(f"--weights {_joined(weights)}: only one checkpoint is loaded ({paths[0]}); remove --weights, "
                         "or add checkpoints")  # fmt: skip
    if len(weights) != len(paths) or not all(0 <= one < math.inf for one in weights) or not any(weights):
        raise InputError(
            f"--weights {_joined(weights)}: expected one number for each of the {len(paths)} checkpoints, none "
            "negative and at least one positive, as printed by htr calibrate"
        )


def _joined(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)
