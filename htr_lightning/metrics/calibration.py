"""Whether confidences are probabilities, and the scale on which they are."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import editdistance
import numpy as np
from jaxtyping import Float
from numpy import ndarray

DEFINITION = {
    "ece": "expected calibration error of characters: in 15 equal bins of the confidence, | right - expected | summed "
    "/ trials; a line is as many trials as characters were read, at least 1, each edit makes one of them wrong",
    "line_ece": "the same with one trial a line, right if it has no edit, at confidence ** characters read",
}
NEAR = 1e-7  # to 0 and 1, where log-odds end
LEAST = 0.01  # slope that a fit gives: the order of confidences stays


class PlattScaling(NamedTuple):
    """Platt scaling: log-odds are multiplied by a slope and moved by a bias (Platt, 1999, "Probabilistic outputs for
    support vector machines"; Guo et al., 2017, section 4.1).

    A slope alone is the temperature scaling of two outcomes, right and wrong. It does not do for a vote: where two of
    three readings agree on a character its share is near one half, which no temperature moves, but it is mostly right.
    """

    slope: float = 1.0
    bias: float = 0.0

    def __call__(self, probability: float) -> float:
        """The probability on this scale; the default one leaves it as it is."""
        if self == (1, 0):
            return probability
        odds = max(-700.0, self.slope * _log_odds(probability) + self.bias)
        return 1 / (1 + math.exp(-odds))


class Trials(NamedTuple):
    """Events that should have a probability: how many came true, and how many there were."""

    probability: float
    right: int
    events: int


def character_trials(reference: str, hypothesis: str, confidence: float) -> Trials:
    """The characters of a reading; an edit makes one of them wrong, a lost character one beside it. A reading without
    characters is one trial, right where there is nothing to read."""
    count = max(1, len(hypothesis))
    return Trials(confidence, max(0, count - editdistance.eval(reference, hypothesis)), count)


def line_trial(reference: str, hypothesis: str, confidence: float) -> Trials:
    """A whole reading, right without an edit."""
    return Trials(confidence ** max(1, len(hypothesis)), int(reference == hypothesis), 1)


def calibration_error(trials: Sequence[Trials], bins: int = 15) -> float:
    """The expected calibration error (Guo et al., 2017, "On calibration of modern neural networks", arXiv:1706.04599,
    equation 3): in equal bins of the probability ((k - 1) / bins, k / bins], the mean distance between the share of
    events that came true and their mean probability, weighted by events. 0 for no events."""
    gaps = [0.0] * bins
    for probability, right, count in trials:
        gaps[max(0, math.ceil(probability * bins) - 1)] += right - count * probability
    return math.fsum(map(abs, gaps)) / max(1, sum(count for _, _, count in trials))


def check_platt_scaling(values: Sequence[float | str]) -> PlattScaling:
    """A slope and a bias; raises ValueError where they are none."""
    slope, bias = map(float, values)
    if not 0 < slope < math.inf or not math.isfinite(bias):
        raise ValueError(f"calibration {slope:g},{bias:g}: the slope is above 0, and both are finite")
    return PlattScaling(slope, bias)


def fit_platt_scaling(trials: Sequence[Trials]) -> PlattScaling:
    """The scale at which the trials are likeliest, held to the one that changes nothing by a normal prior of variance 1
    on slope and bias: of lines that are all right, no finite scale is the likeliest."""
    if not trials:
        return PlattScaling()
    odds = np.array([[_log_odds(one.probability), 1.0] for one in trials])
    right, events = (np.array([one[field] for one in trials], float) for field in (1, 2))
    none = np.array([1.0, 0.0])

    def cost(scale: Float[ndarray, "2"]) -> float:
        scores = odds @ scale
        return float((events * np.logaddexp(0, scores) - right * scores).sum() + ((scale - none) ** 2).sum() / 2)

    scale = none
    for _ in range(100):  # Newton's method; the cost is convex
        expected = 1 / (1 + np.exp(-(odds @ scale).clip(-700, 700)))
        slope = odds.T @ (events * expected - right) + scale - none
        step = np.linalg.solve((odds * (events * expected * (1 - expected))[:, None]).T @ odds + np.eye(2), slope)
        size = 1.0
        while cost(scale - size * step) > cost(scale) and size > 1e-6:
            size /= 2
        scale = scale - size * step
        if np.abs(step).max() < 1e-9:
            break
    return PlattScaling(max(LEAST, float(scale[0])), float(scale[1]))


def _log_odds(probability: float) -> float:
    probability = min(max(probability, NEAR), 1 - NEAR)
    return math.log(probability / (1 - probability))
