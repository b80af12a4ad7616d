"""Calibration is compared with its definition by brute force and on simulated readers."""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_lightning.decoder.rover import WeightedHypothesis, rover
from htr_lightning.metrics.calibration import (
    Calibration,
    PlattScaling,
    check_calibration,
    check_platt_scaling,
    fit_platt_scaling,
)
from htr_lightning.metrics.confidence import Trials, calibration_error, line_trials

scales = st.builds(PlattScaling, st.floats(0.1, 10), st.floats(-9, 9))


@given(st.floats(0, 1), st.floats(0, 1), scales)
def test_platt_scaling_is_monotonic_and_gives_probabilities(one: float, other: float, scale: PlattScaling) -> None:
    low, high = sorted([scale(one), scale(other)])
    assert 0 <= low <= high <= 1
    assert (scale(min(one, other)), scale(max(one, other))) == (low, high)
    assert PlattScaling()(one) == one
    assert scale(0.5) == pytest.approx(1 / (1 + math.exp(-scale.bias)))


@given(st.floats(0.01, 0.99), st.floats(0.5, 2), st.floats(-2, 2))
def test_platt_scaling_is_invertible(probability: float, slope: float, bias: float) -> None:
    assert PlattScaling(1 / slope, -bias / slope)(PlattScaling(slope, bias)(probability)) == pytest.approx(
        probability, abs=1e-4
    )


def cost(some: list[Trials], scale: PlattScaling) -> float:
    """The negative log of likelihood times prior, up to a constant."""
    found = [(scale(p), right, events) for p, right, events in some]
    likelihood = sum(right * math.log(p) + (events - right) * math.log(1 - p) for p, right, events in found)
    return ((scale.slope - 1) ** 2 + scale.bias**2) / 2 - likelihood


@given(st.lists(st.tuples(st.floats(0.05, 0.95), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8))
def test_the_fit_is_at_least_as_likely_as_every_grid_point(some: list[tuple[float, int, int]]) -> None:
    given_ = [Trials(p, right, right + wrong) for p, right, wrong in some]
    grid = [cost(given_, PlattScaling(a / 4, b / 4)) for a in range(1, 20) for b in range(-20, 21)]
    found = fit_platt_scaling(given_)
    assert found.slope == 0.01 or cost(given_, found) <= min(grid) + 1e-6


@pytest.mark.parametrize("scale", [PlattScaling(0.4, 0.0), PlattScaling(2.0, 1.5), PlattScaling(0.7, -1.0)])
def test_a_known_scaling_is_recovered(scale: PlattScaling) -> None:
    """Events that come true exactly as often as the scaled probability says."""
    given_ = [Trials(k / 40, round(scale(k / 40) * 10**6), 10**6) for k in range(2, 39)]
    assert fit_platt_scaling(given_) == pytest.approx(scale, abs=1e-3)
    assert calibration_error(given_) > 0.1
    assert calibration_error([one._replace(probability=scale(one.probability)) for one in given_]) < 1e-3


def test_the_fit_is_finite_for_few_lines_or_only_correct_ones() -> None:
    assert fit_platt_scaling([]) == PlattScaling() == fit_platt_scaling([Trials(0.9, 0, 0)])
    surer = fit_platt_scaling([Trials(0.9, 50, 50), Trials(0.99, 70, 70)])
    assert 0.9 < surer(0.9) < 1
    assert fit_platt_scaling([Trials(0.9, 0, 99), Trials(0.1, 99, 99)]).slope >= 0.01


@pytest.mark.parametrize("values", [(0, 0), (-1, 0), (math.nan, 0), (math.inf, 0), (1, math.nan), (1,), ("x", "1")])
def test_invalid_values_are_rejected(values) -> None:
    with pytest.raises(ValueError, match=r"calibration|convert|unpack"):
        check_platt_scaling([value if isinstance(value, str) else float(value) for value in values])


def test_a_calibration_is_six_numbers_or_the_two_of_lines() -> None:
    full = Calibration(PlattScaling(2.0, 1.0), PlattScaling(0.5, -1.0), PlattScaling(3.0, 0.0))
    assert check_calibration(full.numbers()) == full
    assert check_calibration([2.0, 1.0]) == Calibration(line=PlattScaling(2.0, 1.0))
    for wrong in ([1.0], [1.0, 0.0] * 2, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]):
        with pytest.raises(ValueError, match="calibration"):
            check_calibration(wrong)


def simulated(lines: int, seed: int, overconfidence: float) -> list[tuple[str, list[WeightedHypothesis]]]:
    """Lines, each with hypotheses of three members that make random errors and are overconfident."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(lines):
        truth = "".join(rng.choice(list("abcdefgh"), 12))
        hypotheses = []
        for member in range(3):
            right = float(rng.uniform(0.6, 0.98))
            text = "".join(c if rng.random() < right else str(rng.choice(list("ijklmnop"))) for c in truth)
            hypotheses.append(WeightedHypothesis(text, PlattScaling(overconfidence)(right), member))
        found.append((truth, hypotheses))
    return found


@pytest.mark.parametrize("overconfidence", [1.0, 2.0])
def test_a_calibrated_ensemble_is_as_well_calibrated_as_its_members_and_more_accurate(overconfidence: float) -> None:
    fitting, measured = (simulated(600, seed, overconfidence) for seed in (0, 1))

    def of(lines, reader) -> list[Trials]:
        read = [(truth, reader(hypotheses)) for truth, hypotheses in lines]
        return [line_trials(truth, hypothesis.text, hypothesis.confidence) for truth, hypothesis in read]

    def error(reader) -> tuple[float, float]:
        scale = fit_platt_scaling(of(fitting, reader))
        given_ = [t._replace(probability=scale(t.probability)) for t in of(measured, reader)]
        return calibration_error(given_), sum(t.correct for t in given_) / sum(t.events for t in given_)

    members = [error(lambda hypotheses, n=n: hypotheses[n]) for n in range(3)]
    equal = partial(rover, weights=[1.0] * 3)
    vote = error(equal)
    assert vote[1] > max(right for _, right in members)
    assert vote[0] < max(gap for gap, _ in members)
    assert calibration_error(of(measured, equal)) > vote[0]  # averaging probabilities does not calibrate them
