"""The tables and charts of a report on one or several runs."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from unicodedata import combining

from htr_lightning.evidence import report
from htr_lightning.evidence.chart import Chart, Series
from htr_lightning.evidence.report import Bin, Scored
from htr_lightning.evidence.results import Appearance, Results
from htr_lightning.evidence.table import Cell, Column, Table
from htr_lightning.html import visible
from htr_lightning.metrics.confusions import confusions
from htr_lightning.metrics.significance import Interval

GROUPS = 20  # maximum number of groups in a chart
SLOPES = (-3.0, -1.0, 0.9999, 2.9999)  # edges between bins in degrees; most lines are level
SHOWN_SPACE = {" ": "␣", "": "∅"}  # in tables and charts
INTERVAL = "the error rate of many more lines like these lies in it in 19 of 20 cases"
CER = "character error rate: edits (wrong, missing and extra characters) / characters of the references"


class Reading(NamedTuple):
    """The results of a run, aligned with the references."""

    letter: str  # A, B, ...
    name: str
    results: Results
    lines: list[Scored]
    appearances: Mapping[str, Appearance]


class Section(NamedTuple):
    """A part of a report: charts, tables and an explanation."""

    id: str
    title: str
    about: str
    charts: list[Chart]
    tables: list[Table]


def symbol(text: str) -> str:
    """Return a text with symbols for spaces and for nothing at all, codes of invisible characters, and marks on a
    circle."""
    shown = (SHOWN_SPACE.get(character, visible(character)) for character in text)
    return "◌" * bool(text and combining(text[0])) + "".join(shown) or SHOWN_SPACE[""]


def between(interval: Interval | None) -> str | None:
    """Return an interval as text."""
    return None if interval is None else f"{100 * interval.low:.2f} to {100 * interval.high:.2f} %"


def suffix(readings: Sequence[Reading], reading: Reading) -> str:
    """Return what follows a title or file name where there are several runs."""
    return f" {reading.letter}" if len(readings) > 1 else ""


def label(readings: Sequence[Reading], reading: Reading) -> str:
    """Return what stands for a run in a table: its letter, or its name if it is the only one."""
    return reading.letter if len(readings) > 1 else reading.name


def summary(readings: Sequence[Reading]) -> Table:
    """Return the figures of each run."""
    columns = [Column("run"), Column("name"), Column("lines", "count"), Column("characters", "count"),
               Column("edits", "count"), Column("CER", "percent", CER), Column("95 % interval", "text", INTERVAL),
               Column("WER", "percent"), Column("95 % interval", "text", INTERVAL),
               Column("lines without edits", "percent")]  # fmt: skip
    rows: list[list[Cell]] = []
    for reading in readings:
        its, bounds = report.total(reading.lines), report.uncertainty(reading.lines)
        rows.append([reading.letter, reading.name, its.lines, its.characters, its.edits, its.cer,
                     between(bounds.cer), its.wer, between(bounds.wer), its.line_accuracy])  # fmt: skip
    return Table("summary", "Summary", columns, rows)


def breakdowns(readings: Sequence[Reading]) -> list[Section]:
    """Return the CER by group, length, confidence, contrast and slope, as far as they are known."""
    lines = [line for reading in readings for line in reading.lines]
    owners = [index for index, reading in enumerate(readings) for _ in reading.lines]
    predictions = [line.prediction for line in lines]
    looks = [readings[owner].appearances.get(line.id) for owner, line in zip(owners, predictions, strict=True)]
    lengths: list[float | None] = [float(len(line.reference)) for line in predictions]
    confidences: list[float | None] = [line.confidence for line in predictions]
    contrasts: list[float | None] = [look and look.contrast for look in looks]
    slopes: list[float | None] = [look and look.slope for look in looks]
    groups = report.by_name([line.group for line in predictions])
    groups.sort(key=lambda one: (-report.total(lines[p] for p in one.positions).cer, one.label))

    def spread(values: Sequence[float | None], form: str) -> list[Bin]:
        return report.by_value(values, report.quantile_edges(v for v in values if v is not None), form)

    found = [
        ("group", "group", groups if 1 < len(groups) < len(readings[0].lines) else [],
         "A group is a writer, a document or a page."),
        ("length", "characters of the reference", spread(lengths, "{:.0f}"),
         "Short lines are often page numbers and names; long ones may have been cut badly."),
        ("confidence", "confidence", spread(confidences, "{:.2f}"),
         "The recognizer's own estimate of the probability that a character is correct. Lines with low confidence "
         "should have more errors: then they can be found without references."),
        ("contrast", "contrast in grey levels", spread(contrasts, "{:.0f}"),
         "The difference between the paper and the darkest ink, measured on the images, of 255 grey levels."),
        ("slope", "slope in degrees", report.by_value(slopes, SLOPES, "{:+.1f}"),
         "The slope of the line of writing, measured on the images; a line with a positive slope falls to the right."),
    ]  # fmt: skip
    sections = []
    for name, what, bins, about in found:
        if len(bins) > 1:
            table = _table(readings, lines, owners, name, what, bins)
            chart = _bars(readings, lines, owners, name, what, bins[:GROUPS])
            note = f" The chart shows the {GROUPS} groups with the highest CER." if len(bins) > GROUPS else ""
            sections.append(Section(f"by-{name}", f"CER by {name}", about + note, [chart], [table]))
    return sections


def _members(lines: Sequence[Scored], owners: Sequence[int], one: Bin, run: int) -> list[Scored]:
    return [lines[position] for position in one.positions if owners[position] == run]


def _table(
    readings: Sequence[Reading], lines: Sequence[Scored], owners: Sequence[int], name: str, what: str,
    bins: Sequence[Bin],
) -> Table:  # fmt: skip
    members = [[_members(lines, owners, one, run) for run in range(len(readings))] for one in bins]
    totals = [[report.total(each) for each in row] for row in members]
    same = all(each.lines == row[0].lines and each.characters == row[0].characters for row in totals for each in row)
    columns = [Column(what)]
    rows: list[list[Cell]] = [[one.label] for one in bins]
    for reading, run in zip(readings, range(len(readings)), strict=True):
        end = suffix(readings, reading)
        counts = not run or not same
        columns += [Column(f"lines{'' if same else end}", "count"), Column(f"characters{'' if same else end}", "count")
                    ] if counts else []  # fmt: skip
        columns += [Column(f"edits{end}", "count", "wrong, missing and extra characters")]
        columns += [Column(f"CER{end}", "percent", CER), Column(f"95 % interval{end}", "text", INTERVAL)]
        for row, each, its in zip(rows, totals, members, strict=True):
            one = each[run]
            row += [*((one.lines, one.characters) if counts else ()), one.edits, one.cer if one.lines else None,
                    between(report.uncertainty(its[run]).cer)]  # fmt: skip
    return Table(f"cer-by-{name}", f"CER by {name}", columns, rows)


def _bars(
    readings: Sequence[Reading], lines: Sequence[Scored], owners: Sequence[int], name: str, what: str,
    bins: Sequence[Bin],
) -> Chart:  # fmt: skip
    series = []
    for run, reading in enumerate(readings):
        members = [_members(lines, owners, one, run) for one in bins]
        totals = [report.total(each) for each in members]
        intervals = [report.uncertainty(each).cer for each in members]
        notes = [f"{one.label}: {total.edits:,} edits in {total.characters:,} characters, {total.lines:,} lines"
                 for one, total in zip(bins, totals, strict=True)]  # fmt: skip
        series.append(Series(reading.letter, [], [t.cer if t.lines else math.nan for t in totals], notes,
                             [found and (found.low, found.high) for found in intervals]))  # fmt: skip
    return Chart(f"cer-by-{name}", f"CER by {name}", "bars", what, "CER", series, [one.label for one in bins])


def frequent_edits(readings: Sequence[Reading]) -> list[tuple[Table, list[report.FrequentEdit]]]:
    """Return the most frequent edits of each run as a table, and as they are."""
    found = []
    share = Column("share", "percent", "of all edits, counting adjacent edits as one")
    columns = [Column("reference"), Column("read as"), Column("times", "count"), share, Column("for example")]
    for reading in readings:
        its = report.frequent_edits(reading.lines)
        every = sum(len(report.replacements(line.alignment)) for line in reading.lines)
        rows: list[list[Cell]] = []
        for one in its:
            change = f"[{symbol(one.reference)}→{symbol(one.hypothesis)}]"
            examples = " · ".join(f"{each.before}{change}{each.after}" for each in one.examples)
            rows.append([symbol(one.reference), symbol(one.hypothesis), one.times, one.times / every, examples])
        end = suffix(readings, reading)
        found.append((Table(f"edits{end.replace(' ', '-')}", f"Most frequent edits{end}", columns, rows), its))
    return found


def confusion_charts(readings: Sequence[Reading]) -> list[Chart]:
    """Return a matrix of confusions for each run."""
    charts = []
    for reading in readings:
        found = confusions(report.pairs(reading.lines))
        labels, series = [symbol(character) for character in found.hypotheses], []
        for row, character in enumerate(found.references):
            total, values, notes = found.occurrences[row], [], []
            for column, other in enumerate(found.hypotheses):
                count = found.counts[row][column]
                values.append(math.nan if character == other else float(count))
                what = "missing" if not other else f"read as {symbol(other)}" if character else f"{symbol(other)} added"
                share = f" ({count / total:.1%} of its occurrences)" if character and total else ""
                notes.append(f"{symbol(character) + ' ' if character else ''}{what}: {count:,} times{share}")
            series.append(Series(symbol(character), [], values, notes))
        end = suffix(readings, reading)
        charts.append(Chart(f"confusions{end.replace(' ', '-')}", f"Confusions{end}", "matrix", "read as", "reference",
                            series, labels, percent=False))  # fmt: skip
    return charts


def characters(readings: Sequence[Reading]) -> Section:
    """Return the recall of each character over its frequency."""
    columns = [Column("character"), Column("code"), Column("occurrences", "count", "in the references")]
    by_run = [{one.character: one for one in report.characters(report.pairs(r.lines))} for r in readings]
    rows: dict[str, list[Cell]] = {}
    for found in by_run:
        for character, one in found.items():
            code = " ".join(f"U+{ord(point):04X}" for point in character)
            rows.setdefault(character, [symbol(character), code, one.occurrences])
    series = []
    for reading, found in zip(readings, by_run, strict=True):
        end = suffix(readings, reading)
        columns += [Column(f"recall{end}", "percent", "occurrences that were read correctly"),
                    Column(f"otherwise read as{end}", "text", "the most frequent misreading; ∅: left out")]  # fmt: skip
        for character, row in rows.items():
            its = found.get(character)
            row += [its.recall, symbol(its.instead.hypothesis) if its.instead else ""] if its else [None, None]
        every = list(found.values())
        notes = [f"{symbol(one.character)}: {one.correct:,} of {one.occurrences:,} correct" for one in every]
        series.append(Series(reading.letter, [one.occurrences for one in every], [one.recall for one in every], notes))
    chart = Chart("characters", "Recall of characters", "points", "occurrences in the references", "recall", series,
                  log_x=True)  # fmt: skip
    return Section(
        "characters", "Characters", "Rare characters are usually read worse, because there were few to learn from. "
        "Each point is a character.", [chart], [Table("characters", "Characters", columns, list(rows.values()))],
    )  # fmt: skip
