"""Whether confidences are probabilities, and one scalar that makes them so."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import editdistance
import numpy as np

DEFINITION = {
    "ece": "expected calibration error of characters: in 15 equal bins of the confidence, | right - expected | summed "
    "/ trials; a line is as many trials as characters were read, at least 1, each edit makes one of them wrong",
    "line_ece": "the same with one trial a line, right if it has no edit, at confidence ** characters read",
}
LEAST, MOST = 0.1, 10.0  # temperatures that a fit can give: of lines that are all right none is the best
NEAR = 1e-7  # to 0 and 1, where log-odds end


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


def tempered(probability: float, temperature: float) -> float:
    """A probability whose log-odds are divided by a temperature; 1 leaves it as it is.

    That is the temperature scaling of Guo et al. for the two outcomes right and wrong; it keeps the order.
    """
    if temperature == 1:
        return probability
    return 1 / (1 + math.exp(-_log_odds(probability) / temperature))


def checked_temperature(value: float) -> float:
    """A temperature; raises ValueError where it is none."""
    if not 0 < float(value) < math.inf:
        raise ValueError(f"temperature {value} is not above 0")
    return float(value)


def fit_temperature(trials: Sequence[Trials]) -> float:
    """The temperature at which the trials are likeliest, between 0.1 and 10; 1 for none."""
    if not trials:
        return 1.0
    odds = np.array([_log_odds(one.probability) for one in trials])
    right, count = (np.array([one[field] for one in trials], float) for field in (1, 2))
    low, high = math.log(1 / MOST), math.log(1 / LEAST)
    for _ in range(60):  # the negative log-likelihood is convex in 1 / temperature: bisection on its slope
        middle = (low + high) / 2
        expected = count / (1 + np.exp(-odds * math.exp(middle)))
        if float((odds * (expected - right)).sum()) > 0:
            high = middle
        else:
            low = middle
    return math.exp(-(low + high) / 2)


def _log_odds(probability: float) -> float:
    probability = min(max(probability, NEAR), 1 - NEAR)
    return math.log(probability / (1 - probability))
