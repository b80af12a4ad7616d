"""Compare two readings of the same lines."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from htr_lightning.metrics.edits import line_counts

QUANTILE = 1.96  # of the standard normal distribution, for 95 %


class Difference(NamedTuple):
    """The difference between the CERs of two readings of the same lines, with its 95 % confidence interval."""

    value: float
    low: float
    high: float


def cer_difference(references: Sequence[str], before: Sequence[str], after: Sequence[str]) -> Difference:
    """Return the CER of `after` minus that of `before`, with an interval for other lines like these.

    The interval is paired: it rests on the difference of each line, and is far narrower than those of the two rates.
    It takes the difference as a ratio of sums over independent lines and linearises it (Cochran, 1977, "Sampling
    Techniques", section 6.4). It says nothing about other writers.
    """
    differences, lengths = [], []
    for reference, first, second in zip(references, before, after, strict=True):
        one, other = line_counts(reference, first), line_counts(reference, second)
        differences.append(other.edits - one.edits)
        lengths.append(one.characters)
    characters = max(1, sum(lengths))
    value = sum(differences) / characters
    lines = len(differences)
    squares = math.fsum((d - value * n) ** 2 for d, n in zip(differences, lengths, strict=True))
    error = math.sqrt(squares * lines / max(1, lines - 1)) / characters
    return Difference(value, value - QUANTILE * error, value + QUANTILE * error)
