"""What a decoder knows of the language: a character n-gram model, a lexicon, or both."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from htr_lightning.decoder.lexicon import Lexicon
from htr_lightning.decoder.ngram import NGram


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


class Both:
    """Two automata at once: log-probabilities are added, so what one forbids is forbidden."""

    def __init__(self, first: Automaton, second: Automaton) -> None:
        self.parts = first, second
        self._pairs = [(first.start, second.start)]
        self._states = {self._pairs[0]: 0}
        self.start = 0

    def look_up(
        self, states: Int64[ndarray, "B K"], classes: Int64[ndarray, "B J"]
    ) -> tuple[Float32[ndarray, "B K J"], Int64[ndarray, "B K J"]]:
        """See `Automaton`; states behind what is forbidden are the start."""
        (first, first_next), (second, second_next) = (
            part.look_up(side, classes) for part, side in zip(self.parts, self._sides(states), strict=True)
        )
        scores, nexts = first + second, np.zeros(first.shape, np.int64)
        open_ = scores > -np.inf
        pairs = zip(first_next[open_].tolist(), second_next[open_].tolist(), strict=True)
        nexts[open_] = [self._state(pair) for pair in pairs]
        return scores, nexts

    def ends(self, states: Int64[ndarray, " N"]) -> Float32[ndarray, " N"]:
        """See `Automaton`."""
        first, second = (part.ends(side) for part, side in zip(self.parts, self._sides(states), strict=True))
        return first + second

    def _sides(self, states: Int64[ndarray, "*N"]) -> list[ndarray]:
        pairs = np.array([self._pairs[state] for state in states.ravel().tolist()], np.int64).reshape(-1, 2)
        return [side.reshape(states.shape) for side in pairs.T]

    def _state(self, pair: tuple[int, int]) -> int:
        if pair not in self._states:
            self._states[pair] = len(self._pairs)
            self._pairs.append(pair)
        return self._states[pair]


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
        return parts[0] if len(parts) == 1 else Both(*parts)

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
