"""The scale of a recognizer's confidences, fitted on lines that were read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from htr_lightning import checkpoint
from htr_lightning.evaluate import calibration
from htr_lightning.metrics.calibration import Scale, character_trials, fit_scale
from htr_lightning.model.base import Prediction


class Calibrated(NamedTuple):
    """A scale, and the calibration errors without and with it, on the lines that it was fitted on."""

    scale: Scale
    before: dict[str, float]
    after: dict[str, float]


def calibrate(predictions: Sequence[Prediction]) -> Calibrated:
    """The scale on which the confidences of characters are likeliest.

    Args:
        predictions: read on the default scale.
    """
    scale = fit_scale([character_trials(one.reference, one.hypothesis, one.confidence)
                                   for one in predictions])  # fmt: skip
    after = [one._replace(confidence=scale(one.confidence)) for one in predictions]
    return Calibrated(scale, calibration(predictions), calibration(after))


def write(path: str, out: Path, found: Calibrated, lines: dict[str, Any]) -> None:
    """Write the checkpoint again with its scale.

    Args:
        path: of the checkpoint.
        out: of the new one.
        found: see `calibrate`.
        lines: what it was fitted on, see `checkpoint.describe`; kept beside the errors found there.

    Raises:
        InputError: it cannot be written.
    """
    content = checkpoint.read(path)
    content["htr"]["calibration"] = list(found.scale)
    content["htr"]["calibrated"] = {"data": lines, "before": found.before, "after": found.after}
    checkpoint.AtomicCheckpointIO().save_checkpoint(content, out)
