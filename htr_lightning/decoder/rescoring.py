"""Readings of a CTC beam, judged by a decoder that writes as well."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from htr_lightning.decoder.ctc import Hypothesis, check_counts, log_likelihoods
from htr_lightning.decoder.language import Automaton
from htr_lightning.decoder.prefix_beam import Frames, PrefixBeam
from htr_lightning.errors import InputError

Judge = Callable[[list[list[list[int]]]], list[list[float]]]


class TwoPassInput(NamedTuple):
    """What two passes over some lines are made of; an id of `first` is label 1 of the frames."""

    log_probs: Float[Tensor, "B T C"]  # of the CTC head, the blank first and no other special
    lengths: Int[Tensor, " B"]  # frames of each line
    written: list[list[int]]  # what the decoder writes in each line by itself
    judge: Judge  # gives log p_written of some readings of every line, in nats
    first: int  # id of the first character in `written`, for `judge` and in what is found


class Look(NamedTuple):
    """What a search looks at, the same for any language model and weights."""

    frames: Frames
    passes: TwoPassInput


class Rescoring:
    """Two passes (Sainath et al., 2019, "Two-pass end-to-end speech recognition", arXiv:1908.10992): a prefix beam over
    the frames of a CTC head proposes readings, a decoder that writes proposes its own, and both say how likely they
    find each.

    The score of a reading is ctc_weight * log p_ctc + (1 - ctc_weight) * log p_written, as in Watanabe et al. (2017,
    "Hybrid CTC/attention architecture for end-to-end speech recognition", section II-C), and what `PrefixBeam` adds for
    a language model.

    Args:
        width, labels, threshold, cut, alpha, beta: of the beam, see `PrefixBeam`.
        readings: of the beam that are judged, the best.
        ctc_weight: of the score, in [0, 1].
        max_length: labels of the longest text that is learned.
    """

    def __init__(
        self,
        width: int,
        labels: int,
        threshold: float,
        cut: float,
        readings: int,
        ctc_weight: float,
        max_length: int,
        alpha: float = 0.0,
        beta: float = 0.0,
    ) -> None:
        if not 0 <= ctc_weight <= 1:
            raise InputError(f"decoder.ctc_weight={ctc_weight}: give 0 to 1")
        check_counts(readings=readings, max_length=max_length)
        self.beam = PrefixBeam(width, labels, threshold, cut, alpha, beta)
        self.readings, self.ctc_weight, self.max_length = readings, ctc_weight, max_length

    @property
    def automaton(self) -> Automaton | None:
        """See `PrefixBeam`."""
        return self.beam.automaton

    @automaton.setter
    def automaton(self, automaton: Automaton | None) -> None:
        self.beam.automaton = automaton

    def __call__(self, passes: TwoPassInput) -> list[Hypothesis]:
        """The best reading of each line."""
        return [best[0] for best in self.n_best(passes, 1)]

    def n_best(self, passes: TwoPassInput, n: int) -> list[list[Hypothesis]]:
        """Up to `n` readings of each line, at most `readings` and the decoder's own, the best first; their `log_prob`
        leaves the language model out."""
        return self.search(self.look(passes), n)

    def look(self, passes: TwoPassInput) -> Look:
        """See `PrefixBeam.look`."""
        return Look(self.beam.look(passes.log_probs, passes.lengths), passes)

    def search(self, look: Look, n: int) -> list[list[Hypothesis]]:
        """See `n_best`."""
        passes = look.passes
        proposed = [
            self._with_own(some, [id - passes.first + 1 for id in own])
            for some, own in zip(self.beam.search(look.frames, self.readings), passes.written, strict=True)
        ]
        counts = torch.tensor([len(some) for some in proposed], device=passes.lengths.device)
        log_probs, lengths = (part.repeat_interleave(counts, 0) for part in (passes.log_probs, passes.lengths))
        likely = log_likelihoods(log_probs, lengths, [one.ids for some in proposed for one in some])
        heard = iter(likely.masked_fill(likely.isnan(), -math.inf).tolist())  # a network may give no numbers
        written = passes.judge([[[id + passes.first - 1 for id in one.ids] for one in some] for some in proposed])
        found = []
        for some, judged in zip(proposed, written, strict=True):
            both = [self._judged(one, next(heard), its, passes.first) for one, its in zip(some, judged, strict=True)]
            both.sort(key=lambda one: -one.score)
            found.append([one for one in both if one.score > -math.inf][:n] or both[:1])
        return found

    def _with_own(self, some: list[Hypothesis], own: list[int]) -> list[Hypothesis]:
        """The readings of the beam, and the decoder's where it is another one that may be; with what the language model
        adds as their score."""
        beam = [one._replace(score=one.score - one.log_prob if one.score > -math.inf else 0.0) for one in some]
        if any(own == one.ids for one in some):  # mostly: then there is no language to ask
            return beam
        bonus = self.beam.bonus(own)
        return [*beam, Hypothesis(own, 0.0, bonus)] if bonus > -math.inf else beam

    def _judged(self, one: Hypothesis, heard: float, written: float, first: int) -> Hypothesis:
        """A reading with both scores; of one that CTC has no path for, none."""
        both = (
            self.ctc_weight * heard + (1 - self.ctc_weight) * written if min(heard, written) > -math.inf else -math.inf
        )
        return Hypothesis([id + first - 1 for id in one.ids], min(0.0, both), both + one.score)
