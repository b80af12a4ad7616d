"""Readings of a CTC beam, judged by a decoder that writes as well."""

import math
from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor

from htr_lightning.decoder.ctc import Hypothesis, check_counts
from htr_lightning.decoder.language import Automaton
from htr_lightning.decoder.prefix_beam import Frames, PrefixBeam
from htr_lightning.errors import InputError

Judge = Callable[[list[list[list[int]]]], list[list[float]]]


class Rescoring:
    """Two passes (Sainath et al., 2019, "Two-pass end-to-end speech recognition", arXiv:1908.10992): a prefix beam over
    the frames of a CTC head proposes readings, and a decoder that writes says how likely it finds each.

    The score of a reading is ctc_share * log p_ctc + (1 - ctc_share) * log p_written, as in Watanabe et al. (2017,
    "Hybrid CTC/attention architecture for end-to-end speech recognition", section II-C), and what `PrefixBeam` adds for
    a language model. All readings are judged at once where writing takes a step a character, and what is proposed never
    repeats itself without end.

    Args:
        width, labels, threshold, cut, alpha, beta: of the beam, see `PrefixBeam`.
        readings: that are judged, the best of the beam.
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

    def __call__(
        self, log_probs: Float[Tensor, "B T C"], lengths: Int[Tensor, " B"], judge: Judge, first: int
    ) -> list[Hypothesis]:
        """The best reading of each line.

        Args:
            log_probs: of the CTC head, the blank first and no other special.
            lengths: frames of each line.
            judge: gives log p_written of some readings of every line, in nats.
            first: id of the first character for `judge` and in what is found; 1 in `log_probs`.
        """
        return [best[0] for best in self.n_best(log_probs, lengths, judge, first, 1)]

    def n_best(
        self, log_probs: Float[Tensor, "B T C"], lengths: Int[Tensor, " B"], judge: Judge, first: int, n: int
    ) -> list[list[Hypothesis]]:
        """Up to `n` readings of each line, the best first; their `log_prob` leaves the language model out."""
        return self.search(self.beam.frames(log_probs, lengths), judge, first, n)

    def search(self, frames: Frames, judge: Judge, first: int, n: int) -> list[list[Hypothesis]]:
        """See `n_best`; the frames are those of `PrefixBeam.frames`."""
        proposed = [
            [one._replace(ids=[label + first - 1 for label in one.ids]) for one in some]
            for some in self.beam.search(frames, self.readings)
        ]
        written = judge([[one.ids for one in some] for some in proposed])
        return [
            sorted(map(self._judged, some, judged), key=lambda one: -one.score)[:n]
            for some, judged in zip(proposed, written, strict=True)
        ]

    def _judged(self, reading: Hypothesis, written: float) -> Hypothesis:
        if self.ctc_share == 1 or reading.log_prob == -math.inf:
            return reading
        both = self.ctc_share * reading.log_prob + (1 - self.ctc_share) * written
        return Hypothesis(reading.ids, both, both + reading.score - reading.log_prob)
