"""Align a label sequence with the frames of connectionist temporal classification (CTC)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from htr_lightning.decoder.ctc import BLANK, best_path


class Aligned(NamedTuple):
    """The frames of a label, from `start` to before `end`, and its log-probability.

    A blank frame counts towards the nearest label, so that the log-probabilities of all labels add up to that of the
    path, as `Hypothesis.confidence` does.
    """

    start: int
    end: int
    log_prob: float


def align(log_probs: Float[ndarray, "T C"], labels: Sequence[int]) -> list[Aligned] | None:
    """Return the frames of each label on the most likely path that reads exactly these labels (forced alignment).

    Args:
        log_probs: log-probabilities of the frames of one line.
        labels: labels without blanks.

    Returns:
        The frames of each label, or None if the labels need more frames than there are.
    """
    if not labels:
        return []
    states, total = best_path(log_probs, labels)
    if not total > -np.inf:  # also if the output of the network is NaN
        return None
    path = np.full(2 * len(labels) + 1, BLANK)
    path[1::2] = labels
    log_prob = log_probs[np.arange(len(states)), path[states]].astype(np.float64)
    frames = [np.flatnonzero(states == 2 * number + 1)[[0, -1]] for number in range(len(labels))]
    middles = [-(-(before[1] + after[0] + 1) // 2) for before, after in pairwise(frames)]
    sums = np.add.reduceat(log_prob, [0, *middles])
    return [Aligned(int(first), int(last) + 1, float(own)) for (first, last), own in zip(frames, sums, strict=True)]
