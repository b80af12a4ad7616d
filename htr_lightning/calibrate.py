"""The temperature of a recognizer's confidences, fitted on lines that were read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from htr_lightning import checkpoint
from htr_lightning.evaluate import calibration
from htr_lightning.metrics.calibration import character_trials, fit_temperature, tempered
from htr_lightning.model.base import Prediction


class Calibrated(NamedTuple):
    """A temperature, and the calibration errors without and with it, on the lines that it was fitted on."""

    temperature: float
    before: dict[str, float]
    after: dict[str, float]


def calibrate(predictions: Sequence[Prediction]) -> Calibrated:
    """The temperature at which the confidences of characters are likeliest.

    Args:
        predictions: read at temperature 1.
    """
    temperature = fit_temperature([character_trials(one.reference, one.hypothesis, one.confidence)
                                   for one in predictions])  # fmt: skip
    after = [one._replace(confidence=tempered(one.confidence, temperature)) for one in predictions]
    return Calibrated(temperature, calibration(predictions), calibration(after))


def write(path: str, out: Path, found: Calibrated, lines: dict[str, Any]) -> None:
    """Write the checkpoint again with its temperature.

    Args:
        path: of the checkpoint.
        out: of the new one.
        found: see `calibrate`.
        lines: what it was fitted on, see `checkpoint.describe`; kept beside the errors found there.

    Raises:
        InputError: it cannot be written.
    """
    content = checkpoint.read(path)
    content["htr"]["temperature"] = found.temperature
    content["htr"]["calibrated"] = {"data": lines, "before": found.before, "after": found.after}
    checkpoint.AtomicCheckpointIO().save_checkpoint(content, out)
