"""Measure how well the confidences of lines, words and characters agree with what is correct. Does not import torch."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import editdistance
import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from htr_lightning.text.align import GAP, edits

DEFINITION = {
    "confidence.line": "a line has one trial per transcribed character, but at least 1, with the confidence of the "
    "line; each edit makes one trial wrong",
    "confidence.word": "a transcribed word has one trial, which is correct if it is aligned with an equal word of the "
    "reference",
    "confidence.character": "a transcribed character has one trial, which is correct if it is aligned with an equal "
    "character of the reference",
    "confidence.ece": "expected calibration error: sum of | correct - expected | over 15 bins with equal numbers of "
    "trials / trials (Nguyen and O'Connor, 2015; Nixon et al., 2019)",
    "confidence.brier": "mean of (confidence - correct) squared over trials (Brier, 1950)",
    "confidence.nll": "mean negative natural logarithm of the probability of what happened over trials, with "
    "confidences clipped to [1e-7, 1 - 1e-7]",
    "confidence.aurc": "area under the risk-coverage curve: mean over k of the fraction of wrong trials among the k "
    "surest (El-Yaniv and Wiener, 2010; Geifman et al., 2019)",
}
MARGIN = 1e-7  # probabilities are clipped to this distance from 0 and 1
BINS = 15


class Trials(NamedTuple):
    """The number of events with the same predicted probability, and how many of them occurred."""

    probability: float
    correct: float
    events: int


class Curve(NamedTuple):
    """The fraction of wrong trials among the surest ones, for each fraction of the trials that is kept."""

    coverage: Float64[ndarray, " N"]
    risk: Float64[ndarray, " N"]


def line_trials(reference: str, hypothesis: str, confidence: float) -> Trials:
    """Return one trial per character of a hypothesis, where each edit makes one trial wrong.

    An empty hypothesis counts as one trial, which is correct if the reference is empty.
    """
    count = max(1, len(hypothesis))
    return Trials(confidence, max(0, count - editdistance.eval(reference, hypothesis)), count)


def unit_trials(reference: Sequence[str], hypothesis: Sequence[str], confidences: Sequence[float]) -> list[Trials]:
    """Return one trial for each character or word of a hypothesis, which is correct if it is aligned with an equal one.

    Args:
        reference: characters or words of the reference.
        hypothesis: characters or words of the hypothesis.
        confidences: confidence of each of them.
    """
    correct = [edit.correct for edit in edits(reference, hypothesis) if edit.hypothesis != GAP]
    return [Trials(confidence, int(right), 1) for confidence, right in zip(confidences, correct, strict=True)]


def calibration_bins(trials: Sequence[Trials], bins: int = BINS) -> list[Trials]:
    """Group events by their probability into bins with equal numbers of events, as far as they can be divided.

    Events with the same probability are interchangeable: if they belong to several bins, the same fraction of them is
    correct in each.

    Returns:
        The mean probability, the number of correct events and the number of events of each bin that is not empty.
    """
    probability, correct = _events(trials)
    parts = zip(np.array_split(probability, bins), np.array_split(correct, bins), strict=True)
    return [Trials(float(p.mean()), float(c.sum()), len(p)) for p, c in parts if len(p)]


def calibration_error(trials: Sequence[Trials], bins: int = BINS) -> float:
    """Return the expected calibration error with bins of equal size, or 0 if there are no events.

    The mean absolute difference between the fraction of correct events and their mean probability, over bins with
    equal numbers of events (Nguyen and O'Connor, 2015, "Posterior calibration and exploratory analysis for natural
    language processing models", arXiv:1508.05154, section 3.2; Nixon et al., 2019, "Measuring calibration in deep
    learning", arXiv:1904.01685). Bins of equal width (Guo et al., 2017) would put nearly all events into the last one.
    """
    found = calibration_bins(trials, bins)
    gaps = [abs(one.correct - one.events * one.probability) for one in found]
    return sum(gaps) / max(1, sum(one.events for one in found))


def brier_score(trials: Sequence[Trials]) -> float:
    """Return the mean squared difference between probabilities and outcomes, or 0 if there are no events."""
    probability, correct = _events(trials)
    return float((correct * (1 - probability) ** 2 + (1 - correct) * probability**2).sum() / max(1, len(correct)))


def log_loss(trials: Sequence[Trials]) -> float:
    """Return the mean negative log-likelihood of the outcomes in nats, or 0 if there are no events."""
    probability, correct = _events(trials)
    probability = probability.clip(MARGIN, 1 - MARGIN)
    logs = correct * np.log(probability) + (1 - correct) * np.log1p(-probability)
    return float(-logs.sum() / max(1, len(correct)))


def risk_coverage(trials: Sequence[Trials]) -> Curve:
    """Return the risk-coverage curve: the fraction of wrong events among the k surest, for each k.

    Events with the same probability are in random order, whose expected risk is returned (El-Yaniv and Wiener, 2010,
    "On the foundations of noise-free selective classification").
    """
    _, correct = _events(trials)
    kept = np.arange(1, len(correct) + 1)
    return Curve(kept / max(1, len(correct)), (1 - correct[::-1]).cumsum() / kept)


def risk_at(trials: Sequence[Trials], coverage: float) -> float:
    """Return the fraction of wrong events among the surest ones, up to a fraction of them; 0 if there are none."""
    risk = risk_coverage(trials).risk
    return float(risk[max(0, round(coverage * len(risk)) - 1)]) if len(risk) else 0.0


def area_under_risk_coverage(trials: Sequence[Trials]) -> float:
    """Return the mean risk over all coverages (Geifman et al., 2019, "Bias-reduced uncertainty estimation for deep
    neural classifiers", arXiv:1805.08206), or 0 if there are no events."""
    risk = risk_coverage(trials).risk
    return float(risk.mean()) if len(risk) else 0.0


MEASURES: dict[str, Callable[[Sequence[Trials]], float]] = {
    "ece": calibration_error,
    "brier": brier_score,
    "nll": log_loss,
    "aurc": area_under_risk_coverage,
}


def _events(trials: Sequence[Trials]) -> tuple[Float64[ndarray, " N"], Float64[ndarray, " N"]]:
    """Return the probability of each event in ascending order, and its expected correctness: the fraction of correct
    events among those with the same probability."""
    probability, correct, events = np.array([one for one in trials if one.events] or np.zeros((0, 3)), float).T
    distinct, place = np.unique(probability, return_inverse=True)
    counts = np.bincount(place, events, len(distinct)).astype(int)
    right = np.bincount(place, correct, len(distinct)) / np.maximum(1, counts)
    return np.repeat(distinct, counts), np.repeat(right, counts)
