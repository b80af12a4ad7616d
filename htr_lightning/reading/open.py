"""Checkpoints opened for reading: one, or several as an ensemble."""

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
    """A reader of one checkpoint, or of an ensemble of several.

    Args:
        checkpoints: files.
        device: "cpu", "cuda", "cuda:N", or "auto" for the GPU if there is one.
        greedy: take the most likely labels, without beam, language model and lexicon.
        views: of each line, slightly changed, for test-time augmentation.
        calibration: slope and bias of the confidences, in place of the checkpoint's own.
        weights: of the checkpoints of an ensemble; None for equal ones.

    Raises:
        InputError: a checkpoint or an argument cannot be used.
    """
    return Reader(load_all([str(path) for path in checkpoints], device, greedy, views, calibration, weights))


def load_one(path: str, device: str = "auto", greedy: bool = False) -> Recognizer:
    """The recognizer of a checkpoint on a device; see `load`.

    Raises:
        InputError: see `checkpoint.load`; or the device does not exist.
    """
    recognizer = checkpoint.load(path)
    if greedy:
        recognizer = recognizer.greedy()
    try:
        return recognizer.to(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    except (RuntimeError, AssertionError):
        raise InputError(
            f"--device {device}: is not available here; use auto, cpu, or cuda:N for an NVIDIA GPU"
        ) from None


def load_all(
    paths: Sequence[str],
    device: str = "auto",
    greedy: bool = False,
    views: int = 1,
    calibration: Sequence[float] | None = None,
    weights: Sequence[float] | None = None,
) -> Recognizer | Ensemble:
    """The recognizer of a checkpoint, or the ensemble of several checkpoints or views; see `load`.

    Raises:
        InputError: see `load_one` and `Ensemble`; or weights or calibration are not valid.
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
            raise InputError(f"--calibration {_joined(calibration)}: give SLOPE,BIAS, as printed by htr calibrate"
                             ) from None  # fmt: skip
    return recognizer


def _check_weights(weights: Sequence[float], paths: Sequence[str]) -> None:
    if len(paths) == 1:
        raise InputError(f"--weights {_joined(weights)}: {paths[0]} is the only checkpoint; remove --weights, or name "
                         "several checkpoints")  # fmt: skip
    if len(weights) != len(paths) or not all(0 <= one < math.inf for one in weights) or not any(weights):
        raise InputError(
            f"--weights {_joined(weights)}: give a number for each of the {len(paths)} checkpoints, none negative and "
            "at least one positive, as printed by htr calibrate"
        )


def _joined(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)
