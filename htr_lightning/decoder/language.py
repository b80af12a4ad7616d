"""Combine a character n-gram model and a lexicon into an automaton that guides a decoder."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from htr_lightning.decoder.lexicon import Lexicon
from htr_lightning.decoder.ngram import NGram

BITS = 32  # number of bits for the second automaton's state in the state of an intersection
MASK = (1 << BITS) - 1


@runtime_checkable
class Automaton(Protocol):
    """The interface for deterministic weighted automata over class numbers."""

    start: int

    def look_up(
        self, states: Int64[ndarray, "B K"], classes: Int64[ndarray, "B J"]
    ) -> tuple[Float32[ndarray, "B K J"], Int64[ndarray, "B K J"]]:
        """Return the natural log-probabilities of J classes after each of K states, and the next states.

        The log-probability of a forbidden class is -inf.
        """
        ...

    def ends(self, states: Int64[ndarray, " N"]) -> Float32[ndarray, " N"]:
        """Return the natural log-probability that a line ends in each state, or -inf where this is forbidden."""
        ...


class Intersection:
    """The intersection of two automata, whose log-probabilities are added.

    A class is forbidden if either automaton forbids it. A state packs the states of both automata into one integer.
    """

    def __init__(self, first: Automaton, second: Automaton) -> None:
        self.first, self.second = first, second
        self.start = first.start << BITS | second.start

    def look_up(
        self, states: Int64[ndarray, "B K"], classes: Int64[ndarray, "B J"]
    ) -> tuple[Float32[ndarray, "B K J"], Int64[ndarray, "B K J"]]:
        """See `Automaton`."""
        scores, nexts = self.first.look_up(states >> BITS, classes)
        more, others = self.second.look_up(states & MASK, classes)
        return scores + more, nexts << BITS | others

    def ends(self, states: Int64[ndarray, " N"]) -> Float32[ndarray, " N"]:
        """See `Automaton`."""
        return self.first.ends(states >> BITS) + self.second.ends(states & MASK)


def allowed_prefix(ids: list[int], automaton: Automaton, first: int) -> list[int]:
    """Return the longest prefix of a label sequence that the automaton accepts as a line.

    Args:
        ids: label sequence.
        automaton: automaton that accepts the allowed lines.
        first: label that corresponds to class 0 of the automaton.
    """
    state, length = np.full((1, 1), automaton.start), 0
    for position, label in enumerate(ids, start=1):
        state = automaton.look_up(state, np.full((1, 1), label - first))[1][:, 0]
        if automaton.ends(state[0])[0] > -np.inf:
            length = position
    return ids[:length]


class Language(NamedTuple):
    """A character n-gram model, a lexicon, or both, for texts in visual order (see `text.direction.visual`)."""

    ngram: NGram | None
    lexicon: Lexicon | None

    def automaton(self, alphabet: Sequence[str]) -> Automaton:
        """Return an automaton whose classes are the characters of an alphabet.

        Raises:
            ValueError: if there is neither an n-gram model nor a lexicon.
        """
        parts: list[Automaton] = [part.automaton(alphabet) for part in self if part is not None]
        if not parts:
            raise ValueError("a language needs an n-gram model or a lexicon")
        return parts[0] if len(parts) == 1 else Intersection(*parts)

    def to_plain(self) -> dict[str, Any]:
        """Return the language as plain data and arrays."""
        return {
            "ngram": self.ngram and self.ngram.to_plain(),
            "lexicon": self.lexicon and self.lexicon.words,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Language":
        """Create a language from the output of `to_plain`."""
        ngram, words = plain["ngram"], plain["lexicon"]
        return cls(
            None if ngram is None else NGram.from_plain(ngram),
            None if words is None else Lexicon(words),
        )
