"""Render a report as a self-contained HTML page."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import yaml
from jaxtyping import UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy import ndarray

from htr_lightning.evidence import confidence, provenance, report, sections
from htr_lightning.evidence.chart import svg
from htr_lightning.evidence.sections import Reading
from htr_lightning.evidence.table import shown
from htr_lightning.html import data_url, document, script_json, to_html, visible

HEIGHT, WIDTH = 56, 900  # maximum size of a picture of a line in pixels
WORST, TYPICAL, RANDOM, DIFFERENT = 80, 40, 60, 60  # number of lines with pictures
TEMPLATES = files("htr_lightning.evidence") / "templates"
KINDS = {
    "worst": "the most edits",
    "different": "the largest difference between the runs",
    "typical": "a CER near that of all lines",
    "random": "drawn at random",
    "all": "all lines, in the order of the data set",
}


class Row(NamedTuple):
    """A line of the split with its prediction by each run that read it."""

    id: str
    group: str
    reference: str
    scored: list[report.Scored | None]

    @property
    def edits(self) -> list[int]:
        return [one.counts.edits for one in self.scored if one is not None]


def rows(readings: Sequence[Reading]) -> list[Row]:
    """Bring the predictions of several runs together, by id and reference."""
    found: dict[tuple[str, str, int], Row] = {}
    for index, reading in enumerate(readings):
        seen: dict[tuple[str, str], int] = {}
        for line in reading.lines:
            one = line.prediction
            number = seen[one.id, one.reference] = seen.get((one.id, one.reference), 0) + 1
            none: list[report.Scored | None] = [None] * len(readings)
            row = found.setdefault((one.id, one.reference, number), Row(one.id, one.group, one.reference, none))
            row.scored[index] = line
    return list(found.values())


def selections(lines: Sequence[Row], runs: int) -> dict[str, list[int]]:
    """Return the positions of the lines to look at, by kind; see `KINDS`."""
    edits = [max(row.edits) for row in lines]
    sure = [max(one.prediction.confidence for one in row.scored if one) for row in lines]
    found = {"worst": report.worst(edits, sure, WORST)}
    if runs > 1:
        ranges = [max(row.edits) - min(row.edits) for row in lines]
        found["different"] = report.worst(ranges, sure, DIFFERENT)
    found["typical"] = report.typical(edits, [len(row.reference) for row in lines], TYPICAL)
    found["random"] = report.drawn(len(lines), RANDOM)
    return found


def page(readings: Sequence[Reading], images: Mapping[int, UInt8[ndarray, "_ _"]], lines: Sequence[Row]) -> str:
    """Render a report.

    Args:
        readings: runs, in the order of their letters.
        images: images of lines, keyed by position.
        lines: lines of the split; see `rows`.
    """
    environment = Environment(
        loader=PackageLoader("htr_lightning.evidence"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"coded": lambda text: Markup(to_html(str(text), 100_000)), "symbol": sections.symbol}
    title = " and ".join(visible(reading.name) for reading in readings)
    parts = [sections.characters(readings), confidence.confidence(readings), provenance.training(readings),
             provenance.speed(readings), provenance.card(readings)]  # fmt: skip
    edits = sections.frequent_edits(readings)
    frequent = [[(one.reference, one.hypothesis) for one in its] for _, its in edits]
    data = _data(readings, images, lines) | {"edits": frequent}
    body = environment.get_template("report.html.jinja").render(
        title=title,
        readings=readings,
        heads=[_head(reading) for reading in readings],
        breakdowns=sections.breakdowns(readings),
        edits=edits,
        confusions=sections.confusion_charts(readings),
        sections=[part for part in parts if part.charts or part.tables],
        kinds={kind: text for kind, text in KINDS.items() if kind == "all" or data["sets"].get(kind)},
        pictures=len(images),
        configs=[(reading.letter, _config(reading)) for reading in readings if reading.results.card],
        chart=lambda chart: Markup(svg(chart)),
        cell=shown,
        data=Markup(script_json(data)),
    )
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    return document(f"Report on {title}", body, style, script)


def _data(
    readings: Sequence[Reading], images: Mapping[int, UInt8[ndarray, "_ _"]], lines: Sequence[Row]
) -> dict[str, Any]:
    """Return what the script shows: [id, group, reference, predictions, picture] of each line."""

    def scored(one: report.Scored | None) -> Any:
        if one is None:
            return None
        prediction, counts, alignment = one
        return [prediction.hypothesis, round(prediction.confidence, 4), counts.edits, report.edit_script(alignment)]

    encoded = {position: data_url(image, HEIGHT, WIDTH) for position, image in images.items() if image.size}
    return {
        "letters": [reading.letter for reading in readings],
        "lines": [[row.id, row.group, row.reference, [scored(one) for one in row.scored], encoded.get(number, 0)]
                  for number, row in enumerate(lines)],
        "sets": selections(lines, len(readings)),
    }  # fmt: skip


def _head(reading: Reading) -> dict[str, Any]:
    """Return the figures and the sentence at the top of a page."""
    totals, bounds = report.total(reading.lines), report.uncertainty(reading.lines)
    single = all(len(line.prediction.reference) <= 1 for line in reading.lines)
    return {
        "letter": reading.letter,
        "name": visible(reading.name),
        "split": reading.results.about.get("split", "test"),
        "totals": totals,
        "intervals": bounds,
        "single": single,
        "about": _sentence(reading, totals.lines),
        "note": reading.results.note,
        "measured": len(reading.appearances),
    }


def _sentence(reading: Reading, lines: int) -> str:
    """Say in one sentence what the run is."""
    its = reading.results
    model, training = its.card.get("model", {}), its.card.get("training", {})
    parts = []
    if model:
        net = (model.get("net") or {}).get("_target_", model["_target_"]).rpartition(".")[2]
        weights = its.checkpoint.get("weights")
        size = f" with {weights / 1e6:.1f} million weights" if weights else ""
        parts.append(f"{training.get('name', reading.name)}: {net}{size}")
        seconds, data = its.summary.get("seconds"), (its.card.get("data") or {}).get("train")
        if data:
            time = f" for {provenance.duration(seconds)}" if seconds else ""
            parts.append(f"trained{time} on {data['lines']:,} lines")
    parts.append(f"evaluated on {lines:,} lines that it was not trained on" if _unseen(its.about) else
                 f"evaluated on {lines:,} lines")  # fmt: skip
    return ", ".join(parts) + "."


def _unseen(metrics: Mapping[str, Any]) -> bool:
    return metrics.get("split") in ("val", "test")


def _config(reading: Reading) -> str:
    card = reading.results.card
    return yaml.safe_dump(
        {"model": card.get("model"), "training": card.get("training")}, sort_keys=False, allow_unicode=True
    )
