"""The part of a report on confidences: whether they can be trusted, and what checking the least sure lines saves."""

from collections.abc import Sequence

import numpy as np

from htr_lightning.evidence.chart import Chart, Series
from htr_lightning.evidence.evaluate import KEPT, kept_risk
from htr_lightning.evidence.sections import Reading, Section, label
from htr_lightning.evidence.table import Cell, Column, Table
from htr_lightning.metrics.confidence import DEFINITION, MEASURES, Trials, calibration_bins, risk_coverage
from htr_lightning.transcription import trials_by_level

LEVELS = ("line", "word", "character")
POINTS = 21  # of the risk-coverage curve


def confidence(readings: Sequence[Reading]) -> Section:
    """Return how well confidences agree with the fraction of correct characters, and what checking by them saves."""
    rows: list[list[Cell]] = []
    kept: list[dict[float, float]] = []
    series: dict[str, list[Series]] = {level: [] for level in LEVELS}
    curves = []
    for reading in readings:
        predictions = [line.prediction for line in reading.lines]
        trials = trials_by_level(predictions)
        for level, its in trials.items():
            series[level].append(_reliability(reading.letter, its))
            measures = [measure(its) for measure in MEASURES.values()]
            rows.append([label(readings, reading), f"{level}s", *_mean(its), *measures])
        curve = risk_coverage(trials["line"])
        kept.append(kept_risk(predictions))
        shown = sorted({round(place) for place in np.linspace(0, len(curve.risk) - 1, POINTS)})
        coverage, risk = curve.coverage[shown].tolist(), curve.risk[shown].tolist()
        notes = [f"the surest {x:.0%} of the text: {y:.1%} errors" for x, y in zip(coverage, risk, strict=True)]
        curves.append(Series(reading.letter, coverage, risk, notes))
    columns = [Column("run"), Column("of"), Column("mean confidence", "percent"), Column("correct", "percent"),
               Column("ECE", "percent", DEFINITION["confidence.ece"]),
               Column("Brier score", "number", DEFINITION["confidence.brier"]),
               Column("NLL", "number", DEFINITION["confidence.nll"]),
               Column("AURC", "number", DEFINITION["confidence.aurc"])]  # fmt: skip
    charts = [
        Chart(f"calibration-{level}", f"Calibration of {level}s", "points", "confidence",
              "correct words" if level == "word" else "correct characters", its, diagonal=True, x_percent=True)
        for level, its in series.items() if its
    ]  # fmt: skip
    charts.append(Chart("risk-coverage", "Errors that remain if the least sure lines are checked", "curves",
                        "text that is not checked", "errors per character in it", curves, x_percent=True))  # fmt: skip
    return Section(
        "confidence", "Can the confidence be trusted?", "Points on the diagonal mean that, for example, nine of ten "
        "characters with a confidence of 90 % are correct; points below it mean that the recognizer is too sure. Each "
        "point stands for the same number of characters or words. htr calibrate corrects this. The last chart shows "
        "what checking saves: " + _saving(readings, kept), charts,
        [Table("calibration", "Calibration", columns, rows),
         Table("risk-coverage", "Errors per character in the surest lines",
               [Column("run"), *(Column(f"{share:.0%} of the text", "percent") for share in KEPT)],
               [[label(readings, one), *risks.values()] for one, risks in zip(readings, kept, strict=True)])],
    )  # fmt: skip


def _reliability(name: str, trials: Sequence[Trials]) -> Series:
    bins = calibration_bins(trials)
    right = [one.correct / one.events for one in bins]
    notes = [f"confidence {one.probability:.1%}: {fraction:.1%} of {one.events:,} correct"
             for one, fraction in zip(bins, right, strict=True)]  # fmt: skip
    return Series(name, [one.probability for one in bins], right, notes)


def _saving(readings: Sequence[Reading], kept: Sequence[dict[float, float]]) -> str:
    """Say in a sentence what is left if the least sure fifth of the lines is checked."""
    names = [f"{one.letter}: " if len(readings) > 1 else "" for one in readings]
    parts = [f"{name}{risks[0.8]:.1%} instead of {risks[1.0]:.1%}" for name, risks in zip(names, kept, strict=True)]
    return f"without the least sure fifth, the errors per character are {'; '.join(parts)}."


def _mean(trials: Sequence[Trials]) -> tuple[float, float]:
    events = max(1, sum(one.events for one in trials))
    expected = sum(one.probability * one.events for one in trials)
    return expected / events, sum(one.correct for one in trials) / events
