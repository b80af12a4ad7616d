"""Restrict decoding to the words of a lexicon."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32, Int32, Int64
from numpy import ndarray

TABLE_BYTES = 128 << 20  # maximum size of the row cache


def is_free(character: str) -> bool:
    """Return whether a character separates words, which is true of all characters except letters and marks."""
    return unicodedata.category(character)[0] not in "LM"


def words_of(texts: Iterable[str]) -> list[str]:
    """Return the distinct words (maximal runs of letters and marks) in the given texts, in sorted order.

    A lexicon that contains these words accepts the texts.
    """
    spaced = ("".join(" " if is_free(c) else c for c in text) for text in texts)
    return sorted({word for text in spaced for word in text.split()})


class Lexicon:
    """A list of words; lines must consist of these words, separated by at least one free character.

    Spaces, digits, punctuation and symbols are free characters: in "(l'an 1723),", only "l" and "an" are looked up.
    Words may contain free characters ("aujourd'hui", "peut-être"), in which case their parts need not be words. Words
    are case-sensitive: "Le" does not match "le".

    Args:
        words: words in visual order (see `text.direction.visual`).
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = sorted(set(words))

    def automaton(self, alphabet: Sequence[str]) -> "LexiconAutomaton":
        """Return an automaton whose classes are the characters of an alphabet, ignoring words with other characters."""
        return LexiconAutomaton(self.words, alphabet)


class LexiconAutomaton:
    """An automaton that accepts the lines allowed by a lexicon.

    The log-probability of a class is 0 if the character may follow, and -inf otherwise. A state is a set of nodes in
    the trie of words because prefixes can be ambiguous: "l'" is either the word "l" and a free character, or the start
    of the word "l'an".
    """

    def __init__(self, words: Iterable[str], alphabet: Sequence[str]) -> None:
        self.free = {number for number, character in enumerate(alphabet) if is_free(character)}
        numbers = {character: number for number, character in enumerate(alphabet)}
        self._children: list[dict[int, int]] = [{}]  # children of each node; node 0 is between words
        self._accepting = {0}  # nodes where a word may end
        for word in words:
            if all(character in numbers for character in word):
                self._add([numbers[character] for character in word])
        self._sets: list[frozenset[int]] = [frozenset({0})]
        self._states = {self._sets[0]: 0}
        self._rows: dict[int, ndarray] = {}  # for each cached state, the next state for each class, or -1
        self._max_rows = TABLE_BYTES // (4 * max(1, len(alphabet)))
        self._classes = len(alphabet)
        self.start = 0

    def _add(self, word: list[int]) -> None:
        node = 0
        for label in word:
            if label not in self._children[node]:
                self._children[node][label] = len(self._children)
                self._children.append({})
            node = self._children[node][label]
        self._accepting.add(node)

    def look_up(
        self, states: Int64[ndarray, "B K"], classes: Int64[ndarray, "B J"]
    ) -> tuple[Float32[ndarray, "B K J"], Int64[ndarray, "B K J"]]:
        """See `language.Automaton`."""
        distinct, index = np.unique(states, return_inverse=True)
        rows = np.stack([self._row(state) for state in distinct.tolist()])[index.reshape(states.shape)]
        found = np.take_along_axis(rows, np.broadcast_to(classes[:, None], (*states.shape, classes.shape[1])), 2)
        return np.where(found < 0, np.float32(-np.inf), np.float32(0.0)), found.clip(0).astype(np.int64)

    def ends(self, states: Int64[ndarray, " N"]) -> Float32[ndarray, " N"]:
        """See `language.Automaton`; lines cannot end inside a word."""
        accepting = [bool(self._sets[state] & self._accepting) for state in states.tolist()]
        return np.where(accepting, np.float32(0.0), np.float32(-np.inf))

    def _row(self, state: int) -> Int32[ndarray, " C"]:
        """Return the next state for each class, or -1 for forbidden classes."""
        if state not in self._rows:
            if len(self._rows) >= self._max_rows:
                self._rows.clear()
            after: dict[int, set[int]] = defaultdict(set)
            for node in self._sets[state]:
                for label, child in self._children[node].items():
                    after[label].add(child)
            if self._sets[state] & self._accepting:
                for label in self.free:
                    after[label].add(0)
            row = np.full(self._classes, -1, np.int32)
            for label, nodes in after.items():
                row[label] = self._state(frozenset(nodes))
            self._rows[state] = row
        return self._rows[state]

    def _state(self, nodes: frozenset[int]) -> int:
        if nodes not in self._states:
            self._states[nodes] = len(self._sets)
            self._sets.append(nodes)
        return self._states[nodes]
