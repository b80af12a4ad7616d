"""Character and word error rates as integer edit counts."""

from collections.abc import Sequence
from typing import NamedTuple

import editdistance

DEFINITION = {
    "cer": "sum of Levenshtein distances over code points / sum of reference code points, over the whole set (micro)",
    "wer": "sum of Levenshtein distances over words / sum of reference words; words are split at white space",
    "line_accuracy": "lines without an edit / lines",
    "empty_reference": "insertions count as edits, no characters are added; a set without characters divides by 1",
}


class EditTotals(NamedTuple):
    """Edit counts of a set of lines and the rates that follow, as fractions."""

    edits: int
    characters: int
    word_edits: int
    words: int
    correct_lines: int
    lines: int
    empty_references: int

    @property
    def cer(self) -> float:
        return self.edits / max(1, self.characters)

    @property
    def wer(self) -> float:
        return self.word_edits / max(1, self.words)

    @property
    def line_accuracy(self) -> float:
        return self.correct_lines / max(1, self.lines)


def line_counts(reference: str, hypothesis: str) -> EditTotals:
    """The edit counts of one line; normalise both texts first."""
    edits = editdistance.eval(reference, hypothesis)
    words, read = reference.split(), hypothesis.split()
    return EditTotals(
        edits, len(reference), editdistance.eval(words, read) if edits else 0, len(words), int(not edits), 1,
        int(not reference),
    )  # fmt: skip


def count_edits(references: Sequence[str], hypotheses: Sequence[str]) -> EditTotals:
    """The counts of some lines: `references[i]` against `hypotheses[i]`."""
    lines = [line_counts(r, h) for r, h in zip(references, hypotheses, strict=True)]
    return EditTotals(*map(sum, zip(*lines, strict=True))) if lines else EditTotals(*[0] * len(EditTotals._fields))
