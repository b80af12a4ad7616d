"""Decode CTC output with a prefix beam search, batched over lines."""

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64, UInt64
from numpy import ndarray

from htr_lightning.decoder.ctc import BLANK, label_probabilities
from htr_lightning.decoder.hypothesis import Hypothesis
from htr_lightning.decoder.language import Automaton, allowed_prefix
from htr_lightning.parameters import BelowOne, Count, Positive, Score, Weight, Width


class Beam(NamedTuple):
    """The K active prefixes of each line; paths that end in a blank or a label are summed separately (Graves, 2012)."""

    blank: Float64[ndarray, "B K"]  # log-probability of paths that end in a blank
    label: Float64[ndarray, "B K"]  # log-probability of paths that end in the last label
    bonus: Float64[ndarray, "B K"]  # alpha * language model log-probability + beta * length
    last: Int64[ndarray, "B K"]  # last label
    state: Int64[ndarray, "B K"]  # automaton state
    key: UInt64[ndarray, "B K"]  # hash of the prefix
    parent: UInt64[ndarray, "B K"]  # hash of the prefix without its last label


class Frames(NamedTuple):
    """The frames that have a likely label, up to S per line; lines with the most such frames come first."""

    order: Int64[ndarray, " B"]  # original position of each line
    counts: Int64[ndarray, " B"]  # number of frames in each line
    gap: Float64[ndarray, "B S"]  # log-probability of blanks in the omitted frames before this frame
    has_gap: Bool[ndarray, "B S"]  # whether frames were omitted before this frame
    tail: Float64[ndarray, " B"]  # log-probability of blanks in the omitted frames at the end
    blank: Float64[ndarray, "B S"]  # log-probability of the blank
    labels: Int64[ndarray, "B S J"]  # the most likely labels
    scores: Float64[ndarray, "B S J"]  # log-probabilities of these labels; -inf if below the threshold


class PrefixBeam:
    """A prefix beam search decoder (Graves, 2012; Hannun et al., 2014, arXiv:1408.2873).

    The score of a label sequence is log p_ctc + alpha * log p_lm + beta * labels, where p_ctc sums over all paths that
    were kept and p_lm, from an optional language model, includes the end of the line. The search is exact if `width`
    and `top_labels` are at least the numbers of possible sequences and labels, `min_probability` is 0, and
    `prune_margin` is infinite.

    If a lexicon allows no prefix in the beam to end, the best prefixes are cut back to their last complete word, but
    keep the log-probability of the uncut prefix.

    Args:
        width: beam width, i.e. the number of prefixes kept per line and frame.
        top_labels: number of most likely labels considered per frame.
        min_probability: minimum probability for a label to be considered. Frames without such a label are treated as
            blank and are skipped, which makes the search faster.
        prune_margin: maximum distance of a prefix from the best prefix, in nats.
        alpha: weight of the language model (see `with_automaton`).
        beta: score added per label, which counteracts the language model's preference for short lines.
    """

    inputs = "frames"
    has_posterior = True

    def __init__(
        self,
        width: Width,
        top_labels: Count,
        min_probability: BelowOne,
        prune_margin: Positive,
        alpha: Weight = 0.0,
        beta: Score = 0.0,
    ) -> None:
        self.width, self.top_labels = width, top_labels
        self.min_probability, self.prune_margin = min_probability, prune_margin
        self.alpha, self.beta = alpha, beta
        self.automaton: Automaton | None = None

    def with_automaton(self, automaton: Automaton | None) -> "PrefixBeam":
        """Return a copy of this decoder with a different automaton, whose class 0 is label 1, after the blank."""
        other = copy.copy(self)
        other.automaton = automaton
        return other

    def __call__(self, log_probs: Float[ndarray, "B T C"], lengths: Int[ndarray, " B"]) -> list[Hypothesis]:
        """Return the best hypothesis for each line, ignoring frames beyond its length."""
        return [best[0] for best in self.n_best(log_probs, lengths, 1)]

    def n_best(self, log_probs: Float[ndarray, "B T C"], lengths: Int[ndarray, " B"], n: int) -> list[list[Hypothesis]]:
        """Return up to `n` distinct hypotheses for each line, but at most `width`, best first.

        The `log_prob` of a hypothesis is log p_ctc, so that its confidence is a probability. Its `score` includes the
        language model.
        """
        found = self.search(self.prepare(log_probs, lengths), n)
        for hypotheses, line, length in zip(found, log_probs, lengths.tolist(), strict=True):
            hypotheses[0] = with_probabilities(hypotheses[0], line[:length])
        return found

    def prepare(self, log_probs: Float[ndarray, "B T C"], lengths: Int[ndarray, " B"]) -> Frames:
        """Return the input to `search`: the frames that have a likely label."""
        threshold = math.log(self.min_probability) if self.min_probability else -math.inf
        return likely_frames(log_probs, lengths, self.top_labels, threshold)

    def search(self, frames: Frames, n: int) -> list[list[Hypothesis]]:
        """Return up to `n` distinct hypotheses for each line, best first; see `n_best`."""
        beam = self._start(len(frames.counts))
        done, steps = [], []
        considered = (frames.scores > -math.inf).sum(2).max(0, initial=1).tolist()  # number of labels at each step
        for step, labels in enumerate(considered):
            lines = int((frames.counts > step).sum())
            done.append(Beam(*(part[lines:] for part in beam)))
            beam, sources, gained = self._step(Beam(*(part[:lines] for part in beam)), frames, step, labels)
            steps.append((sources, gained))
        beam = Beam(*(np.concatenate(parts) for parts in zip(beam, *reversed(done), strict=True)))
        ctc = np.logaddexp(beam.blank, beam.label) + frames.tail[:, None]
        scores = ctc + beam.bonus + self._end(beam)
        incomplete = ~(scores > -math.inf).any(1)  # the lexicon allows no prefix to end
        scores[incomplete] = (ctc + beam.bonus)[incomplete]
        best = np.argsort(-scores, axis=1, kind="stable")[:, :n]
        found: list[list[Hypothesis]] = [[] for _ in frames.counts]
        for line, texts in enumerate(_trace(steps, best.copy())):
            some = found[frames.order[line]]
            for k, ids in zip(best[line].tolist(), texts, strict=True):
                if incomplete[line] and self.automaton:
                    ids = allowed_prefix(ids, self.automaton, 1)
                if scores[line, k] > -math.inf and all(ids != one.ids for one in some):
                    some.append(Hypothesis(ids, min(0.0, float(ctc[line, k])), float(scores[line, k])))
            if not some:  # the network output is NaN
                some.append(Hypothesis([], -math.inf, -math.inf))
        return found

    def bonus(self, labels: Sequence[int]) -> float:
        """Return what the language model and `beta` add to the score of a line; -inf if the line is forbidden."""
        if self.automaton is None:
            return self.beta * len(labels)
        state, known = np.full((1, 1), self.automaton.start), 0.0
        for label in labels:
            scores, states = self.automaton.look_up(state, np.full((1, 1), label - 1))
            known, state = known + float(scores[0, 0, 0]), states[:, 0]
        return self._weight * (known + float(self.automaton.ends(state[0])[0])) + self.beta * len(labels)

    def _start(self, lines: int) -> Beam:
        shape = (lines, self.width)
        blank, label = np.full(shape, -math.inf), np.full(shape, -math.inf)
        blank[:, 0] = 0.0
        key, parent = np.zeros(shape, np.uint64), np.ones(shape, np.uint64)
        key[:, 0] = 0x243F6A8885A308D3
        state = np.full(shape, self._first)
        return Beam(blank, label, np.zeros(shape), np.full(shape, BLANK), state, key, parent)

    def _step(self, beam: Beam, frames: Frames, step: int, count: int) -> tuple[Beam, ndarray, ndarray]:
        """Advance the beam by one frame, considering its `count` most likely labels.

        Returns:
            The new beam and, for each prefix, the index of the previous prefix and the added label, or 0 for none.
        """
        lines, width = beam.blank.shape
        labels, probs = frames.labels[:lines, step, :count], frames.scores[:lines, step, :count]
        total = np.logaddexp(beam.blank, beam.label) + frames.gap[:lines, step, None]
        gap = frames.has_gap[:lines, step, None]
        blank, label = np.where(gap, total, beam.blank), np.where(gap, -math.inf, beam.label)
        # Only paths that end in a blank extend a prefix by its own last label; all paths extend it by other labels.
        again = labels[:, None, :] == beam.last[:, :, None]
        grown = np.where(again, blank[:, :, None], total[:, :, None]) + probs[:, None, :]
        bonus, states = self._advance(beam, labels)
        # An extended prefix that is already in the beam is merged with it.
        kept = label + np.where(again, probs[:, None, :], -math.inf).max(2)
        children = beam.parent[:, :, None] == beam.key[:, None, :]
        line, child = np.nonzero(children.any(2) & again.any(2))
        parent, position = children[line, child].argmax(1), again[line, child].argmax(1)
        kept[line, child] = np.logaddexp(kept[line, child], grown[line, parent, position])
        grown[line, parent, position] = -math.inf
        stayed = total + frames.blank[:lines, step, None]
        scores = np.concatenate([np.logaddexp(stayed, kept) + beam.bonus, (grown + bonus).reshape(lines, -1)], axis=1)
        top = np.argpartition(-scores, width - 1, axis=1)[:, :width]
        row = np.arange(lines)[:, None]
        score = scores[row, top]
        alive = (score > score.max(1, keepdims=True) - self.prune_margin) & (score > -math.inf)
        is_new = top >= width
        source = np.where(is_new, (top - width) // labels.shape[1], top)
        position = (top - width) % labels.shape[1]
        gained = np.where(is_new, labels[row, position], BLANK)
        key = beam.key[row, source]
        moved = Beam(
            np.where(is_new | ~alive, -math.inf, stayed[row, source]),
            np.where(alive, np.where(is_new, grown[row, source, position], kept[row, source]), -math.inf),
            np.where(is_new, bonus[row, source, position], beam.bonus[row, source]),
            np.where(is_new, gained, beam.last[row, source]),
            np.where(alive, np.where(is_new, states[row, source, position], beam.state[row, source]), self._first),
            np.where(alive, np.where(is_new, _hash(key, gained), key), 0).astype(np.uint64),
            np.where(alive, np.where(is_new, key, beam.parent[row, source]), 1).astype(np.uint64),
        )
        return moved, source, gained

    def _advance(self, beam: Beam, labels: Int64[ndarray, "B J"]) -> tuple[ndarray, ndarray]:
        """Return the bonus and state, of shape "B K J", of each prefix extended by each label."""
        if self.automaton is None:
            shape = (*beam.last.shape, labels.shape[1])
            return np.broadcast_to(beam.bonus[:, :, None] + self.beta, shape), np.zeros(shape, np.int64)
        scores, states = self.automaton.look_up(beam.state, labels - 1)
        return beam.bonus[:, :, None] + self._weight * scores + self.beta, states

    def _end(self, beam: Beam) -> Float64[ndarray, "B K"]:
        if self.automaton is None:
            return np.zeros(beam.state.shape)
        ends = self.automaton.ends(beam.state.ravel()).reshape(beam.state.shape)
        return self._weight * ends.astype(np.float64)

    @property
    def _first(self) -> int:
        return 0 if self.automaton is None else self.automaton.start

    @property
    def _weight(self) -> float:
        return self.alpha or 1e-30  # 0 * -inf would be NaN, and forbidden classes must stay forbidden


def with_probabilities(hypothesis: Hypothesis, log_probs: Float[ndarray, "T C"]) -> Hypothesis:
    """Return a hypothesis with the probability of each label, given the log-probabilities of the frames of its line."""
    return hypothesis._replace(probabilities=tuple(label_probabilities(log_probs, hypothesis.ids)))


def likely_frames(
    log_probs: Float[ndarray, "B T C"], lengths: Int[ndarray, " B"], top_labels: int, threshold: float
) -> Frames:
    """Select the frames that have a label whose log-probability reaches a threshold, and their most likely labels."""
    inside = np.arange(log_probs.shape[1]) < lengths[:, None]
    above = (log_probs[:, :, 1:] >= threshold) & inside[:, :, None]
    likely = np.asarray(above.any(2))
    counts = likely.sum(1)
    order = np.argsort(-counts, kind="stable")
    log_probs, inside, above, likely, counts = (part[order] for part in (log_probs, inside, above, likely, counts))
    line, time = likely.nonzero()
    step = likely.cumsum(1)[line, time] - 1
    shape = (len(counts), int(counts.max(initial=0)))
    # The log-probabilities of blanks between two frames are summed as a difference of cumulative sums.
    skipped = np.where(inside & ~likely, log_probs[:, :, BLANK].astype(np.float64), 0.0)
    until = np.zeros((shape[0], shape[1] + 1))
    until[line, step + 1] = skipped.cumsum(1)[line, time]
    at = np.full((shape[0], shape[1] + 1), -1)
    at[line, step + 1] = time
    tail = skipped.sum(1) - until[np.arange(shape[0]), counts]
    blank = np.zeros(shape)
    blank[line, step] = log_probs[line, time, BLANK]
    # Sort only the few labels above the threshold, by frame and then by descending probability.
    sizes = above.sum(2)[line, time]
    frame, (of, when, label) = np.repeat(np.arange(len(line)), sizes), above.nonzero()
    value = log_probs[of, when, label + 1].astype(np.float64)
    value[value < threshold] = -math.inf  # the comparison above rounded the threshold to single precision
    ranking = np.lexsort((-value, frame))
    rank = np.arange(len(frame)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = rank < top_labels
    frame, rank, value, label = frame[kept], rank[kept], value[ranking][kept], label[ranking][kept]
    widest = max(1, int(rank[value > -math.inf].max(initial=0)) + 1)
    kept = rank < widest
    scores, labels = np.full((*shape, widest), -math.inf), np.ones((*shape, widest), np.int64)
    place = line[frame[kept]], step[frame[kept]], rank[kept]
    scores[place], labels[place] = value[kept], label[kept] + 1
    return Frames(order, counts, np.diff(until, axis=1), np.diff(at, axis=1) > 1, tail, blank, labels, scores)


def _hash(key: UInt64[ndarray, "B K"], label: Int64[ndarray, "B K"]) -> UInt64[ndarray, "B K"]:
    """Return the hash of a prefix extended by a label; equal prefixes have equal hashes."""
    mixed = (key ^ (label.astype(np.uint64) << np.uint64(1))) * np.uint64(0x9E3779B97F4A7C15)
    return mixed ^ (mixed >> np.uint64(29))


def _trace(steps: list[tuple[ndarray, ndarray]], best: Int64[ndarray, "B N"]) -> list[list[list[int]]]:
    """Return the labels of the selected prefixes of each line, traced back frame by frame."""
    gained = np.zeros((len(steps), *best.shape), np.int64)
    for step in reversed(range(len(steps))):
        source, label = steps[step]
        row, chosen = np.arange(len(source))[:, None], best[: len(source)]
        gained[step, : len(source)] = label[row, chosen]
        best[: len(source)] = source[row, chosen]
    return [[[int(label) for label in one if label] for one in line.T] for line in gained.transpose(1, 0, 2)]
