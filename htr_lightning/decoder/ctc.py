"""Decode connectionist temporal classification (CTC) output greedily."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Int
from numpy import ndarray

from htr_lightning.decoder.hypothesis import Hypothesis, check_single
from htr_lightning.decoder.language import Automaton
from htr_lightning.errors import InputError

BLANK = 0


def collapse(path: Sequence[int]) -> list[int]:
    """Merge repeated labels in a frame path, then remove blanks (the map B in Graves et al., 2006)."""
    return [label for i, label in enumerate(path) if label != BLANK and (i == 0 or label != path[i - 1])]


class Greedy:
    """A best-path decoder, which selects the most likely label of each frame (Graves et al., 2006, "Connectionist
    temporal classification").

    The log-probability of a hypothesis is that of the best path, not the sum over all paths.
    """

    inputs = "frames"
    has_posterior = False

    def __call__(self, log_probs: Float[ndarray, "B T C"], lengths: Int[ndarray, " B"]) -> list[Hypothesis]:
        """Return the hypothesis of each line, ignoring frames beyond its length."""
        paths = log_probs.argmax(2)
        best = np.take_along_axis(log_probs, paths[:, :, None], 2)[:, :, 0]
        return [
            _on_path(path[:length], frames[:length])
            for path, frames, length in zip(paths, best, lengths.tolist(), strict=True)
        ]

    def n_best(self, log_probs: Float[ndarray, "B T C"], lengths: Int[ndarray, " B"], n: int) -> list[list[Hypothesis]]:
        """Return one hypothesis per line. Raises InputError if `n` is greater than 1."""
        check_single(n, "beam")
        return [[best] for best in self(log_probs, lengths)]

    def with_automaton(self, automaton: Automaton | None) -> "Greedy":
        """Return this decoder. Raises InputError if `automaton` is not None."""
        if automaton is not None:
            raise InputError("decoder=greedy: does not support language models or lexicons; use decoder=beam")
        return self


def _on_path(path: Int[ndarray, " T"], log_probs: Float[ndarray, " T"]) -> Hypothesis:
    """Return the hypothesis of a path, given the log-probability of each of its frames."""
    log_prob = math.fsum(log_probs.tolist())
    starts = np.flatnonzero(np.diff(path, prepend=-1))  # of runs of the same label
    is_label = path[starts] != BLANK
    peaks = np.exp(np.maximum.reduceat(log_probs, starts)[is_label]) if len(starts) else log_probs
    return Hypothesis(path[starts][is_label].tolist(), log_prob, log_prob, tuple(peaks.tolist()))


def label_probabilities(log_probs: Float[ndarray, "T C"], ids: Sequence[int]) -> list[float]:
    """Return the largest probability of each label over its frames on the most probable path of a label sequence.

    Args:
        log_probs: log-probabilities of the frames of a line.
        ids: label sequence.
    """
    peaks = np.zeros(len(ids))
    states, _ = best_path(log_probs, ids)
    on_label = states % 2 == 1
    places = states[on_label] // 2
    np.maximum.at(peaks, places, np.exp(log_probs[on_label, np.asarray(ids, np.int64)[places]]))
    return peaks.tolist()


def best_path(log_probs: Float[ndarray, "T C"], ids: Sequence[int]) -> tuple[Int[ndarray, " T"], float]:
    """Return the most probable path of a label sequence and its log-probability (Viterbi; forced alignment).

    Returns:
        For each frame, 2 k + 1 if it belongs to label k, and 2 k if it is a blank before label k. If the labels need
        more frames than there are, the log-probability is -inf and the path is meaningless.
    """
    if not len(log_probs):
        return np.zeros(0, np.int64), -math.inf if len(ids) else 0.0
    path = np.full(2 * len(ids) + 1, BLANK)
    path[1::2] = ids
    skips = np.full(len(path), -np.inf)  # a path may go on from a label to a different one without a blank
    skips[3::2][path[3::2] != path[1:-2:2]] = 0.0
    seen = log_probs[:, path].astype(np.float64)
    best = np.full(len(path) + 2, -np.inf)  # with two more states at the start, which no path has
    best[2:4] = seen[0, :2]
    moves = np.zeros(seen.shape, np.int8)
    for time in range(1, len(seen)):
        one, two = best[1:-1], best[:-2] + skips
        state = best[2:].copy()
        move = moves[time]
        np.copyto(move, 1, where=one > state)
        np.maximum(state, one, out=state)
        np.copyto(move, 2, where=two > state)
        np.maximum(state, two, out=state)
        best[2:] = state + seen[time]
    states = np.zeros(len(seen), np.int64)
    at = len(path) - 1
    if at and best[-2] > best[-1]:
        at -= 1
    log_prob = float(best[at + 2])
    for time in range(len(seen) - 1, -1, -1):
        states[time] = at
        at = max(0, at - int(moves[time, at]))  # below 0 only if there are too few frames
    return states, log_prob


def log_likelihoods(
    log_probs: Float[ndarray, "B T C"],
    lengths: Int[ndarray, " B"],
    labels: Sequence[Sequence[int]],
    lines: Int[ndarray, " N"],
) -> Float64[ndarray, " N"]:
    """Return log p_ctc of label sequences in nats, summed over all paths (Graves et al., 2006, equations 5 to 8).

    It is -inf if a sequence needs more frames than its line has, or if the network output is NaN.

    Args:
        log_probs: log-probabilities of each line.
        lengths: number of frames of each line.
        labels: label sequences.
        lines: line of each sequence.
    """
    states = 2 * max(map(len, labels), default=0) + 1
    path = np.full((len(labels), states), BLANK)  # the labels, with blanks before, between and after them
    for row, sequence in zip(path, labels, strict=True):
        row[1 : 2 * len(sequence) : 2] = sequence
    skips = np.zeros(path.shape, bool)  # whether a path can go on from the label before without a blank between
    skips[:, 3::2] = path[:, 3::2] != path[:, 1:-2:2]
    ends = 2 * np.array([len(sequence) for sequence in labels])
    rows, frames = np.arange(len(labels)), lengths[lines]
    alpha = np.full((len(labels), states + 2), -np.inf)  # with two more states at the start, which no path has
    result = np.full(len(labels), -np.inf)
    for time in range(int(frames.max(initial=0))):
        seen = log_probs[lines[:, None], time, path].astype(np.float64)
        if time == 0:
            alpha[:, 2:4] = seen[:, :2]
        else:
            skipped = np.where(skips, alpha[:, :-2], -np.inf)
            with np.errstate(invalid="ignore"):  # of NaN
                alpha[:, 2:] = np.logaddexp(np.logaddexp(alpha[:, 2:], alpha[:, 1:-1]), skipped) + seen
        done = frames == time + 1
        with np.errstate(invalid="ignore"):
            total = np.logaddexp(alpha[rows, ends + 2], np.where(ends > 0, alpha[rows, ends + 1], -np.inf))
        result = np.where(done, total, result)
    return np.where(np.isnan(result), -np.inf, result)
