"""Align two texts by edit operations."""

from collections.abc import Iterator, Sequence
from itertools import groupby, takewhile
from typing import NamedTuple

GAP = ""  # the counterpart of an inserted or deleted character


class Edit(NamedTuple):
    """An aligned pair of characters: a match, a substitution, a deletion (`hypothesis` is `GAP`) or an insertion
    (`reference` is `GAP`)."""

    reference: str
    hypothesis: str

    @property
    def correct(self) -> bool:
        return self.reference == self.hypothesis


def edits(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Edit]:
    """Return a minimum edit script from the characters or words of a reference to those of a hypothesis, matches
    included.

    The number of edits that are not `correct` is the Levenshtein distance (Wagner and Fischer, 1974, "The
    string-to-string correction problem"). Among minimum edit scripts, substitutions are preferred to insertions and
    deletions.
    """
    ends = sum(1 for _ in takewhile(_alike, zip(reversed(reference), reversed(hypothesis), strict=False)))
    tail = [Edit(character, character) for character in reference[len(reference) - ends :]]
    reference, hypothesis = reference[: len(reference) - ends], hypothesis[: len(hypothesis) - ends]
    return [*_backwards(reference, hypothesis)][::-1] + tail


def carried(before: str, after: str, values: Sequence[float]) -> list[float]:
    """Return a value for each character of a changed text, given those of the characters before the change.

    A character that replaces others has the smallest of their values, and one that replaces none has 1.
    """
    if before == after:
        return list(values)
    found: list[float] = []
    rest = iter(values)
    for correct, run in groupby(edits(before, after), key=lambda edit: edit.correct):
        changed = list(run)
        own = [next(rest) for edit in changed if edit.reference]
        new = sum(edit.hypothesis != GAP for edit in changed)
        found += own if correct else [min(own, default=1.0)] * new
    return found


def _alike(pair: tuple[str, str]) -> bool:
    return pair[0] == pair[1]


def _backwards(reference: Sequence[str], hypothesis: Sequence[str]) -> Iterator[Edit]:
    rows = _distances(reference, hypothesis)
    i, j = len(reference), len(hypothesis)
    while i or j:
        if i and j and rows[i][j] == rows[i - 1][j - 1] + (reference[i - 1] != hypothesis[j - 1]):
            i, j = i - 1, j - 1
            yield Edit(reference[i], hypothesis[j])
        elif i and rows[i][j] == rows[i - 1][j] + 1:
            i -= 1
            yield Edit(reference[i], GAP)
        else:
            j -= 1
            yield Edit(GAP, hypothesis[j])


def _distances(reference: Sequence[str], hypothesis: Sequence[str]) -> list[list[int]]:
    """Return the Levenshtein distance between each prefix of the reference and each prefix of the hypothesis."""
    rows = [list(range(len(hypothesis) + 1))]
    for i, expected in enumerate(reference, start=1):
        before, row = rows[-1], [i]
        for j, found in enumerate(hypothesis, start=1):
            row.append(min(before[j - 1] + (expected != found), before[j] + 1, row[-1] + 1))
        rows.append(row)
    return rows
