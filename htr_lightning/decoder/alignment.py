"""Align a label sequence with the frames of connectionist temporal classification (CTC)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from htr_lightning.decoder.ctc import BLANK


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

    This is the Viterbi algorithm on the states of Graves et al. (2006), in which blanks may stand between labels.

    Args:
        log_probs: log-probabilities of the frames of one line.
        labels: labels without blanks.

    Returns:
        The frames of each label, or None if the labels need more frames than there are.
    """
    if not labels:
        return []
    states = 2 * len(labels) + 1
    path = np.full(states, BLANK)
    path[1::2] = labels
    skips = np.zeros(states, bool)  # whether a path can go on from the label before without a blank between
    skips[3::2] = path[3::2] != path[1:-2:2]
    seen = log_probs[:, path].astype(np.float64)
    best = np.full(states + 2, -np.inf)  # with two more states at the start, which no path has
    best[2:4] = seen[0, :2]
    steps = np.zeros(seen.shape, np.int8)
    for time in range(1, len(seen)):
        came = np.stack((best[2:], best[1:-1], np.where(skips, best[:-2], -np.inf)))
        steps[time] = came.argmax(0)
        best[2:] = came.max(0) + seen[time]
    state = states - 1 if best[-1] >= best[-2] else states - 2
    if not best[state + 2] > -np.inf:  # also if the output of the network is NaN
        return None
    visited = np.empty(len(seen), int)
    for time in range(len(seen) - 1, -1, -1):
        visited[time] = state
        state -= int(steps[time, state])
    log_prob = seen[np.arange(len(seen)), visited]
    frames = [np.flatnonzero(visited == 2 * number + 1)[[0, -1]] for number in range(len(labels))]
    middles = [-(-(before[1] + after[0] + 1) // 2) for before, after in pairwise(frames)]
    sums = np.add.reduceat(log_prob, [0, *middles])
    return [Aligned(int(first), int(last) + 1, float(total)) for (first, last), total in zip(frames, sums, strict=True)]
