"""Calibrate confidences by Platt scaling."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from htr_lightning.metrics.confidence import MARGIN, Trials

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


class Calibration(NamedTuple):
    """The calibration of the confidences of a recognizer; see `confidence.DEFINITION`."""

    line: PlattScaling = PlattScaling()
    word: PlattScaling = PlattScaling()
    character: PlattScaling = PlattScaling()

    def numbers(self) -> list[float]:
        """Return its slopes and biases, as stored in checkpoints."""
        return [number for scaling in self for number in scaling]


def check_calibration(values: Sequence[float | str]) -> Calibration:
    """Return the calibration with the given slopes and biases: of lines, words and characters, or of lines alone.

    Raises:
        ValueError: if there are neither two nor six numbers, or a pair is invalid; see `check_platt_scaling`.
    """
    if len(values) not in (2, 6):
        raise ValueError(f"calibration of {len(values)} numbers: expected two for lines, or six")
    return Calibration(*(check_platt_scaling(values[start : start + 2]) for start in range(0, len(values), 2)))


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
