"""The scale of a recognizer's confidences and the weights of a vote, fitted on lines that were read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from htr_lightning import checkpoint
from htr_lightning.decoder.rover import Ballot, align, count, in_order
from htr_lightning.evidence.evaluate import Line, calibration, measured
from htr_lightning.metrics.calibration import PlattScaling, character_trials, fit_platt_scaling
from htr_lightning.metrics.edits import EditTotals
from htr_lightning.reading.voting import Rover
from htr_lightning.transcription import Prediction

FACTORS = (4.0, 2.0, 1.4, 1.2)  # by which a weight is changed, as long as that makes fewer edits


class Calibrated(NamedTuple):
    """A scale, and the calibration errors without and with it, on the lines that it was fitted on."""

    scale: PlattScaling
    before: dict[str, float]
    after: dict[str, float]


class Weighed(NamedTuple):
    """Weights of the members of a vote, the largest 1; the edits with equal weights and with these, and what is read
    then."""

    weights: list[float]
    before: EditTotals
    after: EditTotals
    predictions: list[Prediction]


def weigh(voted: Rover, read: Sequence[tuple[Line, Sequence[Ballot]]]) -> Weighed:
    """The weights of a vote's members with the fewest edits.

    From equal ones on, that weight is raised or lowered which takes most edits away, by ever smaller factors, as long
    as one does.

    Args:
        voted: gets the weights.
        read: lines, and what its members read in them.
    """
    ordered = [in_order(ballots) for _, ballots in read]
    aligned = [(ballots, align([ballot.text for ballot in ballots])) for ballots in ordered]

    def voting(weights: Sequence[float]) -> tuple[list[Prediction], EditTotals]:
        won = (voted.elected(count(ballots, slots, weights)) for ballots, slots in aligned)
        return measured([(line, one) for (line, _), one in zip(read, won, strict=True)])

    best = [1.0] * len(voted.members)
    _, before = _, found = voting(best)
    for factor in FACTORS:
        moved = True
        while moved:
            changes = [(member, change) for member in range(len(best)) for change in (factor, 1 / factor)]
            trials = [[w * change if i == member else w for i, w in enumerate(best)] for member, change in changes]
            made = [voting(trial)[1] for trial in trials]
            least = min(range(len(made)), key=lambda number: made[number].edits)
            if moved := made[least].edits < found.edits:
                best, found = trials[least], made[least]
    voted.weights = [round(weight / max(best), 2) for weight in best]
    predictions, after = voting(voted.weights)
    return Weighed(voted.weights, before, after, predictions)


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
