"""The calibration of confidences and the weights of an ensemble, fitted on validation lines."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from htr_lightning import checkpoint
from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.decoder.rover import WeightedHypothesis, align, by_confidence, combine
from htr_lightning.evidence.evaluate import Evaluation, Line, calibration, compare, evaluate, read_split
from htr_lightning.metrics.calibration import PlattScaling, character_trials, fit_platt_scaling
from htr_lightning.metrics.edits import EditTotals
from htr_lightning.reading.voting import Ensemble
from htr_lightning.transcription import Prediction, Transcriber

FACTORS = (4.0, 2.0, 1.4, 1.2)  # by which a weight is changed, as long as that reduces edits


class Weighted(NamedTuple):
    """Weights of the members of an ensemble, the largest being 1; the edits with equal weights, and the evaluation with
    these."""

    weights: list[float]
    before: EditTotals
    after: Evaluation


class Calibrated(NamedTuple):
    """A calibration, and the calibration errors without and with it on the lines that it was fitted on."""

    scaling: PlattScaling
    before: dict[str, float]
    after: dict[str, float]
    weighted: Weighted | None = None  # of an ensemble without weights


def fit(
    recognizer: Transcriber,
    data: LineDataModule,
    weights: bool,
    advance: Callable[[int], None] = lambda lines: None,
) -> Calibrated:
    """The calibration of a recognizer on the validation lines, and before it the weights of an ensemble.

    Args:
        recognizer: with the default calibration.
        data: see `config.data_for`.
        weights: whether to fit the ensemble weights as well.
        advance: called with the number of lines done, for a progress bar.
    """
    if not weights or not isinstance(recognizer, Ensemble):
        return calibrate(evaluate(recognizer, data, "val", advance).predictions)
    weighted = fit_weights(recognizer, read_split(recognizer, recognizer.hypotheses, data, "val", advance))
    return calibrate(weighted.after.predictions)._replace(weighted=weighted)


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

    def combined(weights: Sequence[float]) -> Evaluation:
        found = (ensemble.finish(combine(hypotheses, slots, weights)) for hypotheses, slots in aligned)
        return compare([(line, one) for (line, _), one in zip(read, found, strict=True)])

    best = [1.0] * len(ensemble.members)
    before = found = combined(best).totals
    for factor in FACTORS:
        moved = True
        while moved:
            changes = [(member, change) for member in range(len(best)) for change in (factor, 1 / factor)]
            trials = [[w * change if i == member else w for i, w in enumerate(best)] for member, change in changes]
            totals = [combined(trial).totals for trial in trials]
            fewest = min(range(len(totals)), key=lambda number: totals[number].edits)
            if moved := totals[fewest].edits < found.edits:
                best, found = trials[fewest], totals[fewest]
    weights = [round(weight / max(best), 2) for weight in best]
    return Weighted(weights, before, combined(weights))


def calibrate(predictions: Sequence[Prediction]) -> Calibrated:
    """The calibration that makes the outcomes of characters most likely.

    Args:
        predictions: with the default calibration.
    """
    trials = [character_trials(one.reference, one.hypothesis, one.confidence) for one in predictions]
    scaling = fit_platt_scaling(trials)
    after = [one._replace(confidence=scaling(one.confidence)) for one in predictions]
    return Calibrated(scaling, calibration(predictions), calibration(after))


def write(path: str, out: Path, found: Calibrated, lines: dict[str, Any]) -> None:
    """Write a copy of a checkpoint with a calibration.

    Args:
        path: of the checkpoint.
        out: of the copy.
        found: see `calibrate`.
        lines: what it was fitted on, see `card.describe`; recorded with the calibration errors.

    Raises:
        InputError: the copy cannot be written.
    """
    content = checkpoint.read(path)
    content["htr"]["calibration"] = list(found.scaling)
    content["htr"]["calibrated"] = {"data": lines, "before": found.before, "after": found.after}
    checkpoint.AtomicCheckpointIO().save_checkpoint(content, out)
