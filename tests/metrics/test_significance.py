"""Intervals cover as often as they promise, and tests agree with their definitions."""

import math
from itertools import product

import numpy as np
import pytest

from htr_lightning.metrics.edits import line_counts
from htr_lightning.metrics.significance import (
    TOO_FEW,
    Interval,
    cer_difference,
    flip_test,
    holm,
    intervals,
    paired_difference,
    rate_interval,
    student_quantile,
)

CER = 0.1  # of all writers
SPREAD = 0.53  # coefficient of variation of the writers' CERs, as on the test lines of Copiste


def drawn(rng: np.random.Generator, writers: int, unequal: float = 0.5) -> tuple[list[int], list[int], list[str]]:
    """Return the edits, characters and writers of lines by random writers, whose CERs have the mean `CER`."""
    precision = CER * (1 - CER) / (SPREAD * CER) ** 2 - 1
    rates = rng.beta(CER * precision, (1 - CER) * precision, writers)
    counts = np.maximum(2, rng.lognormal(math.log(5), unequal, writers)).astype(int)
    groups = np.repeat(np.arange(writers), counts)
    characters = rng.integers(80, 280, len(groups))
    edits = rng.binomial(characters, rates[groups])
    return edits.tolist(), characters.tolist(), list(map(str, groups.tolist()))


@pytest.mark.parametrize("writers", [8, 30, 100])
def test_intervals_hold_the_truth_in_95_of_100_draws(writers: int) -> None:
    rng = np.random.default_rng(writers)
    covered = naive = 0
    for _ in range(1000):
        edits, characters, groups = drawn(rng, writers)
        found = rate_interval(edits, characters, groups)
        assert found is not None
        covered += found.low <= CER <= found.high
        rate = sum(edits) / sum(characters)
        naive += abs(rate - CER) <= 1.96 * math.sqrt(rate * (1 - rate) / sum(characters))
    assert 930 <= covered <= 970
    assert naive < 500  # characters are not independent


@pytest.mark.parametrize("writers", [8, pytest.param(30, marks=pytest.mark.slow)])
def test_differences_hold_the_truth_in_95_of_100_draws(writers: int) -> None:
    rng = np.random.default_rng(0)
    covered = significant = 0
    for _ in range(1000):
        first, characters, groups = drawn(rng, writers)
        gain = dict(zip(sorted(set(groups)), rng.normal(0, 0.02, writers), strict=True))
        by_line = np.array([gain[writer] for writer in groups])
        second = (first + np.sign(by_line) * rng.binomial(characters, np.abs(by_line))).tolist()
        found = paired_difference(first, second, characters, groups)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0 <= found.high
        significant += found.p <= 0.05
    assert 930 <= covered <= 970
    assert 30 <= significant <= 70


def test_an_interval_is_that_of_its_definition() -> None:
    found = rate_interval([3, 1, 4, 1, 5, 9, 2], [30, 20, 40, 25, 35, 50, 45], list("aabcdef"))
    assert found is not None
    e, n = np.array([4, 4, 1, 5, 9, 2.0]), np.array([50, 40, 25, 35, 50, 45.0])
    without = np.array([np.delete(e, i).sum() / np.delete(n, i).sum() for i in range(6)])
    error = math.sqrt(5 / 6 * ((without - without.mean()) ** 2).sum())
    rate, t = e.sum() / n.sum(), student_quantile(n.sum() ** 2 / (n**2).sum() - 1)
    assert found[:2] == pytest.approx((rate * math.exp(-t * error / rate), rate * math.exp(t * error / rate)))
    assert found[2:] == (6, "groups")


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1.0, 12.706205), (2.0, 4.302653), (3.0, 3.182446), (7.0, 2.364624), (29.0, 2.045230), (1e5, 1.959988)],
)
def test_quantiles_are_those_of_published_tables(freedom: float, quantile: float) -> None:
    assert student_quantile(freedom) == pytest.approx(quantile, abs=2e-5)


def test_quantiles_lie_between_those_of_whole_degrees_of_freedom() -> None:
    found = [student_quantile(freedom) for freedom in np.linspace(1, 10, 91).tolist()]
    assert found == sorted(found, reverse=True)


def test_groups_of_one_line_are_lines_and_few_lines_have_no_interval() -> None:
    counts = [line_counts("abcdefghij", "abcdefghix")] * 5 + [line_counts("abcdefghij", "abcdefghij")] * 5
    alone = intervals(counts, list(map(str, range(10))))
    assert alone.over == "over 10 lines"
    together = intervals(counts, ["one writer"] * 10)
    assert together.over == "over 10 lines, since there are too few groups"
    assert together.cer is not None
    assert alone.cer is not None
    assert together.cer[:2] == alone.cer[:2]
    assert intervals(counts[:2], list("ab")) == (None, None)
    assert intervals([], []) == (None, None)
    assert intervals([], []).over == ""
    assert rate_interval([1] * 9, [0] * 9, list("aabbccdde")) is None  # no reference has any text


def test_a_group_that_is_nearly_everything_is_no_sample_of_groups() -> None:
    found = rate_interval([1] * 100, [50] * 100, ["big"] * 91 + list("abcdefghi"))
    assert found is not None
    assert found.over == TOO_FEW


def test_without_edits_the_upper_limit_is_that_of_one() -> None:
    groups = [str(number // 5) for number in range(100)]
    none, one = (rate_interval([edits] + [0] * 99, [40] * 100, groups) for edits in (0, 1))
    assert none is not None
    assert one is not None
    assert none == Interval(0.0, one.high, 20, "groups")
    assert 3 / 4000 < none.high < 20 / 4000  # that of independent characters is 3.7 / 4000
    assert str(one).startswith("[0.00, 0.2")


def test_an_interval_does_not_depend_on_the_order_of_lines_or_how_texts_are_cut_into_lines() -> None:
    edits, characters, groups = drawn(np.random.default_rng(0), 12)
    found = rate_interval(edits, characters, groups)
    order = np.random.default_rng(1).permutation(len(edits))
    mixed = [[column[i] for i in order] for column in (edits, characters, groups)]
    assert rate_interval(*mixed)[:2] == pytest.approx(found[:2])
    halves = [[half for n in column for half in (n // 2, n - n // 2)] for column in (edits, characters)]
    assert rate_interval(*halves, [g for g in groups for _ in range(2)])[:2] == pytest.approx(found[:2])


def test_a_set_does_not_differ_from_itself() -> None:
    texts = ["abc", "de", "f"]
    assert cer_difference(texts, ["abx", "de", ""], ["abx", "de", ""], list("aab"))[:4] == (0, 0, 0, 1)
    assert cer_difference([], [], [], [])[:4] == (0, 0, 0, 1)


def test_a_difference_is_that_of_the_rates_and_antisymmetric() -> None:
    rng = np.random.default_rng(0)
    references = ["abcdefghij" * int(rng.integers(1, 5)) for _ in range(60)]
    first, second = ([text.replace("a", "x", int(rng.integers(0, 4))) for text in references] for _ in range(2))
    groups = [str(number // 6) for number in range(60)]
    one, other = cer_difference(references, first, second, groups), cer_difference(references, second, first, groups)
    cers = [sum(map(str.__ne__, "".join(side), "".join(references))) for side in (first, second)]
    assert one.value == pytest.approx((cers[1] - cers[0]) / sum(map(len, references)))
    assert (other.value, other.low, other.high) == pytest.approx((-one.value, -one.high, -one.low))
    assert one.p == other.p
    few = cer_difference(references[:3], first[:3], second[:3], groups[:3])
    assert few.low is None or few.value == 0


def test_the_p_value_is_the_fraction_of_flips_that_are_as_extreme() -> None:
    differences = [3, -1, 0, 2, 2, 5, -4, 0, 1]
    flips = [abs(sum(sign * one for sign, one in zip(signs, differences, strict=True)))
             for signs in product((1, -1), repeat=9)]  # fmt: skip
    assert flip_test(differences) == sum(one >= 8 for one in flips) / len(flips)
    assert flip_test([1.0] * 8) == 2 / 2**8
    assert flip_test([]) == flip_test([0, 0]) == flip_test([5]) == 1
    assert flip_test([0.1, 0.2, -0.3]) == 1  # sums of floats in another order are the same sum


def test_random_flips_agree_with_all_flips() -> None:
    differences = np.random.default_rng(0).normal(0.4, 1, 16).tolist()
    signs = np.array(list(product((1, -1), repeat=16)))
    exact = np.mean(np.abs(signs @ differences) >= abs(sum(differences)) - 1e-9)
    assert flip_test(differences) == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 9_999))
    assert flip_test([1] * 50) == 1 / 10_000


def test_p_values_of_several_tests_are_corrected() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1, 1]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
    rng = np.random.default_rng(0)
    for _ in range(50):  # by its definition: reject the smallest while p <= level / tests left
        p_values = rng.uniform(0, 0.1, 6).tolist()
        corrected = holm(p_values)
        for level in (0.01, 0.05, 0.1):
            rejected = set()
            for left, index in zip(range(6, 0, -1), np.argsort(p_values).tolist(), strict=True):
                if p_values[index] > level / left:
                    break
                rejected.add(index)
            assert rejected == {index for index, p in enumerate(corrected) if p <= level}
