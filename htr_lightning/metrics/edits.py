"""Compute character and word error rates from integer edit counts."""

from collections.abc import Sequence
from typing import NamedTuple

import editdistance

DEFINITION = {
    "cer": "sum of Levenshtein distances over code points / sum of reference code points, over the whole set (micro)",
    "wer": "sum of Levenshtein distances over words / sum of reference words; words are separated by whitespace",
    "line_accuracy": "lines without edits / lines",
    "empty_reference": "insertions into an empty reference count as edits, but it adds nothing to the denominator; a "
    "denominator of 0 is replaced by 1",
}


class EditTotals(NamedTuple):
    """The edit counts over a set of lines, with the error rates as fractions."""

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
    """Count the edits between the two texts of a line, both of which must already be normalised."""
    edits = editdistance.eval(reference, hypothesis)
    words, read = reference.split(), hypothesis.split()
    return EditTotals(
        edits, len(reference), editdistance.eval(words, read) if edits else 0, len(words), int(not edits), 1,
        int(not reference),
    )  # fmt: skip


def count_edits(references: Sequence[str], hypotheses: Sequence[str]) -> EditTotals:
    """Count the edits in several lines, comparing `references[i]` with `hypotheses[i]`."""
    return total([line_counts(r, h) for r, h in zip(references, hypotheses, strict=True)])


def total(lines: Sequence[EditTotals]) -> EditTotals:
    """Sum the counts of lines."""
    return EditTotals(*map(sum, zip(*lines, strict=True))) if lines else EditTotals(*[0] * len(EditTotals._fields))
