"""Decode connectionist temporal classification (CTC) output greedily."""

import math
from collections.abc import Sequence

from jaxtyping import Float, Int
from numpy import ndarray, take_along_axis

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
        best = take_along_axis(log_probs, paths[:, :, None], 2)[:, :, 0]
        return [
            Hypothesis(collapse(path[:length]), log_prob := math.fsum(frames[:length]), log_prob)
            for path, frames, length in zip(paths.tolist(), best.tolist(), lengths.tolist(), strict=True)
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
