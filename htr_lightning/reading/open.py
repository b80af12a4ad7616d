"""Checkpoints opened for reading: one, or several that vote."""

import math
from collections.abc import Sequence

import torch

from htr_lightning import checkpoint
from htr_lightning.errors import InputError
from htr_lightning.metrics.calibration import PlattScaling, check_platt_scaling
from htr_lightning.model.base import Recognizer
from htr_lightning.model.line import LineRecognizer
from htr_lightning.reading.voting import Rover, difference, vote
from htr_lightning.transcription import Transcriber


def load(path: str, device: str = "auto", greedy: bool = False, alternatives: int = 0) -> Recognizer:
    """A checkpoint's recognizer on a device.

    Args:
        path: of the checkpoint.
        device: "auto" is the GPU where there is one.
        greedy: read by the best path, whatever decoder the checkpoint has.
        alternatives: readings to give of each line.

    Raises:
        InputError: see `checkpoint.load`; or there is no such device, or its decoder has no alternatives.
    """
    recognizer = checkpoint.load(path)
    if greedy:
        before = getattr(recognizer, "decoder", None)
        recognizer.set_greedy()
        if type(getattr(recognizer, "decoder", None)) is not type(before):
            recognizer.calibration = PlattScaling()  # fitted on what the other decoder gave
    if alternatives:
        if not hasattr(getattr(recognizer, "decoder", None), "n_best"):
            remedy = (
                "give a checkpoint that htr tune-decoder wrote"
                if isinstance(recognizer, LineRecognizer)
                else "models of lines have several, with decoder=autoregressive_beam or after htr tune-decoder"
            )
            if greedy and hasattr(before, "n_best"):
                remedy = "leave --greedy away"
            raise InputError(f"--n-best {alternatives}: {path} has one reading a line; {remedy}")
        recognizer.alternatives = alternatives
    try:
        return recognizer.to(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    except (RuntimeError, AssertionError):
        raise InputError(
            f"--device {device}: no such device here; use auto, cpu, or cuda:N for an NVIDIA GPU"
        ) from None


def load_all(
    paths: Sequence[str],
    device: str = "auto",
    greedy: bool = False,
    alternatives: int = 0,
    way: str | None = None,
    views: int = 1,
    scale: str | None = None,
    weights: str | None = None,
) -> Transcriber:
    """A checkpoint's recognizer, or several that vote.

    Args:
        paths: of the checkpoints.
        device, greedy, alternatives: see `load`.
        way: see `model.ensemble.vote`; None for "auto".
        views: of each line, see `net.view`.
        scale: SLOPE,BIAS of the confidences, in place of the checkpoint's own.
        weights: of the checkpoints in a vote, joined by commas; None: they weigh the same.

    Raises:
        InputError: see `load` and `model.ensemble.vote`; or there is nothing to vote.
    """
    if way is not None and len(paths) == views == 1:
        raise InputError(f"--vote {way}: {paths[0]} is the only checkpoint; name two or more, or read it with --tta 5")
    weighed = None if weights is None else _weights(weights, paths)
    members = [load(path, device, greedy, 0 if number else alternatives) for number, path in enumerate(paths)]
    recognizer: Transcriber = members[0]
    if len(members) > 1 or views > 1:
        recognizer = vote(members, paths, way or "auto", views, several=not greedy, weights=weighed)
        if weights is not None and not isinstance(recognizer, Rover):
            raise InputError(f"--weights {weights}: checkpoints that vote by frames weigh the same; leave it away")
    if alternatives and isinstance(recognizer, Rover):
        other = "" if difference(members, paths) else ", or vote with --vote frames"
        raise InputError(f"--n-best {alternatives}: a vote by rover has one reading a line; leave it away{other}")
    if scale is not None:
        try:
            recognizer.calibration = check_platt_scaling(scale.split(","))
        except ValueError:
            raise InputError(f"--calibration {scale}: give SLOPE,BIAS, as htr calibrate prints them") from None
    return recognizer


def _weights(text: str, paths: Sequence[str]) -> list[float]:
    if len(paths) == 1:
        raise InputError(f"--weights {text}: {paths[0]} is the only checkpoint; leave it away, or name several")
    try:
        weights = list(map(float, text.split(",")))
    except ValueError:
        weights = []
    if len(weights) != len(paths) or not all(0 <= one < math.inf for one in weights) or not any(weights):
        raise InputError(
            f"--weights {text}: give a number for each of the {len(paths)} checkpoints, none below 0 and one above it, "
            "as htr calibrate prints them"
        )
    return weights
