"""The lexicon: the words that a line may consist of."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32, Int32, Int64
from numpy import ndarray

TABLE_BYTES = 128 << 20  # of cached rows


def is_free(character: str) -> bool:
    """Whether a character separates words: anything but letters and their marks."""
    return unicodedata.category(character)[0] not in "LM"


def words_of(texts: Iterable[str]) -> list[str]:
    """The distinct words of some texts: maximal runs of letters and marks. A lexicon of them accepts the texts."""
    spaced = ("".join(" " if is_free(c) else c for c in text) for text in texts)
    return sorted({word for text in spaced for word in text.split()})


class Lexicon:
    """The words of which every line must consist, separated by at least one free character.

    Spaces, digits, punctuation and symbols are free: in "(l'an 1723)," only "l" and "an" are looked up. A word of the
    list may contain free characters itself ("aujourd'hui", "peut-être"); then its parts need not be words. A letter
    never follows a word directly. Words are case-sensitive: "Le" is not "le".

    Args:
        words: in visual order, see `text.direction.visual`.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = sorted(set(words))

    def automaton(self, alphabet: Sequence[str]) -> "LexiconAutomaton":
        """The automaton over the classes of an alphabet; words with other characters are excluded."""
        return LexiconAutomaton(self.words, alphabet)


class LexiconAutomaton:
    """All texts over a lexicon: log-probability 0 for characters that may follow, -inf for others.

    A state is a set of nodes of the trie of words, since "l'" may be the word "l" and a free character, or the start of
    the word "l'an".
    """

    def __init__(self, words: Iterable[str], alphabet: Sequence[str]) -> None:
        self.free = {number for number, character in enumerate(alphabet) if is_free(character)}
        numbers = {character: number for number, character in enumerate(alphabet)}
        self._children: list[dict[int, int]] = [{}]  # of every node; node 0 is between words
        self._accepting = {0}  # nodes where a word may end
        for word in words:
            if all(character in numbers for character in word):
                self._add([numbers[character] for character in word])
        self._sets: list[frozenset[int]] = [frozenset({0})]
        self._states = {self._sets[0]: 0}
        self._rows: dict[int, ndarray] = {}  # of a state, the state after every class or -1; computed when needed
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
        """See `language.Automaton`; a line may not end inside a word."""
        accepting = [bool(self._sets[state] & self._accepting) for state in states.tolist()]
        return np.where(accepting, np.float32(0.0), np.float32(-np.inf))

    def _row(self, state: int) -> Int32[ndarray, " C"]:
        """The states after the classes, or -1 if one may not follow."""
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
