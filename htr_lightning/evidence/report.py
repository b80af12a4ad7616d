"""Compute what a report shows of the predictions for a split: where the errors are, and of which kind they are."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from htr_lightning.metrics import edits as metric
from htr_lightning.metrics.edits import EditTotals, line_counts
from htr_lightning.metrics.significance import Intervals, intervals
from htr_lightning.text.align import Edit, edits
from htr_lightning.transcription import Prediction

CONTEXT = 6  # characters shown on each side of an edit
EXAMPLES = 3  # of the context of an edit
MERGED = 8  # longest reference or hypothesis of an edit; longer ones are other text rather than a confusion


class Scored(NamedTuple):
    """A prediction with its edit counts and its alignment."""

    prediction: Prediction
    counts: EditTotals
    alignment: list[Edit]


class Bin(NamedTuple):
    """Lines that have something in common, such as their group or a range of lengths, by their positions."""

    label: str
    positions: list[int]


class Replacement(NamedTuple):
    """Adjacent edits as one: part of a reference, and what was read in its place; either may be `GAP`."""

    reference: str
    hypothesis: str
    before: str  # the reference on its left
    after: str


class FrequentEdit(NamedTuple):
    """An edit that occurs several times, with examples of its context."""

    reference: str
    hypothesis: str
    times: int
    examples: list[Replacement]


class Character(NamedTuple):
    """How often a character occurs in the references, and how often it was read."""

    character: str
    occurrences: int
    correct: int
    instead: Edit | None  # its most frequent misreading

    @property
    def recall(self) -> float:
        return self.correct / self.occurrences


def score(predictions: Iterable[Prediction]) -> list[Scored]:
    """Count and align the edits of predictions."""
    return [
        Scored(one, line_counts(one.reference, one.hypothesis), edits(one.reference, one.hypothesis))
        for one in predictions
    ]


def total(lines: Iterable[Scored]) -> EditTotals:
    """Add up the edit counts of lines."""
    return metric.total([one.counts for one in lines])


def uncertainty(lines: Sequence[Scored]) -> Intervals:
    """Return the 95 % confidence intervals of the CER and WER of lines."""
    return intervals([one.counts for one in lines], [one.prediction.group for one in lines])


def by_name(names: Sequence[str]) -> list[Bin]:
    """Return the lines with each name, such as that of their group, in the order in which they occur."""
    found: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        found.setdefault(name, []).append(position)
    return [Bin(*each) for each in found.items()]


def quantile_edges(values: Iterable[float], bins: int = 6) -> list[float]:
    """Return the edges between bins with equal numbers of values; fewer if many values are equal."""
    ordered = sorted(values)
    inner = [ordered[len(ordered) * k // bins - 1] for k in range(1, bins) if len(ordered) * k // bins]
    return sorted(set(inner) - {ordered[-1]}) if ordered else []


def by_value(values: Sequence[float | None], edges: Sequence[float], form: str = "{:.0f}") -> list[Bin]:
    """Return the lines in each bin of a measured value, in ascending order, without empty bins.

    Args:
        values: value of each line; lines without one are left out.
        edges: largest value in each bin but the last.
        form: format of the smallest and the largest value in a bin, which are its label.
    """
    found: dict[int, list[int]] = {}
    for position, value in enumerate(values):
        if value is not None:
            found.setdefault(int(np.searchsorted(edges, value)), []).append(position)
    members = [found[key] for key in sorted(found)]
    return [Bin(_range([values[p] or 0.0 for p in positions], form), positions) for positions in members]


def _range(values: Sequence[float], form: str) -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"


def replacements(alignment: Sequence[Edit]) -> list[Replacement]:
    """Return the edits of a line, with adjacent ones as one."""
    found, position = [], 0
    reference = "".join(edit.reference for edit in alignment)
    for correct, run in groupby(alignment, key=lambda edit: edit.correct):
        pairs = list(run)
        end = position + sum(len(edit.reference) for edit in pairs)
        if not correct:
            before, after = reference[max(0, position - CONTEXT) : position], reference[end : end + CONTEXT]
            found.append(
                Replacement(reference[position:end], "".join(edit.hypothesis for edit in pairs), before, after)
            )
        position = end
    return found


def frequent_edits(lines: Iterable[Scored], count: int = 40) -> list[FrequentEdit]:
    """Return the most frequent edits with examples of their context; see `Replacement`."""
    found: dict[tuple[str, str], list[Replacement]] = {}
    for line in lines:
        for one in replacements(line.alignment):
            if max(len(one.reference), len(one.hypothesis)) <= MERGED:
                found.setdefault((one.reference, one.hypothesis), []).append(one)
    ordered = sorted(found, key=lambda key: (-len(found[key]), key))[:count]
    return [FrequentEdit(*key, len(found[key]), found[key][:EXAMPLES]) for key in ordered]


def pairs(lines: Iterable[Scored]) -> Counter[Edit]:
    """Count the aligned pairs of characters."""
    return Counter(edit for line in lines for edit in line.alignment)


def characters(counted: Counter[Edit]) -> list[Character]:
    """Return the characters of the references, the most frequent first."""
    reads: dict[str, Counter[Edit]] = {}
    for edit, count in counted.items():
        if edit.reference:
            reads.setdefault(edit.reference, Counter())[edit] += count
    found = []
    for character, its in reads.items():
        wrong = [edit for edit in its if not edit.correct]
        instead = min(wrong, key=lambda edit: (-its[edit], edit.hypothesis), default=None)
        found.append(Character(character, its.total(), its[Edit(character, character)], instead))
    return sorted(found, key=lambda one: (-one.occurrences, one.character))


def edit_script(alignment: Sequence[Edit]) -> str:
    """Return an alignment as run lengths of matches (=), substitutions (s), deletions (d) and insertions (i)."""
    kinds = ("=" if e.correct else "s" if e.reference and e.hypothesis else "d" if e.reference else "i"
             for e in alignment)  # fmt: skip
    return "".join(f"{len(list(run))}{kind}" for kind, run in groupby(kinds))


def worst(edit_totals: Sequence[int], confidences: Sequence[float], count: int) -> list[int]:
    """Return the positions of the lines with the most edits; ties are broken by confidence, highest first."""
    wrong = [position for position, found in enumerate(edit_totals) if found]
    return sorted(wrong, key=lambda position: (-edit_totals[position], -confidences[position], position))[:count]


def typical(edit_totals: Sequence[int], lengths: Sequence[int], count: int) -> list[int]:
    """Return the positions of the lines whose own CER is nearest that of all lines together."""
    rate = sum(edit_totals) / max(1, sum(lengths))
    distance = [abs(found / max(1, length) - rate) for found, length in zip(edit_totals, lengths, strict=True)]
    return sorted(range(len(distance)), key=lambda position: (distance[position], -lengths[position], position))[:count]


def drawn(lines: int, count: int, seed: int = 0) -> list[int]:
    """Return the positions of random lines, the same ones each time."""
    return random.Random(seed).sample(range(lines), min(count, lines))
