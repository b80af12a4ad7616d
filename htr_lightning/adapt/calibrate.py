"""The calibration of confidences and the weights of an ensemble, fitted on validation lines."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from htr_lightning import checkpoint
from htr_lightning.decoder.rover import WeightedHypothesis, align, by_confidence, combine
from htr_lightning.evidence.evaluate import Line, calibration, measured
from htr_lightning.metrics.calibration import PlattScaling, character_trials, fit_platt_scaling
from htr_lightning.metrics.edits import EditTotals
from htr_lightning.reading.voting import Ensemble
from htr_lightning.transcription import Prediction

FACTORS = (4.0, 2.0, 1.4, 1.2)  # by which a weight is changed, as long as that reduces edits


class Calibrated(NamedTuple):
    """A scale, and the calibration errors without and with it, on the lines that it was fitted on."""

    scale: PlattScaling
    before: dict[str, float]
    after: dict[str, float]


class Weighted(NamedTuple):
    """Weights of the members of an ensemble, the largest 1; the edits with equal weights and with these, and the
    predictions with these."""

    weights: list[float]
    before: EditTotals
    after: EditTotals
    predictions: list[Prediction]


def fit_weights(ensemble: Ensemble, read: Sequence[tuple[Line, Sequence[WeightedHypothesis]]]) -> Weighted:
    """The weights of an ensemble's members with the fewest edits.

    Starting from equal ones, the weight whose change removes most edits is raised or lowered, by ever smaller factors,
    as long as one does.

    Args:
        ensemble: see `Ensemble`.
        read: lines, and the hypotheses of its members for them.
    """
    ordered = [by_confidence(hypotheses) for _, hypotheses in read]
    aligned = [(hypotheses, align([one.text for one in hypotheses])) for hypotheses in ordered]

    def combined(weights: Sequence[float]) -> tuple[list[Prediction], EditTotals]:
        found = (ensemble.finish(combine(hypotheses, slots, weights)) for hypotheses, slots in aligned)
        return measured([(line, one) for (line, _), one in zip(read, found, strict=True)])

    best = [1.0] * len(ensemble.members)
    _, before = _, found = combined(best)
    for factor in FACTORS:
        moved = True
        while moved:
            changes = [(member, change) for member in range(len(best)) for change in (factor, 1 / factor)]
            trials = [[w * change if i == member else w for i, w in enumerate(best)] for member, change in changes]
            totals = [combined(trial)[1] for trial in trials]
            fewest = min(range(len(totals)), key=lambda number: totals[number].edits)
            if moved := totals[fewest].edits < found.edits:
                best, found = trials[fewest], totals[fewest]
    weights = [round(weight / max(best), 2) for weight in best]
    predictions, after = combined(weights)
    return Weighted(weights, before, after, predictions)


def calibrate(predictions: Sequence[Prediction]) -> Calibrated:
    """The scale on which the confidences of characters are likeliest.

    Args:
        predictions: read on the default scale.
    """
    scale = fit_platt_scaling([character_trials(one.reference, one.hypothesis, one.confidence)
                                   for one in predictions])  # fmt: skip
    after = [one._replace(confidence=scale(one.confidence)) for one in predictions]
    return Calibrated(scale, calibration(predictions), calibration(after))


def write(path: str, out: Path, found: Calibrated, lines: dict[str, Any]) -> None:
    """Write the checkpoint again with its scale.

    Args:
        path: of the checkpoint.
        out: of the new one.
        found: see `calibrate`.
        lines: what it was fitted on, see `card.describe`; kept beside the errors found there.

    Raises:
        InputError: it cannot be written.
    """
    content = checkpoint.read(path)
    content["htr"]["calibration"] = list(found.scale)
    content["htr"]["calibrated"] = {"data": lines, "before": found.before, "after": found.after}
    checkpoint.AtomicCheckpointIO().save_checkpoint(content, out)
