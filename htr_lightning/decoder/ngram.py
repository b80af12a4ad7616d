"""Estimate, load and query character n-gram language models."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from htr_lightning.decoder import arpa, kneser_ney
from htr_lightning.decoder.arpa import END, SEPARATORS, SPECIALS, START, UNKNOWN, NGrams, fail
from htr_lightning.errors import InputError
from htr_lightning.text.codec import alphabet_of

TABLE_BYTES = 1 << 28  # maximum size of the row cache of an automaton


class NGram:
    """A character n-gram model with backoff.

    The probability of a character is p(c | context) if the model contains the n-gram, and otherwise backoff(context) *
    p(c | shorter context). Every line starts with <s> and ends with </s>. The n-grams are stored as a trie, in which
    node 0 is the empty n-gram and node i has key `keys[i - 1]`.

    Args:
        order: maximum length of the n-grams.
        symbols: characters in id order; the ids of </s>, <unk> and <s> follow.
        keys, log_probs, backoffs: the trie (see `kneser_ney.estimate`).
    """

    def __init__(
        self,
        order: int,
        symbols: Sequence[str],
        keys: Int[ndarray, " N"],
        log_probs: Float[ndarray, " M"],
        backoffs: Float[ndarray, " M"],
    ) -> None:
        self.order, self.symbols = order, list(symbols)
        self.keys, self.log_probs, self.backoffs = keys, log_probs, backoffs
        self.end, self.unknown, self.start = range(len(symbols), len(symbols) + 3)
        self._parents, self.last = np.divmod(keys, self.start + 1)
        children = np.bincount(self._parents, minlength=len(keys) + 1)
        self.first = np.concatenate([[1], 1 + np.cumsum(children)])  # children of node i: first[i] to first[i + 1] - 1
        self.levels = [slice(0, 1)]  # nodes of each order
        while (level := slice(*self.first[[self.levels[-1].start, self.levels[-1].stop]].tolist())).stop > level.start:
            self.levels.append(level)
        self.links = self._links()

    @classmethod
    def estimate(cls, texts: Iterable[str], order: int, min_count: int = 1) -> "NGram":
        """Estimate a model with interpolated modified Kneser-Ney smoothing; see `kneser_ney.estimate`.

        Args:
            texts: lines without line breaks.
            order: maximum length of the n-grams.
            min_count: minimum count of n-grams with three or more symbols; less frequent ones are dropped.

        Raises:
            InputError: if there are no texts, a text contains a line break or tab, or `order` is less than 1.
        """
        texts = list(texts)
        symbols = alphabet_of(texts)
        if order < 1:
            raise InputError(f"order={order}: must be at least 1; 6 works well for characters")
        if not texts:
            raise InputError("no text to estimate a language model from; provide at least one line")
        if bad := set(symbols) & set(SEPARATORS):
            code = f"U+{ord(min(bad)):04X}"
            raise InputError(f"a text for the language model contains {code}; remove line breaks, tabs and NULs")
        ids, _ = _lines(texts, symbols)
        return cls(order, symbols, *kneser_ney.estimate(ids, len(symbols) + len(SPECIALS), order, min_count))

    @classmethod
    def read_arpa(cls, path: str | Path, space: str = "<space>") -> "NGram":
        """Load a model from a plain or gzip-compressed ARPA file.

        Args:
            path: path to the file.
            space: name of the space character in the file, such as ▁ or |.

        Raises:
            InputError: if the file cannot be read, is malformed, or does not contain a character model.
        """
        names, orders = arpa.read(path, space)
        symbols = sorted(set(names) - set(SPECIALS))
        numbers = {symbol: number for number, symbol in enumerate([*symbols, *SPECIALS])}
        renumber = np.array([numbers[name] for name in names])
        keys = np.zeros(0, np.int64)
        log_probs, backoffs = [np.zeros(1)], [np.zeros(1)]
        for found in orders:
            ids = renumber[found.ids]
            nodes = np.zeros(len(ids), np.int64)
            for column in ids.T[:-1]:
                nodes = _find(keys, nodes * len(names) + column)
                if len(lost := np.flatnonzero(nodes < 0)):
                    fail(path, found.lines[lost[0]], "the context of this n-gram is missing from the shorter n-grams")
            new = nodes * len(names) + ids[:, -1]
            rank = np.argsort(new, kind="stable")
            if len(twice := np.flatnonzero(np.diff(new[rank]) == 0)):
                fail(path, found.lines[rank[twice[0] + 1]], "duplicate n-gram")
            keys = np.concatenate([keys, new[rank]])
            log_probs.append(found.log_probs[rank])
            backoffs.append(found.backoffs[rank])
        weights = (np.concatenate(part).astype(np.float32) for part in (log_probs, backoffs))
        return cls(len(orders), symbols, keys, *weights)

    def write_arpa(self, path: str | Path, space: str = "<space>") -> None:
        """Write an ARPA file, compressed with gzip if the path ends in .gz; see `read_arpa`."""
        arpa.write(path, [*self.symbols, *SPECIALS], self._orders(), space)

    def log_prob(self, text: str) -> float:
        """Return the natural logarithm of the probability of a line, including its end."""
        return float(self._line_log_probs([text])[0])

    def perplexity(self, texts: Iterable[str]) -> float:
        """Return the perplexity per character, counting the end of each line as a character."""
        texts = list(texts)
        if not texts:
            raise InputError("no text to evaluate the language model on; provide at least one line")
        return math.exp(-self._line_log_probs(texts).sum() / sum(len(text) + 1 for text in texts))

    def automaton(self, alphabet: Sequence[str]) -> "Automaton":
        """Return an automaton over the alphabet of a recognizer, in which unknown characters are mapped to <unk>."""
        return Automaton(self, alphabet)

    def to_plain(self) -> dict[str, Any]:
        """Return the model as plain data and arrays."""
        inner = 1 + max(int(self._parents[-1]), int(np.flatnonzero(self.backoffs).max(initial=0)))
        small = next(kind for kind in (np.uint8, np.int16, np.int32) if self.start < np.iinfo(kind).max)
        return {
            "order": self.order,
            "symbols": self.symbols,
            "last": self.last.astype(small),
            "children": np.diff(self.first)[:inner].astype(small),
            "log_probs": self.log_probs,
            "backoffs": self.backoffs[:inner].copy(),
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "NGram":
        """Create a model from the output of `to_plain`, in which CPU tensors may replace the arrays.

        Raises:
            ValueError: if the n-grams are invalid.
        """
        symbols, log_probs, backoffs = plain["symbols"], np.asarray(plain["log_probs"]), np.asarray(plain["backoffs"])
        children, last = np.asarray(plain["children"]), np.asarray(plain["last"])
        size = len(symbols) + len(SPECIALS)
        if not children.min() >= 0 <= last.min() <= last.max() < size or children.sum(dtype=np.float64) != len(last):
            raise ValueError("invalid n-grams")
        keys = np.repeat(np.arange(len(backoffs)), children) * size + last
        if not np.array_equal(last[:size], np.arange(size)) or children[0] != size or np.diff(keys).min() <= 0:
            raise ValueError("invalid n-grams")  # look-ups rely on all unigrams and on sorted keys
        return cls(plain["order"], symbols, keys, log_probs, np.pad(backoffs, (0, len(log_probs) - len(backoffs))))

    def _links(self) -> Int[ndarray, " M"]:
        """Return, for each node, the node of the longest proper suffix of its n-gram that the model contains."""
        links = np.zeros(len(self.keys) + 1, np.int64)
        for level in self.levels[2:]:
            last = self.last[level.start - 1 : level.stop - 1]
            context = links[self._parents[level.start - 1 : level.stop - 1]]
            found = self._children(context, last)
            while len(lost := np.flatnonzero(found < 0)):  # only happens in pruned models
                context[lost] = links[context[lost]]
                found[lost] = self._children(context[lost], last[lost])
            links[level] = found
        return links

    def _children(self, nodes: Int[ndarray, " N"], symbols: Int[ndarray, " N"]) -> Int[ndarray, " N"]:
        """Return the node of each n-gram extended by the corresponding symbol, or -1 if it is not in the model."""
        return _find(self.keys, nodes * (self.start + 1) + symbols)

    def _line_log_probs(self, texts: Sequence[str]) -> Float[ndarray, " B"]:
        ids, starts = _lines(texts, self.symbols)
        nodes = 1 + ids  # node of the n-gram that ends at each position
        log_probs = self.log_probs[nodes]  # the order of additions matches `Automaton`, for bit-identical results
        for _ in self.levels[2:]:
            context = np.concatenate([[-1], nodes[:-1]])
            known = context >= 0
            nodes = self._children(context, ids)
            log_probs[known] += self.backoffs[context[known]]
            log_probs[nodes >= 0] = self.log_probs[nodes[nodes >= 0]]
        log_probs[starts] = 0  # <s> has probability 1
        return np.add.reduceat(log_probs.astype(np.float64), starts)

    def _orders(self) -> list[NGrams]:
        orders = []
        ids = np.zeros((1, 0), np.int64)
        for shorter, level in pairwise(self.levels):
            keys = slice(level.start - 1, level.stop - 1)
            ids = np.column_stack([ids[self._parents[keys] - shorter.start], self.last[keys]])
            orders.append(NGrams(ids, self.log_probs[level], self.backoffs[level], []))
        return orders


class Automaton:
    """An automaton that represents an n-gram model over the classes of a recognizer.

    A state is the longest context that affects the following characters. Its row contains the log-probability of each
    class and the next state. Rows are computed on demand and cached.

    Args:
        model: n-gram model.
        alphabet: character of each class, in order.

    Attributes:
        start: state at the start of a line.
    """

    def __init__(self, model: NGram, alphabet: Sequence[str]) -> None:
        self._model = model
        self._symbols = _numbers("".join(alphabet), model.symbols)
        matters = (np.diff(model.first) > 0) | (model.backoffs != 0)
        self._states = np.where(matters, np.arange(len(matters)), 0)
        for level in model.levels[1:]:
            short = level.start + np.flatnonzero(~matters[level])
            self._states[short] = self._states[model.links[short]]
        self.start = int(self._states[1 + model.start])
        self._limit = TABLE_BYTES // (8 * len(alphabet) + 4)
        self._forget()

    def look_up(
        self, states: Int[ndarray, "B K"], classes: Int[ndarray, "B J"]
    ) -> tuple[Float[ndarray, "B K J"], Int[ndarray, "B K J"]]:
        """See `language.Automaton`."""
        self._fill(states.ravel())
        index = self._row[states][:, :, None], classes[:, None, :]
        return self._log_probs[index], self._next[index].astype(np.int64)

    def ends(self, states: Int[ndarray, " N"]) -> Float[ndarray, " N"]:
        """See `language.Automaton`."""
        self._fill(states)
        return self._ends[self._row[states]]

    def _forget(self) -> None:
        self._row = np.full(len(self._states), -1, np.int32)  # row of each state in the cache, or -1
        self._filled = 0
        self._log_probs = np.empty((0, len(self._symbols)), np.float32)
        self._next = np.empty((0, len(self._symbols)), np.int32)
        self._ends = np.empty(0, np.float32)

    def _fill(self, states: Int[ndarray, " N"]) -> None:
        missing = states[self._row[states] < 0]
        if not len(missing):
            return
        missing = np.unique(missing)
        if self._filled + len(missing) > self._limit:
            self._forget()
            missing = np.unique(states)
        stop = self._filled + len(missing)
        if stop > len(self._ends):
            grow = max(stop, 2 * len(self._ends)) - len(self._ends)
            self._log_probs, self._next, self._ends = (
                np.concatenate([table, np.empty((grow, *table.shape[1:]), table.dtype)])
                for table in (self._log_probs, self._next, self._ends)
            )
        new = slice(self._filled, stop)
        log_probs, following = self._compute(missing)
        self._log_probs[new], self._next[new] = log_probs[:, self._symbols], following[:, self._symbols]
        self._ends[new] = log_probs[:, self._model.end]
        self._row[missing] = np.arange(new.start, new.stop)
        self._filled = stop

    def _compute(self, states: Int[ndarray, " N"]) -> tuple[Float[ndarray, "N V"], Int[ndarray, "N V"]]:
        """Compute rows over all symbols, starting with the empty context and refining them with longer contexts."""
        model = self._model
        unigrams = model.levels[1]
        log_probs = np.tile(model.log_probs[unigrams], (len(states), 1))
        following = np.tile(self._states[unigrams], (len(states), 1))
        contexts = [states]
        while contexts[-1].any():
            contexts.append(model.links[contexts[-1]])
        for nodes in reversed(contexts[:-1]):
            longer = np.flatnonzero(nodes)  # the other states have shorter contexts
            nodes = nodes[longer]
            log_probs[longer] += model.backoffs[nodes][:, None]
            counts = model.first[nodes + 1] - model.first[nodes]
            rows = np.repeat(longer, counts)
            children = np.arange(len(rows)) + np.repeat(model.first[nodes] - np.cumsum(counts) + counts, counts)
            symbols = model.last[children - 1]
            log_probs[rows, symbols] = model.log_probs[children]
            following[rows, symbols] = self._states[children]
        return log_probs, following


def _numbers(characters: str, symbols: Sequence[str]) -> Int[ndarray, " N"]:
    """Return the symbol ids of the given characters, using the id of <unk> for unknown characters."""
    table = np.full(max(map(ord, symbols), default=0) + 2, len(symbols) + SPECIALS.index(UNKNOWN))
    table[[ord(symbol) for symbol in symbols]] = np.arange(len(symbols))
    codes = np.frombuffer(characters.encode("utf-32-le", "surrogatepass"), np.uint32)
    return table[np.minimum(codes, len(table) - 1)]


def _lines(texts: Sequence[str], symbols: Sequence[str]) -> tuple[Int[ndarray, " T"], Int[ndarray, " B"]]:
    """Return the concatenated symbol ids of the given lines, each from <s> to </s>, and the start of each line."""
    sizes = np.array([len(text) + 2 for text in texts])
    starts = np.cumsum(sizes) - sizes
    ids = np.full(sizes.sum(), -1)
    ids[starts], ids[starts + sizes - 1] = len(symbols) + SPECIALS.index(START), len(symbols) + SPECIALS.index(END)
    ids[ids < 0] = _numbers("".join(texts), symbols)
    return ids, starts


def _find(keys: Int[ndarray, " N"], wanted: Int[ndarray, " M"]) -> Int[ndarray, " M"]:
    """Return the nodes of the wanted keys, or -1 for missing keys."""
    index = np.searchsorted(keys, wanted)
    found = index < len(keys)
    found[found] = keys[index[found]] == wanted[found]
    return np.where(found, index + 1, -1)
