"""What a decoder knows of the language: a character n-gram model, a lexicon, or both."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from htr_lightning.decoder.lexicon import Lexicon
from htr_lightning.decoder.ngram import NGram

HALF = 32  # bits of a state of two automata that are the second one's
LOW = (1 << HALF) - 1


@runtime_checkable
class Automaton(Protocol):
    """A deterministic weighted automaton over class numbers."""

    start: int

    def look_up(
        self, states: Int64[ndarray, "B K"], classes: Int64[ndarray, "B J"]
    ) -> tuple[Float32[ndarray, "B K J"], Int64[ndarray, "B K J"]]:
        """Of each of K states, the natural log-probability of J classes and the states behind them; -inf forbids."""
        ...

    def ends(self, states: Int64[ndarray, " N"]) -> Float32[ndarray, " N"]:
        """Of every state, the natural log-probability that the line ends there; -inf forbids."""
        ...


class Intersection:
    """Two automata at once: log-probabilities are added, so what one forbids is forbidden. A state is a pair of theirs
    in one number."""

    def __init__(self, first: Automaton, second: Automaton) -> None:
        self.first, self.second = first, second
        self.start = first.start << HALF | second.start

    def look_up(
        self, states: Int64[ndarray, "B K"], classes: Int64[ndarray, "B J"]
    ) -> tuple[Float32[ndarray, "B K J"], Int64[ndarray, "B K J"]]:
        """See `Automaton`."""
        scores, nexts = self.first.look_up(states >> HALF, classes)
        more, others = self.second.look_up(states & LOW, classes)
        return scores + more, nexts << HALF | others

    def ends(self, states: Int64[ndarray, " N"]) -> Float32[ndarray, " N"]:
        """See `Automaton`."""
        return self.first.ends(states >> HALF) + self.second.ends(states & LOW)


def whole(ids: list[int], automaton: Automaton, first: int) -> list[int]:
    """As many of the labels as may be a line.

    Args:
        ids: labels, of which `first` is the automaton's class 0.
        automaton: what may be a line.
        first: see above.
    """
    state, size = np.full((1, 1), automaton.start), 0
    for place, label in enumerate(ids, start=1):
        state = automaton.look_up(state, np.full((1, 1), label - first))[1][:, 0]
        if automaton.ends(state[0])[0] > -np.inf:
            size = place
    return ids[:size]


class Language(NamedTuple):
    """A character n-gram model, a lexicon or both, over texts as they stand in the image from left to right."""

    ngram: NGram | None
    lexicon: Lexicon | None

    def automaton(self, alphabet: Sequence[str]) -> Automaton:
        """Over the class numbers of an alphabet.

        Raises:
            ValueError: there is neither a model nor a lexicon.
        """
        parts: list[Automaton] = [part.automaton(alphabet) for part in self if part is not None]
        if not parts:
            raise ValueError("a language without model and lexicon")
        return parts[0] if len(parts) == 1 else Intersection(*parts)

    def to_plain(self) -> dict[str, Any]:
        """As plain data, for a checkpoint."""
        return {
            "ngram": self.ngram and self.ngram.to_plain(),
            "lexicon": self.lexicon and self.lexicon.words,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Language":
        """The inverse of `to_plain`."""
        ngram, words = plain["ngram"], plain["lexicon"]
        return cls(
            None if ngram is None else NGram.from_plain(ngram),
            None if words is None else Lexicon(words),
        )
