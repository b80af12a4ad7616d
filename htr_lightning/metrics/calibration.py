"""Measure how well confidences agree with accuracy, and calibrate them by Platt scaling."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import editdistance
import numpy as np
from jaxtyping import Float
from numpy import ndarray

DEFINITION = {
    "ece": "expected calibration error of characters: sum of | correct - expected | over 15 equal confidence bins "
    "/ trials; a line has one trial per hypothesis character, but at least 1, and each edit makes one trial wrong",
    "line_ece": "expected calibration error of lines: the same sum with one trial per line, which is correct if the "
    "line has no edits and has the probability confidence ** characters",
}
MARGIN = 1e-7  # probabilities are clipped to this distance from 0 and 1
MIN_SLOPE = 0.01  # lower limit for a fitted slope, so that the order of confidences is kept


class PlattScaling(NamedTuple):
    """A Platt scaling function, which multiplies log-odds by a slope and adds a bias (Platt, 1999, "Probabilistic
    outputs for support vector machines"; Guo et al., 2017, section 4.1).

    A slope alone would be temperature scaling, which is not enough for voting: where two of three hypotheses agree on
    a character, its weight is close to one half, which no temperature changes, although the character is usually
    correct.
    """

    slope: float = 1.0
    bias: float = 0.0

    def __call__(self, probability: float) -> float:
        """Return the calibrated probability; the default scaling returns the probability unchanged."""
        if self == (1, 0):
            return probability
        odds = max(-700.0, self.slope * _log_odds(probability) + self.bias)
        return 1 / (1 + math.exp(-odds))


class Trials(NamedTuple):
    """The number of events with the same predicted probability, and how many of them occurred."""

    probability: float
    correct: int
    events: int


def character_trials(reference: str, hypothesis: str, confidence: float) -> Trials:
    """Return one trial per character of a hypothesis, where each edit makes one trial wrong.

    An empty hypothesis counts as one trial, which is correct if the reference is empty.
    """
    count = max(1, len(hypothesis))
    return Trials(confidence, max(0, count - editdistance.eval(reference, hypothesis)), count)


def line_trial(reference: str, hypothesis: str, confidence: float) -> Trials:
    """Return the whole line as one trial, which is correct if the line has no edits."""
    return Trials(confidence ** max(1, len(hypothesis)), int(reference == hypothesis), 1)


def calibration_bins(trials: Sequence[Trials], bins: int = 15) -> list[Trials]:
    """Group trials by probability into the bins ((k - 1) / bins, k / bins], each with the mean probability of its
    events; bins without events are left out."""
    sums: dict[int, list[float]] = {}
    for probability, correct, events in (one for one in trials if one.events):
        found = sums.setdefault(max(0, math.ceil(probability * bins) - 1), [0.0, 0, 0])
        for index, value in enumerate((events * probability, correct, events)):
            found[index] += value
    return [Trials(sums[key][0] / sums[key][2], int(sums[key][1]), int(sums[key][2])) for key in sorted(sums)]


def calibration_error(trials: Sequence[Trials], bins: int = 15) -> float:
    """Return the expected calibration error, or 0 if there are no events.

    In each bin (see `calibration_bins`), the fraction of events that occurred is compared with their mean probability.
    The error is the mean absolute difference, with each bin weighted by the number of events in it (Guo et al., 2017,
    "On calibration of modern neural networks", arXiv:1706.04599, equation 3).
    """
    found = calibration_bins(trials, bins)
    gaps = (abs(one.correct - one.events * one.probability) for one in found)
    return math.fsum(gaps) / max(1, sum(one.events for one in found))


def check_platt_scaling(values: Sequence[float | str]) -> PlattScaling:
    """Return a Platt scaling function with the given slope and bias.

    Raises:
        ValueError: if the slope is not a positive finite number or the bias is not finite.
    """
    slope, bias = map(float, values)
    if not 0 < slope < math.inf or not math.isfinite(bias):
        raise ValueError(f"calibration {slope:g},{bias:g}: expected a finite slope above 0 and a finite bias")
    return PlattScaling(slope, bias)


def fit_platt_scaling(trials: Sequence[Trials]) -> PlattScaling:
    """Fit Platt scaling by maximum a posteriori estimation.

    The prior is a normal distribution with variance 1, centred on the identity function. It is needed because no finite
    slope and bias maximise the likelihood if every trial is correct.
    """
    if not trials:
        return PlattScaling()
    odds = np.array([[_log_odds(one.probability), 1.0] for one in trials])
    correct, events = (np.array([one[field] for one in trials], float) for field in (1, 2))
    identity = np.array([1.0, 0.0])

    def cost(scale: Float[ndarray, "2"]) -> float:
        scores = odds @ scale
        return float((events * np.logaddexp(0, scores) - correct * scores).sum() + ((scale - identity) ** 2).sum() / 2)

    scale = identity
    for _ in range(100):  # Newton's method; the cost is convex
        expected = 1 / (1 + np.exp(-(odds @ scale).clip(-700, 700)))
        slope = odds.T @ (events * expected - correct) + scale - identity
        step = np.linalg.solve((odds * (events * expected * (1 - expected))[:, None]).T @ odds + np.eye(2), slope)
        size = 1.0
        while cost(scale - size * step) > cost(scale) and size > 1e-6:
            size /= 2
        scale = scale - size * step
        if np.abs(step).max() < 1e-9:
            break
    return PlattScaling(max(MIN_SLOPE, float(scale[0])), float(scale[1]))


def _log_odds(probability: float) -> float:
    probability = min(max(probability, MARGIN), 1 - MARGIN)
    return math.log(probability / (1 - probability))
