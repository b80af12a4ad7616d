"""Checkpoints opened for reading: one, or several as an ensemble."""

import math
from collections.abc import Sequence

import torch

from htr_lightning import checkpoint
from htr_lightning.errors import InputError
from htr_lightning.metrics.calibration import check_platt_scaling
from htr_lightning.model.base import Recognizer
from htr_lightning.reading.voting import Ensemble


def load(path: str, device: str = "auto", greedy: bool = False) -> Recognizer:
    """A checkpoint's recognizer on a device.

    Args:
        path: of the checkpoint.
        device: "auto" is the GPU if there is one.
        greedy: take the most likely labels, whatever decoder the checkpoint has.

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
            f"--device {device}: does not exist here; use auto, cpu, or cuda:N for an NVIDIA GPU"
        ) from None


def load_all(
    paths: Sequence[str],
    device: str = "auto",
    greedy: bool = False,
    views: int = 1,
    calibration: str | None = None,
    weights: str | None = None,
) -> Recognizer | Ensemble:
    """A checkpoint's recognizer, or the ensemble of several checkpoints or views.

    Args:
        paths: of the checkpoints.
        device, greedy: see `load`.
        views: of each line, see `net.view`.
        calibration: SLOPE,BIAS of the confidences, in place of the checkpoint's own.
        weights: of the checkpoints of an ensemble, joined by commas; None for equal ones.

    Raises:
        InputError: see `load` and `Ensemble`; or weights or calibration are not valid.
    """
    given = None if weights is None else _weights(weights, paths)
    recognizer: Recognizer | Ensemble
    if len(paths) > 1 or views > 1:
        members = [load(path, device, greedy) for path in paths]
        recognizer = Ensemble(members, paths, views, single=greedy, weights=given)
    else:
        recognizer = load(paths[0], device, greedy)
    if calibration is not None:
        try:
            recognizer.calibration = check_platt_scaling(calibration.split(","))
        except ValueError:
            raise InputError(f"--calibration {calibration}: give SLOPE,BIAS, as htr calibrate prints them") from None
    return recognizer


def _weights(text: str, paths: Sequence[str]) -> list[float]:
    if len(paths) == 1:
        raise InputError(f"--weights {text}: {paths[0]} is the only checkpoint; remove --weights, or name several")
    try:
        weights = list(map(float, text.split(",")))
    except ValueError:
        weights = []
    if len(weights) != len(paths) or not all(0 <= one < math.inf for one in weights) or not any(weights):
        raise InputError(
            f"--weights {text}: give a number for each of the {len(paths)} checkpoints, none negative, one positive, "
            "as htr calibrate prints them"
        )
    return weights
