"""Count which characters are read as which others."""

from collections import Counter
from typing import NamedTuple

from htr_lightning.text.align import GAP, Edit


class Confusions(NamedTuple):
    """How often each of some reference characters was read as each of some characters, `GAP` included."""

    references: list[str]
    hypotheses: list[str]
    counts: list[list[int]]
    occurrences: list[int]  # of each reference character; edits of `GAP` are insertions


def confusions(counted: Counter[Edit], size: int = 20) -> Confusions:
    """Return the confusions among the characters that take part in most edits, and what is missing or inserted."""
    involved: Counter[str] = Counter()
    occurrences: Counter[str] = Counter()
    for edit, count in counted.items():
        occurrences[edit.reference] += count
        for character in {edit.reference, edit.hypothesis} - {GAP} if not edit.correct else ():
            involved[character] += count
    shown = sorted(involved, key=lambda character: (-involved[character], character))[:size]
    shown = [*sorted(shown), GAP] if shown else []
    counts = [[counted[Edit(reference, hypothesis)] for hypothesis in shown] for reference in shown]
    return Confusions(shown, shown, counts, [occurrences[character] for character in shown])
