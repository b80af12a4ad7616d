"""Rescore the hypotheses of a CTC beam search with an autoregressive decoder."""

import copy
import math
from typing import NamedTuple

import numpy as np

from htr_lightning.decoder.autoregressive import FrameScores, Greedy, Steps
from htr_lightning.decoder.ctc import log_likelihoods
from htr_lightning.decoder.hypothesis import Hypothesis
from htr_lightning.decoder.language import Automaton
from htr_lightning.decoder.prefix_beam import Frames, PrefixBeam, with_probabilities
from htr_lightning.errors import InputError
from htr_lightning.parameters import BelowOne, Count, Fraction, Positive, Score, Weight, Width


class Prepared(NamedTuple):
    """The input to `search`, which does not depend on the language model or its weights."""

    beam: Frames
    frames: FrameScores
    own: list[list[int]]  # CTC labels of the greedy autoregressive hypothesis of each line
    offset: int  # token that corresponds to CTC label 0


class Rescoring:
    """A two-pass decoder (Sainath et al., 2019, "Two-pass end-to-end speech recognition", arXiv:1908.10992).

    A prefix beam search over the frames of the CTC head proposes candidates, and the autoregressive decoder adds its
    greedy hypothesis. Both models score every candidate. The score is ctc_weight * log p_ctc + (1 - ctc_weight) *
    log p_decoder, as in Watanabe et al. (2017, "Hybrid CTC/attention architecture for end-to-end speech recognition",
    section II-C), plus the language model terms of `PrefixBeam`.

    Args:
        width, top_labels, min_probability, prune_margin, alpha, beta: settings of the beam search (see `PrefixBeam`).
        candidates: number of best hypotheses of the beam search to rescore.
        ctc_weight: weight of the CTC log-probability, in [0, 1].
        max_length: maximum number of labels in the greedy autoregressive hypothesis.
    """

    inputs = "frames and steps"
    has_posterior = True

    def __init__(
        self,
        width: Width,
        top_labels: Count,
        min_probability: BelowOne,
        prune_margin: Positive,
        candidates: Width,
        ctc_weight: Fraction,
        max_length: Width,
        alpha: Weight = 0.0,
        beta: Score = 0.0,
    ) -> None:
        self.beam = PrefixBeam(width, top_labels, min_probability, prune_margin, alpha, beta)
        self.greedy = Greedy(max_length)
        self.candidates, self.ctc_weight, self.max_length = candidates, ctc_weight, max_length

    def with_automaton(self, automaton: Automaton | None) -> "Rescoring":
        """Return a copy of this decoder with a different automaton; see `PrefixBeam.with_automaton`."""
        other = copy.copy(self)
        other.beam = self.beam.with_automaton(automaton)
        return other

    def __call__(self, steps: Steps) -> list[Hypothesis]:
        """Return the best hypothesis for each line."""
        return [best[0] for best in self.n_best(steps, 1)]

    def n_best(self, steps: Steps, n: int) -> list[list[Hypothesis]]:
        """Return up to `n` distinct hypotheses for each line, but at most `candidates` + 1, best first.

        The `log_prob` of a hypothesis does not include the language model.
        """
        prepared = self.prepare(steps)
        found = self.search(prepared, n)
        frames = prepared.frames
        for hypotheses, line, length in zip(found, frames.log_probs, frames.lengths.tolist(), strict=True):
            best = hypotheses[0]
            labels = best._replace(ids=[label - prepared.offset for label in best.ids])
            hypotheses[0] = best._replace(probabilities=with_probabilities(labels, line[:length]).probabilities)
        return found

    def prepare(self, steps: Steps) -> Prepared:
        """Return the input to `search`: the frames of the CTC head and the greedy autoregressive hypotheses."""
        if steps.frames is None:
            raise InputError("decoder=rescoring: the model has no CTC head; use decoder=autoregressive_beam")
        log_probs, lengths, _ = steps.frames
        own = [[token - steps.end for token in one.ids if token > steps.end] for one in self.greedy(steps)]
        frames = self.beam.prepare(log_probs, lengths)
        return Prepared(frames, steps.frames, own, steps.end)

    def search(self, prepared: Prepared, n: int) -> list[list[Hypothesis]]:
        """Return up to `n` distinct hypotheses for each line, best first; see `n_best`."""
        beam, frames, own, offset = prepared
        proposed = [
            self._with_own(candidates, labels)
            for candidates, labels in zip(self.beam.search(beam, self.candidates), own, strict=True)
        ]
        lines = np.repeat(np.arange(len(proposed)), [len(candidates) for candidates in proposed])
        labels = [one.ids for candidates in proposed for one in candidates]
        by_ctc = iter(log_likelihoods(frames.log_probs, frames.lengths, labels, lines).tolist())
        by_decoder = frames.rescore([[[label + offset for label in one.ids] for one in some] for some in proposed])
        found = []
        for candidates, its in zip(proposed, by_decoder, strict=True):
            scored = [self._scored(one, next(by_ctc), p, offset) for one, p in zip(candidates, its, strict=True)]
            scored.sort(key=lambda one: -one.score)
            found.append([one for one in scored if one.score > -math.inf][:n] or scored[:1])
        return found

    def _with_own(self, candidates: list[Hypothesis], own: list[int]) -> list[Hypothesis]:
        """Add the greedy autoregressive hypothesis to the candidates if it is new and the language model allows it.

        The score of each candidate becomes the contribution of the language model alone.
        """
        beam = [one._replace(score=one.score - one.log_prob if one.score > -math.inf else 0.0) for one in candidates]
        if any(own == one.ids for one in candidates):  # the usual case, which needs no language model look-up
            return beam
        bonus = self.beam.bonus(own)
        return [*beam, Hypothesis(own, 0.0, bonus)] if bonus > -math.inf else beam

    def _scored(self, candidate: Hypothesis, ctc: float, decoder: float, offset: int) -> Hypothesis:
        """Return a candidate as tokens with its combined score, which is -inf if either log-probability is -inf."""
        score = -math.inf
        if min(ctc, decoder) > -math.inf:
            score = self.ctc_weight * ctc + (1 - self.ctc_weight) * decoder
        return Hypothesis([label + offset for label in candidate.ids], min(0.0, score), score + candidate.score)
