"""Edit operations between two texts."""

from collections.abc import Iterator
from itertools import takewhile
from typing import NamedTuple

NONE = ""  # where a text has no character


class Edit(NamedTuple):
    """What becomes of a character: kept, replaced, lost (`read` is `NONE`) or put in (`written` is `NONE`)."""

    written: str
    read: str

    @property
    def right(self) -> bool:
        return self.written == self.read


def edits(reference: str, hypothesis: str) -> list[Edit]:
    """The operations that turn the reference into the hypothesis, in order, with the fewest that are not right.

    Their `written` joined is the reference, their `read` the hypothesis, and the wrong ones are as many as the
    Levenshtein distance (Wagner and Fischer, 1974, "The string-to-string correction problem"). Of several such lists it
    is the one that replaces rather than loses and puts in.
    """
    ends = sum(1 for _ in takewhile(_alike, zip(reversed(reference), reversed(hypothesis), strict=False)))
    tail = [Edit(character, character) for character in reference[len(reference) - ends :]]
    reference, hypothesis = reference[: len(reference) - ends], hypothesis[: len(hypothesis) - ends]
    return [*_backwards(reference, hypothesis)][::-1] + tail


def _alike(pair: tuple[str, str]) -> bool:
    return pair[0] == pair[1]


def _backwards(reference: str, hypothesis: str) -> Iterator[Edit]:
    rows = _distances(reference, hypothesis)
    i, j = len(reference), len(hypothesis)
    while i or j:
        if i and j and rows[i][j] == rows[i - 1][j - 1] + (reference[i - 1] != hypothesis[j - 1]):
            i, j = i - 1, j - 1
            yield Edit(reference[i], hypothesis[j])
        elif i and rows[i][j] == rows[i - 1][j] + 1:
            i -= 1
            yield Edit(reference[i], NONE)
        else:
            j -= 1
            yield Edit(NONE, hypothesis[j])


def _distances(reference: str, hypothesis: str) -> list[list[int]]:
    """Of every beginning of the reference to every beginning of the hypothesis."""
    rows = [list(range(len(hypothesis) + 1))]
    for i, written in enumerate(reference, start=1):
        before, row = rows[-1], [i]
        for j, read in enumerate(hypothesis, start=1):
            row.append(min(before[j - 1] + (written != read), before[j] + 1, row[-1] + 1))
        rows.append(row)
    return rows
