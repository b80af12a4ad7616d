"""Measures of confidences are compared with their definitions, computed one event at a time."""

import math
from itertools import permutations

import editdistance
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_lightning.metrics.confidence import (
    MEASURES,
    Trials,
    area_under_risk_coverage,
    brier_score,
    calibration_bins,
    calibration_error,
    line_trials,
    log_loss,
    risk_at,
    risk_coverage,
    unit_trials,
)

distinct = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40, unique_by=lambda one: one[0])


def trials(some: list[tuple[float, bool]]) -> list[Trials]:
    return [Trials(probability, int(right), 1) for probability, right in some]


@given(distinct, st.integers(1, 20))
def test_the_error_is_the_sum_over_bins_of_equal_size_of_the_gap_between_accuracy_and_confidence(some, bins) -> None:
    ordered, start, expected = sorted(some), 0, 0.0
    for k in range(bins):  # the first bins have one event more if they cannot be equal
        size = len(some) // bins + (k < len(some) % bins)
        inside = ordered[start : start + size]
        start += size
        if inside:
            expected += abs(sum(right for _, right in inside) - sum(p for p, _ in inside)) / len(some)
    assert calibration_error(trials(some), bins) == pytest.approx(expected, abs=1e-9)
    assert sum(one.events for one in calibration_bins(trials(some), bins)) == len(some)


@given(distinct)
def test_scores_are_means_over_events(some) -> None:
    assert brier_score(trials(some)) == pytest.approx(sum((p - right) ** 2 for p, right in some) / len(some))
    clipped = [(min(max(p, 1e-7), 1 - 1e-7), right) for p, right in some]
    expected = -sum(math.log(p if right else 1 - p) for p, right in clipped) / len(some)
    assert log_loss(trials(some)) == pytest.approx(expected)


@given(distinct)
def test_the_area_is_the_mean_risk_over_all_coverages(some) -> None:
    surest = sorted(some, reverse=True)
    risks = [sum(not right for _, right in surest[:k]) / k for k in range(1, len(some) + 1)]
    assert risk_coverage(trials(some)).risk == pytest.approx(risks)
    assert risk_coverage(trials(some)).coverage == pytest.approx([k / len(some) for k in range(1, len(some) + 1)])
    assert area_under_risk_coverage(trials(some)) == pytest.approx(sum(risks) / len(some))
    assert risk_at(trials(some), 1.0) == pytest.approx(risks[-1])


def test_events_of_equal_confidence_count_as_in_random_order() -> None:
    right = [True, True, False, True]
    orders = list(permutations(right))
    expected = sum(sum(sum(not one for one in order[:k]) / k for k in range(1, 5)) / 4 for order in orders) / len(
        orders
    )
    assert area_under_risk_coverage(trials([(0.5, one) for one in right])) == pytest.approx(expected)


@given(st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.9]), st.booleans()), max_size=20), st.randoms())
def test_the_order_of_events_and_their_grouping_do_not_matter(some, draw) -> None:
    shuffled = draw.sample(some, len(some))
    grouped = [
        Trials(p, sum(right for q, right in some if q == p), sum(q == p for q, _ in some)) for p in (0.2, 0.5, 0.9)
    ]
    for measure in MEASURES.values():
        assert measure(trials(shuffled)) == pytest.approx(measure(trials(some))) == pytest.approx(measure(grouped))


@given(distinct)
def test_a_perfect_order_has_the_smallest_area(some) -> None:
    oracle = [(0.5 + 0.5 * right, right) for _, right in some]
    assert area_under_risk_coverage(trials(oracle)) <= area_under_risk_coverage(trials(some)) + 1e-12
    assert brier_score(trials([(float(right), right) for _, right in some])) == 0


@given(st.text("ab", max_size=6), st.text("ab", max_size=6))
def test_every_edit_makes_one_character_of_a_line_wrong(reference: str, hypothesis: str) -> None:
    found = line_trials(reference, hypothesis, 0.5)
    edits = editdistance.eval(reference, hypothesis)
    assert found.events == (len(hypothesis) or 1)
    assert found.events - found.correct == min(edits, found.events)


@given(st.text("ab ", max_size=8), st.text("ab ", max_size=8))
def test_characters_and_words_have_a_trial_each(reference: str, hypothesis: str) -> None:
    for units in (list, str.split):
        mine, read = units(reference), units(hypothesis)
        found = unit_trials(mine, read, [0.5] * len(read))
        assert len(found) == len(read)
        assert sum(one.correct for one in found) <= min(len(mine), len(read))
        # what is wrong or missing is an edit; a minimum script may trade a match for fewer edits
        assert len(read) - sum(one.correct for one in found) <= editdistance.eval(mine, read)
    assert all(one.correct for one in unit_trials(reference, reference, [0.5] * len(reference)))


def test_nothing_has_no_error() -> None:
    assert [measure([]) for measure in MEASURES.values()] == [0] * 4
    assert risk_at([], 0.8) == 0
