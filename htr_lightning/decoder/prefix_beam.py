"""Prefix beam search of connectionist temporal classification, many lines at once."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64, UInt64
from numpy import ndarray
from torch import Tensor

from htr_lightning.decoder.ctc import BLANK, Hypothesis, check_counts
from htr_lightning.decoder.language import Automaton, whole
from htr_lightning.errors import InputError


class Beam(NamedTuple):
    """The prefixes alive, K a line; the log-probabilities are of all their paths, split as in Graves (2012)."""

    blank: Float64[ndarray, "B K"]  # of paths that end in a blank
    label: Float64[ndarray, "B K"]  # of paths that end in the last label
    bonus: Float64[ndarray, "B K"]  # alpha * language model + beta * length
    last: Int64[ndarray, "B K"]
    state: Int64[ndarray, "B K"]  # of the automaton
    key: UInt64[ndarray, "B K"]  # a hash of the prefix, and of the prefix without its last label
    parent: UInt64[ndarray, "B K"]


class Frames(NamedTuple):
    """The frames in which a label is likely enough to be looked at; S a line, lines with more of them first."""

    order: Int64[ndarray, " B"]  # where a line stood
    counts: Int64[ndarray, " B"]  # of its frames
    gap: Float64[ndarray, "B S"]  # log-probability of the blanks between the frame before and this one
    has_gap: Bool[ndarray, "B S"]
    tail: Float64[ndarray, " B"]  # of the blanks behind the last
    blank: Float64[ndarray, "B S"]
    labels: Int64[ndarray, "B S J"]  # the likeliest
    scores: Float64[ndarray, "B S J"]  # their log-probability; -inf below the threshold


class PrefixBeam:
    """Prefix beam search (Graves, 2012; Hannun et al., 2014, arXiv:1408.2873) with an optional language model.

    The score of a label sequence is log p_ctc + alpha * log p_lm + beta * labels, where p_ctc is the sum over its paths
    and p_lm includes the end of the line. With `width` and `labels` as large as there are sequences and labels,
    `threshold` 0 and `cut` infinite nothing is pruned and the best sequence is found; else p_ctc is that of the paths
    that were kept.

    Args:
        width: prefixes kept a line and frame.
        labels: labels looked at in a frame, the likeliest ones.
        threshold: probability below which a label is not looked at; a frame without any counts as blank, and a run of
            such frames costs nothing.
        cut: nats behind the best prefix at which a prefix is given up.
        alpha: weight of the language model; used where `automaton` is set.
        beta: score of every label, against the language model's liking of short lines.

    Where a lexicon lets no prefix of the beam end, the best ones are cut back to their last whole word; their
    log-probability is then that of the prefix before the cut.
    """

    def __init__(
        self, width: int, labels: int, threshold: float, cut: float, alpha: float = 0.0, beta: float = 0.0
    ) -> None:
        check_counts(width=width, labels=labels)
        if alpha < 0:
            raise InputError(f"decoder.alpha={alpha}: give at least 0")
        if not 0 <= threshold < 1 or not cut > 0:
            raise InputError(f"decoder: threshold={threshold}, cut={cut}: the threshold is in [0, 1), the cut above 0")
        self.width, self.labels, self.threshold, self.cut = width, labels, threshold, cut
        self.alpha, self.beta = alpha, beta
        self.automaton: Automaton | None = None  # over the labels without the blank: its class 0 is label 1

    def __call__(self, log_probs: Float[Tensor, "B T C"], lengths: Int[Tensor, " B"]) -> list[Hypothesis]:
        return [best[0] for best in self.n_best(log_probs, lengths, 1)]

    def n_best(self, log_probs: Float[Tensor, "B T C"], lengths: Int[Tensor, " B"], n: int) -> list[list[Hypothesis]]:
        """Up to `n` different hypotheses a line, at most `width`, the best first.

        A hypothesis has in `log_prob` log p_ctc alone, so that its confidence is a probability, and in `score` all.
        """
        return self.search(self.look(log_probs, lengths), n)

    def look(self, log_probs: Float[Tensor, "B T C"], lengths: Int[Tensor, " B"]) -> Frames:
        """What a search looks at, the same for any language model and weights."""
        threshold = math.log(self.threshold) if self.threshold else -math.inf
        return likely_frames(log_probs, lengths, self.labels, threshold)

    def search(self, frames: Frames, n: int) -> list[list[Hypothesis]]:
        """See `n_best`."""
        beam = self._start(len(frames.counts))
        done, steps = [], []
        looked_at = (frames.scores > -math.inf).sum(2).max(0, initial=1).tolist()  # labels, the likeliest first
        for step, labels in enumerate(looked_at):
            lines = int((frames.counts > step).sum())
            done.append(Beam(*(part[lines:] for part in beam)))
            beam, sources, gained = self._step(Beam(*(part[:lines] for part in beam)), frames, step, labels)
            steps.append((sources, gained))
        beam = Beam(*(np.concatenate(parts) for parts in zip(beam, *reversed(done), strict=True)))
        ctc = np.logaddexp(beam.blank, beam.label) + frames.tail[:, None]
        scores = ctc + beam.bonus + self._end(beam)
        cut_short = ~(scores > -math.inf).any(1)  # a lexicon wants no line to end here
        scores[cut_short] = (ctc + beam.bonus)[cut_short]
        best = np.argsort(-scores, axis=1, kind="stable")[:, :n]
        found: list[list[Hypothesis]] = [[] for _ in frames.counts]
        for line, texts in enumerate(_trace(steps, best.copy())):
            some = found[frames.order[line]]
            for k, ids in zip(best[line].tolist(), texts, strict=True):
                if cut_short[line] and self.automaton:
                    ids = whole(ids, self.automaton, 1)
                if scores[line, k] > -math.inf and all(ids != one.ids for one in some):
                    some.append(Hypothesis(ids, min(0.0, float(ctc[line, k])), float(scores[line, k])))
            if not some:  # log-probabilities that are none
                some.append(Hypothesis([], -math.inf, -math.inf))
        return found

    def bonus(self, labels: Sequence[int]) -> float:
        """What the language model and `beta` add to the score of a line; minus infinity for one that is forbidden."""
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
        """The beam behind one more frame, of which so many labels are looked at; of each prefix, which one it came from
        and the label it gained, or 0."""
        lines, width = beam.blank.shape
        labels, probs = frames.labels[:lines, step, :count], frames.scores[:lines, step, :count]
        total = np.logaddexp(beam.blank, beam.label) + frames.gap[:lines, step, None]
        gap = frames.has_gap[:lines, step, None]
        blank, label = np.where(gap, total, beam.blank), np.where(gap, -math.inf, beam.label)
        # A prefix grows by a label from all its paths; by its own last label only from those that end in a blank.
        again = labels[:, None, :] == beam.last[:, :, None]
        grown = np.where(again, blank[:, :, None], total[:, :, None]) + probs[:, None, :]
        bonus, states = self._advance(beam, labels)
        # Where a grown prefix is in the beam already, both are one.
        kept = label + np.where(again, probs[:, None, :], -math.inf).max(2)
        children = beam.parent[:, :, None] == beam.key[:, None, :]
        line, child = np.nonzero(children.any(2) & again.any(2))
        parent, place = children[line, child].argmax(1), again[line, child].argmax(1)
        kept[line, child] = np.logaddexp(kept[line, child], grown[line, parent, place])
        grown[line, parent, place] = -math.inf
        stayed = total + frames.blank[:lines, step, None]
        scores = np.concatenate([np.logaddexp(stayed, kept) + beam.bonus, (grown + bonus).reshape(lines, -1)], axis=1)
        top = np.argpartition(-scores, width - 1, axis=1)[:, :width]
        row = np.arange(lines)[:, None]
        score = scores[row, top]
        alive = (score > score.max(1, keepdims=True) - self.cut) & (score > -math.inf)
        is_new = top >= width
        source, place = np.where(is_new, (top - width) // labels.shape[1], top), (top - width) % labels.shape[1]
        gained = np.where(is_new, labels[row, place], BLANK)
        key = beam.key[row, source]
        moved = Beam(
            np.where(is_new | ~alive, -math.inf, stayed[row, source]),
            np.where(alive, np.where(is_new, grown[row, source, place], kept[row, source]), -math.inf),
            np.where(is_new, bonus[row, source, place], beam.bonus[row, source]),
            np.where(is_new, gained, beam.last[row, source]),
            np.where(alive, np.where(is_new, states[row, source, place], beam.state[row, source]), self._first),
            np.where(alive, np.where(is_new, _hash(key, gained), key), 0).astype(np.uint64),
            np.where(alive, np.where(is_new, key, beam.parent[row, source]), 1).astype(np.uint64),
        )
        return moved, source, gained

    def _advance(self, beam: Beam, labels: Int64[ndarray, "B J"]) -> tuple[ndarray, ndarray]:
        """Bonus and state "B K J" of every prefix with every label."""
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
        return self.alpha or 1e-30  # 0 * -inf is no number, and what is forbidden stays forbidden


def likely_frames(
    log_probs: Float[Tensor, "B T C"], lengths: Int[Tensor, " B"], labels: int, threshold: float
) -> Frames:
    """The frames that have a label above a threshold, a log-probability, and their likeliest labels."""
    log_probs, lengths = log_probs.detach().float().cpu(), lengths.cpu()
    inside = torch.arange(log_probs.shape[1])[None, :] < lengths[:, None]
    likely = (log_probs[:, :, 1:] >= threshold).any(2) & inside
    counts = likely.sum(1)
    order = torch.argsort(counts, descending=True, stable=True)
    log_probs, inside, likely, counts = log_probs[order], inside[order], likely[order], counts[order]
    line, time = likely.nonzero(as_tuple=True)
    step = likely.cumsum(1)[line, time] - 1
    shape = (len(counts), max([0, *counts.tolist()]))
    # Blanks are summed from the start of the line; what lies between two frames is a difference.
    skipped = torch.where(inside & ~likely, log_probs[:, :, BLANK].double(), 0.0)
    until = torch.zeros(shape[0], shape[1] + 1).double()
    until[line, step + 1] = skipped.cumsum(1)[line, time]
    at = torch.full((shape[0], shape[1] + 1), -1)
    at[line, step + 1] = time
    last = torch.arange(shape[0]), counts
    blank = torch.zeros(shape).double()
    blank[line, step] = log_probs[line, time, BLANK].double()
    found, ids = log_probs[line, time, 1:].double().topk(min(labels, log_probs.shape[2] - 1), dim=1)
    found[found < threshold] = -math.inf
    widest = max([1, *(found > -math.inf).sum(1).tolist()])
    scores, classes = torch.full((*shape, widest), -math.inf).double(), torch.ones((*shape, widest), dtype=torch.long)
    scores[line, step], classes[line, step] = found[:, :widest], ids[:, :widest] + 1
    return Frames(
        order.numpy(),
        counts.numpy(),
        until.diff(dim=1).numpy(),
        (at.diff(dim=1) > 1).numpy(),
        (skipped.sum(1) - until[last]).numpy(),
        blank.numpy(),
        classes.numpy(),
        scores.numpy(),
    )


def _hash(key: UInt64[ndarray, "B K"], label: Int64[ndarray, "B K"]) -> UInt64[ndarray, "B K"]:
    """The hash of a prefix with one more label; equal prefixes have equal ones."""
    mixed = (key ^ (label.astype(np.uint64) << np.uint64(1))) * np.uint64(0x9E3779B97F4A7C15)
    return mixed ^ (mixed >> np.uint64(29))


def _trace(steps: list[tuple[ndarray, ndarray]], best: Int64[ndarray, "B N"]) -> list[list[list[int]]]:
    """The labels of the chosen prefixes of every line, followed back frame by frame."""
    gained = np.zeros((len(steps), *best.shape), np.int64)
    for step in reversed(range(len(steps))):
        source, label = steps[step]
        row, chosen = np.arange(len(source))[:, None], best[: len(source)]
        gained[step, : len(source)] = label[row, chosen]
        best[: len(source)] = source[row, chosen]
    return [[[int(label) for label in one if label] for one in line.T] for line in gained.transpose(1, 0, 2)]
