"""The parts of a report on how a run was trained, how fast it is and what its figures depend on."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from htr_lightning.evidence.chart import Chart, Series
from htr_lightning.evidence.results import Results
from htr_lightning.evidence.runs import Curve
from htr_lightning.evidence.sections import Reading, Section, label
from htr_lightning.evidence.table import Cell, Column, Table


def duration(seconds: int | float) -> str:
    """Return a time in the two largest units, e.g. 20 min 12 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def training(readings: Sequence[Reading]) -> Section:
    """Return the learning curves."""
    charts = [
        _curves(readings, "learning-curve", "CER on the validation lines", "CER", ("val/cer",)),
        _curves(readings, "loss", "Loss (training ─, validation ●)", "loss", ("train/loss", "val/loss"), False),
    ]
    return Section("training", "Training", "The error rate on lines that were not trained on, and the loss that "
                   "training reduces. A validation loss that rises while the training loss falls means overfitting.",
                   [chart for chart in charts if chart], [])  # fmt: skip


def _curves(
    readings: Sequence[Reading], name: str, title: str, y_title: str, keys: Sequence[str], percent: bool = True
) -> Chart | None:
    """Draw logged curves; those of the same run have the same colour."""
    series, colours = [], []
    for index, reading in enumerate(readings):
        for key in keys:
            if key in reading.results.curves:
                steps, values = thinned(reading.results.curves[key])
                value: Callable[[int | float], str] = "{:.2%}".format if percent else "{:.3g}".format
                notes = [f"{reading.letter} step {x:,}: {value(y)}" for x, y in zip(steps, values, strict=True)]
                series.append(Series(f"{reading.letter} {key}", steps, values, notes))
                colours.append(index)
    return Chart(name, title, "curves", "step", y_title, series, (), colours, percent) if series else None


def thinned(curve: Curve, most: int = 300) -> tuple[list[int], list[float]]:
    """Return finite points of a curve, as means of several if there are many."""
    points = [(x, y) for x, y in zip(*curve, strict=True) if math.isfinite(y)]
    size = max(1, math.ceil(len(points) / most))
    chunks = [points[start : start + size] for start in range(0, len(points), size)]
    return [chunk[-1][0] for chunk in chunks], [sum(y for _, y in chunk) / len(chunk) for chunk in chunks]


def speed(readings: Sequence[Reading]) -> Section:
    """Return what training took, and the size of what came out."""
    columns = [Column("run"), Column("training time"), Column("steps", "count"),
               Column("training lines/s", "number", "at the end, including loading and validation"),
               Column("reading lines/s", "number", "when the split was evaluated, including loading"),
               Column("weights", "count"), Column("checkpoint, MB", "number")]  # fmt: skip
    rows: list[list[Cell]] = []
    for reading in readings:
        its = reading.results
        seconds, rate = its.summary.get("seconds"), its.summary.get("lines_per_second")
        steps = max((curve.steps[-1] for curve in its.curves.values() if curve.steps), default=None)
        size = its.checkpoint.get("bytes")
        rows.append([label(readings, reading), duration(seconds) if seconds else None, steps, rate,
                     _reading_rate(its), its.checkpoint.get("weights"), size and size / 1e6])  # fmt: skip
    known = [index for index in range(len(columns)) if any(row[index] is not None for row in rows)]
    columns, rows = [columns[index] for index in known], [[row[index] for index in known] for row in rows]
    chart = _curves(readings, "speed", "Training speed", "lines/s", ("train/lines_per_second",), False)
    return Section("speed", "Speed and size", "How fast the run read training lines, on the machine that it ran on.",
                   [chart] if chart else [], [Table("speed", "Speed and size", columns, rows)])  # fmt: skip


def _reading_rate(results: Results) -> float | None:
    """Return the number of lines evaluated per second; the clock of a run's own test is that of its training."""
    clock = results.about.get("clock") or {}
    seconds = None if "lines_per_second" in clock else clock.get("seconds")
    return len(results.predictions) / seconds if seconds else None


def card(readings: Sequence[Reading]) -> Section:
    """Return what the figures depend on."""
    rows: dict[str, list[Cell]] = {}
    for index, reading in enumerate(readings):
        for key, value in _card(reading):
            rows.setdefault(key, [key, *[None] * len(readings)])[index + 1] = value
    columns = [Column(""), *(Column(reading.letter if len(readings) > 1 else "value") for reading in readings)]
    table = Table("card", "Card", columns, list(rows.values()))
    return Section("card", "Card", "Everything that these figures depend on: two runs are comparable if they agree in "
                   "the test lines and the definitions.", [], [table])  # fmt: skip


def _card(reading: Reading) -> Iterator[tuple[str, str]]:
    its, about = reading.results, reading.results.about
    model, training = its.card.get("model", {}), its.card.get("training", {})
    yield "run folder", str(its.folder)
    for split, size in (its.card.get("data") or {}).items():
        yield f"{split} lines", f"{size['lines']:,} ({size['characters']:,} characters, {size['groups']:,} groups)"
        for reason, count in size.get("skipped", {}).items():
            yield f"{split}: skipped", f"{count:,}: {reason}"
    if "data" in about:
        yield "evaluated split", f"{about.get('split')}, SHA-256 {about['data'].get('sha256')}"
    clock, commit = about.get("clock") or {}, about.get("commit") or {}
    for what, found in (
        ("checkpoint", its.checkpoint.get("path")),
        ("checkpoint, SHA-256", its.checkpoint.get("sha256")),
        ("commit of training", its.card.get("commit")),
        ("commit of evaluation", commit.get("evaluated")),
        ("started", clock.get("started")),
        ("seed", training.get("seed")),
    ):
        if found is not None:
            yield what, str(found)
    for what, part in (("model", model), ("network", model.get("net")), ("preprocessing", model.get("preprocess")),
                       ("decoder", model.get("decoder")), ("normalizer", model.get("normalizer")),
                       ("optimizer", training.get("optimizer")), ("schedule", training.get("scheduler"))):  # fmt: skip
        if isinstance(part, dict):
            yield what, _brief(part)
    data = training.get("data", {})
    if data:
        transforms = (data.get("augment") or {}).get("transforms", [])
        yield "augmentation", ", ".join(map(_class, transforms)) or "none"
        yield "batch", f"at most {data.get('max_lines')} lines and {data.get('max_columns')} columns"
    for what in ("precision", "max_time", "max_steps", "max_epochs"):
        value = training.get("trainer", {}).get(what)
        if value not in (None, -1):
            yield what.replace("_", " "), str(value)
    if alphabet := its.card.get("alphabet"):
        yield "alphabet", f"{len(alphabet)} characters"
    for what, text in about.get("definition", {}).items():
        yield f"definition: {what.replace('_', ' ')}", str(text)
    for what, found in (("hardware", about.get("hardware")), ("versions", its.card.get("versions"))):
        if found:
            yield what, ", ".join(f"{name} {value}" for name, value in found.items())


def _brief(part: Mapping[str, Any]) -> str:
    """Return the class and the plain settings of an object."""
    plain = {key: value for key, value in part.items() if not key.startswith("_") and not isinstance(value, dict)}
    return f"{_class(part)}({', '.join(f'{key}={value}' for key, value in plain.items())})"


def _class(part: Mapping[str, Any]) -> str:
    return str(part.get("_target_", "")).rpartition(".")[2]
