"""Readings of a CTC beam, judged by a decoder that writes as well."""

import math
from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from htr_lightning.decoder.ctc import Hypothesis, check_counts, log_likelihoods
from htr_lightning.decoder.language import Automaton
from htr_lightning.decoder.prefix_beam import Frames, PrefixBeam
from htr_lightning.errors import InputError

Judge = Callable[[list[list[list[int]]]], list[list[float]]]


class Passes(NamedTuple):
    """What two passes over some lines are made of; an id of `first` is label 1 of the frames."""

    log_probs: Float[Tensor, "B T C"]  # of the CTC head, the blank first and no other special
    lengths: Int[Tensor, " B"]  # frames of each line
    written: list[list[int]]  # what the decoder writes in each line by itself
    judge: Judge  # gives log p_written of some readings of every line, in nats
    first: int  # id of the first character in `written`, for `judge` and in what is found


class Look(NamedTuple):
    """What a search looks at, the same for any language model and weights."""

    frames: Frames
    own: list[Hypothesis]  # what the decoder writes, with log p_ctc; labels are those of the frames
    judge: Judge
    first: int


class Rescoring:
    """Two passes (Sainath et al., 2019, "Two-pass end-to-end speech recognition", arXiv:1908.10992): a prefix beam over
    the frames of a CTC head proposes readings, a decoder that writes proposes its own, and both say how likely they
    find each.

    The score of a reading is ctc_share * log p_ctc + (1 - ctc_share) * log p_written, as in Watanabe et al. (2017,
    "Hybrid CTC/attention architecture for end-to-end speech recognition", section II-C), and what `PrefixBeam` adds for
    a language model.

    Args:
        width, labels, threshold, cut, alpha, beta: of the beam, see `PrefixBeam`.
        readings: of the beam that are judged, the best.
        ctc_share: of the score, in [0, 1].
        max_length: labels of the longest text that is learned.
    """

    def __init__(
        self,
        width: int,
        labels: int,
        threshold: float,
        cut: float,
        readings: int,
        ctc_share: float,
        max_length: int,
        alpha: float = 0.0,
        beta: float = 0.0,
    ) -> None:
        if not 0 <= ctc_share <= 1:
            raise InputError(f"decoder.ctc_share={ctc_share}: give 0 to 1")
        check_counts(readings=readings, max_length=max_length)
        self.beam = PrefixBeam(width, labels, threshold, cut, alpha, beta)
        self.readings, self.ctc_share, self.max_length = readings, ctc_share, max_length

    @property
    def automaton(self) -> Automaton | None:
        """See `PrefixBeam`."""
        return self.beam.automaton

    @automaton.setter
    def automaton(self, automaton: Automaton | None) -> None:
        self.beam.automaton = automaton

    def __call__(self, passes: Passes) -> list[Hypothesis]:
        """The best reading of each line."""
        return [best[0] for best in self.n_best(passes, 1)]

    def n_best(self, passes: Passes, n: int) -> list[list[Hypothesis]]:
        """Up to `n` readings of each line, the best first; their `log_prob` leaves the language model out."""
        return self.search(self.look(passes), n)

    def look(self, passes: Passes) -> Look:
        """See `PrefixBeam.look`."""
        log_probs, lengths, written, judge, first = passes
        labels = [[id - first + 1 for id in ids] for ids in written]
        likely = log_likelihoods(log_probs, lengths, labels).tolist()
        own = [Hypothesis(ids, log_prob, log_prob) for ids, log_prob in zip(labels, likely, strict=True)]
        return Look(self.beam.look(log_probs, lengths), own, judge, first)

    def search(self, look: Look, n: int) -> list[list[Hypothesis]]:
        """See `n_best`."""
        proposed = [
            [one._replace(ids=[label + look.first - 1 for label in one.ids]) for one in self._with_own(some, own)]
            for some, own in zip(self.beam.search(look.frames, self.readings), look.own, strict=True)
        ]
        written = look.judge([[one.ids for one in some] for some in proposed])
        return [
            sorted(map(self._judged, some, judged), key=lambda one: -one.score)[:n]
            for some, judged in zip(proposed, written, strict=True)
        ]

    def _with_own(self, some: list[Hypothesis], own: Hypothesis) -> list[Hypothesis]:
        """The readings of the beam, and the decoder's where it is another one that may be."""
        own = own._replace(score=own.log_prob + self.beam.bonus(own.ids))
        return [*some, own] if own.score > -math.inf and all(own.ids != one.ids for one in some) else some

    def _judged(self, reading: Hypothesis, written: float) -> Hypothesis:
        if self.ctc_share == 1 or reading.log_prob == -math.inf:
            return reading
        both = self.ctc_share * reading.log_prob + (1 - self.ctc_share) * written
        return Hypothesis(reading.ids, both, both + reading.score - reading.log_prob)
