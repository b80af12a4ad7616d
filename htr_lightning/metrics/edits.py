"""Character and word error rates as integer edit counts."""

from collections.abc import Sequence
from typing import NamedTuple

import editdistance
import torch
from torch import Tensor
from torchmetrics import Metric

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


class EditCounts(Metric):
    """Edit counts summed over lines, batches and ranks; rates are computed once, at the end.

    Nothing is averaged over batches or ranks, so the result depends on neither. It equals torchmetrics' `CharErrorRate`
    and `WordErrorRate` where those are defined; an empty reference is counted instead of giving NaN.
    """

    full_state_update = False
    higher_is_better = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(len(EditTotals._fields), dtype=torch.int64), dist_reduce_fx="sum")

    counts: Tensor

    def update(self, references: Sequence[str], hypotheses: Sequence[str]) -> None:
        """Add lines: `references[i]` against `hypotheses[i]`."""
        lines = [line_counts(r, h) for r, h in zip(references, hypotheses, strict=True)]
        if lines:
            self.counts += torch.tensor([sum(column) for column in zip(*lines, strict=True)]).to(self.counts)

    def compute(self) -> EditTotals:
        return EditTotals(*self.counts.tolist())
