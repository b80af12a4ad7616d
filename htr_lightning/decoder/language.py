"""What a decoder knows about the language: a character n-gram model, a lexicon, or both."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from htr_lightning.decoder.lexicon import Lexicon
from htr_lightning.decoder.ngram import NGram

BITS = 32  # of a state of an intersection that belong to the second automaton
MASK = (1 << BITS) - 1


@runtime_checkable
class Automaton(Protocol):
    """A deterministic weighted automaton over class numbers."""

    start: int

    def look_up(
        self, states: Int64[ndarray, "B K"], classes: Int64[ndarray, "B J"]
    ) -> tuple[Float32[ndarray, "B K J"], Int64[ndarray, "B K J"]]:
        """Natural log-probabilities of J classes after each of K states, -inf where forbidden, and the next states."""
        ...

    def ends(self, states: Int64[ndarray, " N"]) -> Float32[ndarray, " N"]:
        """The natural log-probability that the line ends in each state; -inf forbids."""
        ...


class Intersection:
    """Two automata at once: log-probabilities are added, so what one forbids is forbidden. A state packs one of each
    into a single number."""

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
    """The longest prefix of some labels that may be a line.

    Args:
        ids: the labels.
        automaton: the lines that are allowed.
        first: the label that is the automaton's class 0.
    """
    state, length = np.full((1, 1), automaton.start), 0
    for position, label in enumerate(ids, start=1):
        state = automaton.look_up(state, np.full((1, 1), label - first))[1][:, 0]
        if automaton.ends(state[0])[0] > -np.inf:
            length = position
    return ids[:length]


class Language(NamedTuple):
    """A character n-gram model, a lexicon or both, over texts in visual order, from left to right."""

    ngram: NGram | None
    lexicon: Lexicon | None

    def automaton(self, alphabet: Sequence[str]) -> Automaton:
        """The automaton over the classes of an alphabet.

        Raises:
            ValueError: there is neither a model nor a lexicon.
        """
        parts: list[Automaton] = [part.automaton(alphabet) for part in self if part is not None]
        if not parts:
            raise ValueError("a language needs a model or a lexicon")
        return parts[0] if len(parts) == 1 else Intersection(*parts)

    def to_plain(self) -> dict[str, Any]:
        """The language as plain data and arrays."""
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
