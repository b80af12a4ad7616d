"""Confidence intervals of error rates, and tests of the difference between two sets of transcriptions.

The lines of a group (a writer, document or page) have errors in common, so that lines and characters are not
independent observations. Intervals and tests therefore use whole groups, and lines only if there are too few groups.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from htr_lightning.metrics.edits import EditTotals, line_counts

Numbers = Sequence[int | float]
MIN_UNITS = 3.0  # effective number of groups or lines from which an interval is given
EXACT = 13  # number of groups up to which all sign flips are tried
FLIPS = 9_999  # number of random sign flips if there are more groups
TOO_FEW = "lines, since there are too few groups"
DEFINITION = {
    "interval": "95 %: rate * exp(+- t * se / rate); se is the jackknife standard error over groups, and t a quantile "
    "of Student's distribution with n - 1 degrees of freedom, where n = (sum of sizes) ** 2 / sum of sizes ** 2 is the "
    "effective number of groups (Kish); over lines if n < 3, which says nothing about other groups; the upper limit "
    "without edits is that of a single edit",
    "difference": "difference of two rates on the same lines +- t * se, with se and t as above",
    "p": "two-sided paired permutation test: the fraction of sign flips of the groups' differences whose sum is at "
    "least as large as the observed sum",
}


class Interval(NamedTuple):
    """A 95 % confidence interval of a rate, and the number and kind of units that it takes as independent."""

    low: float
    high: float
    units: int
    over: str  # "groups", "lines" if each line is a group of its own, or `TOO_FEW`

    def __str__(self) -> str:
        return f"[{100 * self.low:.2f}, {100 * self.high:.2f}]"


class Difference(NamedTuple):
    """The difference between two rates on the same lines, its 95 % confidence interval and its p-value."""

    value: float
    low: float | None  # None if there are too few lines for an interval
    high: float | None
    p: float
    units: int
    over: str  # as in `Interval`


class Intervals(NamedTuple):
    """The 95 % confidence intervals of the CER and the WER; None if there are too few lines."""

    cer: Interval | None
    wer: Interval | None

    @property
    def over(self) -> str:
        """What the intervals take as independent, as a phrase; empty if there are none."""
        one = self.cer or self.wer
        return f"over {one.units} {one.over}" if one else ""

    def to_plain(self) -> dict[str, dict[str, float | int | str] | None]:
        """Return the intervals as plain data, under `cer_interval` and `wer_interval`."""
        return {f"{name}_interval": one and one._asdict() for name, one in self._asdict().items()}


class _Units(NamedTuple):
    """Independent units of a set of lines: the unit of each line, the sizes of the units and what they are."""

    of_line: ndarray
    sizes: Float[ndarray, " U"]
    over: str

    @property
    def effective(self) -> float:
        """The number of units of equal size that vary as much in sum (Kish, 1965, "Survey Sampling", section 8.2)."""
        return float(self.sizes.sum() ** 2 / max(1.0, (self.sizes**2).sum()))

    @property
    def quantile(self) -> float:
        return student_quantile(self.effective - 1)

    def sums(self, values: Numbers) -> Float[ndarray, " U"]:
        return np.bincount(self.of_line, np.asarray(values, float), len(self.sizes)).astype(float)  # of none: integers


def intervals(lines: Sequence[EditTotals], groups: Sequence[str]) -> Intervals:
    """Return the 95 % confidence intervals of the CER and WER of lines; see `rate_interval`."""
    return Intervals(
        rate_interval([one.edits for one in lines], [one.characters for one in lines], groups),
        rate_interval([one.word_edits for one in lines], [one.words for one in lines], groups),
    )


def cer_difference(
    references: Sequence[str], before: Sequence[str], after: Sequence[str], groups: Sequence[str]
) -> Difference:
    """Return the CER of `after` minus that of `before`, two transcriptions of each line; see `paired_difference`."""
    first, second = ([line_counts(r, h) for r, h in zip(references, side, strict=True)] for side in (before, after))
    sizes = [one.characters for one in first]
    return paired_difference([one.edits for one in first], [one.edits for one in second], sizes, groups)


def rate_interval(edits: Numbers, sizes: Numbers, groups: Sequence[str]) -> Interval | None:
    """Return the 95 % confidence interval of an error rate: the sum of edits divided by the sum of sizes.

    On simulated writers it covers as often as it promises, which neither the percentile bootstrap nor its BCa variant
    does, and it is narrower than the bootstrap-t (see experiments/README.md). See `DEFINITION`.

    Args:
        edits: number of edits of each line.
        sizes: number of reference characters or words of each line.
        groups: group of each line.

    Returns:
        The interval, or None if there are too few lines for it.
    """
    units = _units(sizes, groups)
    if units.effective < MIN_UNITS:
        return None
    found = units.sums(edits)
    if correct := not found.any():
        found[units.sizes.argmax()] = 1
    rate = found.sum() / units.sizes.sum()
    factor = math.exp(units.quantile * _standard_error(found, units.sizes) / rate)
    return Interval(0.0 if correct else rate / factor, rate * factor, len(units.sizes), units.over)


def paired_difference(before: Numbers, after: Numbers, sizes: Numbers, groups: Sequence[str]) -> Difference:
    """Return the rate of `after` minus that of `before`; see `DEFINITION`.

    Args:
        before: number of edits of each line in the first set of transcriptions, or its mean over several runs.
        after: the same for the second set.
        sizes: number of reference characters or words of each line.
        groups: group of each line.
    """
    units = _units(sizes, groups)
    found = units.sums(np.subtract(after, before).tolist())
    total = max(1.0, units.sizes.sum())
    value = found.sum() / total
    if not found.any():
        margin: float | None = 0.0
    elif units.effective < MIN_UNITS:
        margin = None
    else:
        margin = units.quantile * _standard_error(found, units.sizes)
    low, high = (None, None) if margin is None else (float(value - margin), float(value + margin))
    return Difference(float(value), low, high, flip_test(found.tolist()), len(units.sizes), units.over)


def flip_test(differences: Numbers, seed: int = 0) -> float:
    """Return the two-sided p-value of a paired permutation test, which flips the signs of differences.

    All flips are tried for up to `EXACT` differences other than zero; otherwise `FLIPS` random ones, to which the
    observed signs are added (Phipson and Smyth, 2010, "Permutation p-values should never be zero").
    """
    nonzero = np.array([one for one in differences if one])
    observed = abs(nonzero.sum()) * (1 - 1e-9)  # sums of floats in another order
    if len(nonzero) <= EXACT:
        signs = np.array(list(product((1, -1), repeat=len(nonzero)))).reshape(2 ** len(nonzero), len(nonzero))
        return float(np.mean(np.abs(signs @ nonzero) >= observed))
    rng = np.random.default_rng(seed)
    extreme = sum(int(np.sum(np.abs(signs @ nonzero) >= observed)) for signs in _random_signs(rng, len(nonzero)))
    return (extreme + 1) / (FLIPS + 1)


def _random_signs(rng: np.random.Generator, count: int, rows: int = 1111) -> Iterator[Float[ndarray, "R N"]]:
    """Yield `FLIPS` rows of random signs, a few at a time, because there may be thousands of lines."""
    for start in range(0, FLIPS, rows):
        yield rng.integers(0, 2, (min(rows, FLIPS - start), count)) * 2.0 - 1


def holm(p_values: Numbers) -> list[float]:
    """Return the p-values of several tests, corrected by the method of Holm (1979)."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


@lru_cache(maxsize=256)
def student_quantile(freedom: float) -> float:
    """Return the 97.5 % quantile of Student's distribution; the degrees of freedom, at least 1, need not be whole.

    For t = sqrt(freedom) * tan(angle), the density of the angle is proportional to cos(angle) ** (freedom - 1).
    """
    angles = np.linspace(0, min(math.pi / 2, 12 / math.sqrt(freedom)), 20_001)
    density = np.cos(angles) ** (freedom - 1)
    below = np.append(0.0, np.cumsum(density[1:] + density[:-1]))  # by the trapezoidal rule
    return math.sqrt(freedom) * math.tan(float(np.interp(0.95, below / below[-1], angles)))


def _units(sizes: Numbers, groups: Sequence[str]) -> _Units:
    """Return the groups as units, or the lines if there are too few groups or each line is a group of its own."""
    weights = np.asarray(sizes, float)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    of_line = np.array([numbers[name] for name in groups], int)
    units = _Units(of_line, np.bincount(of_line, weights, len(numbers)).astype(float), "groups")
    if len(numbers) < len(groups) and units.effective >= MIN_UNITS:
        return units
    return _Units(np.arange(len(weights)), weights, "lines" if len(numbers) == len(groups) else TOO_FEW)


def _standard_error(found: Float[ndarray, " U"], sizes: Float[ndarray, " U"]) -> float:
    """Return the jackknife standard error of the ratio of two sums, leaving out one unit at a time."""
    without = (found.sum() - found) / (sizes.sum() - sizes)
    return float(np.sqrt((len(sizes) - 1) / len(sizes) * ((without - without.mean()) ** 2).sum()))
