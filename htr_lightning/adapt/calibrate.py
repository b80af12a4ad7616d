"""Calibrate confidences and fit the weights of an ensemble on validation lines."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from htr_lightning import checkpoint
from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.decoder.rover import WeightedHypothesis, align, by_confidence, combine
from htr_lightning.evidence.evaluate import Evaluation, Line, compare, confidence, evaluate, read_split
from htr_lightning.metrics.calibration import Calibration, fit_platt_scaling
from htr_lightning.metrics.edits import EditTotals
from htr_lightning.reading.voting import Ensemble
from htr_lightning.transcription import Prediction, Transcriber, trials_by_level

FACTORS = (4.0, 2.0, 1.4, 1.2)  # factors for changing a weight, each used until no change reduces the number of edits


class Weighted(NamedTuple):
    """The fitted weights of an ensemble, scaled to a maximum of 1, and the results before and after fitting."""

    weights: list[float]
    before: EditTotals  # with equal weights
    after: Evaluation  # with the fitted weights


class Calibrated(NamedTuple):
    """A calibration, and the measures of the confidences (see `evaluate.confidence`) before and after applying it to
    the lines used for fitting."""

    calibration: Calibration
    before: dict[str, dict[str, float]]
    after: dict[str, dict[str, float]]
    weighted: Weighted | None = None  # only if ensemble weights were fitted as well


def fit(
    recognizer: Transcriber,
    data: LineDataModule,
    weights: bool,
    advance: Callable[[int], None] = lambda lines: None,
) -> Calibrated:
    """Calibrate a recognizer on the validation lines, first fitting its ensemble weights if `weights` is true.

    Args:
        recognizer: recognizer with the default calibration.
        data: data set to fit on; see `build.data_for`.
        weights: whether to fit the ensemble weights as well.
        advance: progress callback, called with the number of lines just processed.
    """
    if not weights or not isinstance(recognizer, Ensemble):
        return calibrate(evaluate(recognizer, data, "val", advance).predictions)
    weighted = fit_weights(recognizer, read_split(recognizer, recognizer.hypotheses, data, "val", advance))
    return calibrate(weighted.after.predictions)._replace(weighted=weighted)


def fit_weights(ensemble: Ensemble, read: Sequence[tuple[Line, Sequence[WeightedHypothesis]]]) -> Weighted:
    """Fit the weights of an ensemble to minimise the number of edits.

    The search starts from equal weights. Each step multiplies or divides a single weight by a factor, choosing the
    change that reduces the number of edits the most; when no change reduces it any further, the search continues with a
    smaller factor.

    Args:
        ensemble: ensemble whose weights are fitted.
        read: validation lines, each with the hypotheses of all members.
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
    """Fit Platt scaling to the confidences of lines, words and characters of the given predictions.

    Args:
        predictions: predictions of a recognizer with the default calibration.
    """
    found = Calibration(**{level: fit_platt_scaling(trials) for level, trials in trials_by_level(predictions).items()})
    after = [
        one._replace(
            confidence=found.line(one.confidence),
            words=tuple(found.word(word) for word in one.words),
            characters=tuple(found.character(character) for character in one.characters),
        )
        for one in predictions
    ]
    return Calibrated(found, confidence(predictions), confidence(after))


def write(path: str, out: Path, found: Calibrated, lines: dict[str, Any]) -> None:
    """Copy a checkpoint, adding a calibration to the copy.

    Args:
        path: path to the checkpoint.
        out: path to the copy.
        found: calibration to store; see `calibrate`.
        lines: description of the lines used for fitting (see `card.describe`), stored with the calibration errors.

    Raises:
        InputError: if the copy cannot be written.
    """
    content = checkpoint.read(path)
    content["htr"]["calibration"] = found.calibration.numbers()
    content["htr"]["calibrated"] = {"data": lines, "before": found.before, "after": found.after}
    checkpoint.write(content, out)
