"""Read and write n-gram models in the ARPA format of KenLM and SRILM.

Symbols are single characters, or <s>, </s> and <unk>. Whitespace separates fields in this format, so the space
character is represented by a name such as <space>.
"""

import gzip
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from htr_lightning.errors import InputError

END, UNKNOWN, START = SPECIALS = ("</s>", "<unk>", "<s>")
SEPARATORS = "\0\t\n\v\f\r"  # characters that ARPA files cannot represent as symbols
NO_UNKNOWN = -100.0  # log10 probability of <unk> if the file does not contain it, as in KenLM
_LN10 = math.log(10)
_COUNT = re.compile(r"ngram +(\d+) *= *(\d+)")


class NGrams(NamedTuple):
    """The n-grams of one order: symbol ids, natural logarithms of the weights, and line numbers in the file."""

    ids: Int[ndarray, "N K"]
    log_probs: Float[ndarray, " N"]
    backoffs: Float[ndarray, " N"]
    lines: list[int]


def read(path: str | Path, space: str) -> tuple[list[str], list[NGrams]]:
    """Read a plain or gzip-compressed ARPA file, and return its symbols and its n-grams, grouped by order.

    Args:
        path: path to the file.
        space: name of the space character in the file.

    Raises:
        InputError: if the file cannot be read or is malformed; the message gives the file and line.
    """
    counts: list[int] | None = None
    sections: list[_Section] = []
    names: dict[str, int] = {}
    number = 0
    for number, line in _lines(path):
        if not line:
            continue
        if counts is None:
            counts = [] if line == "\\data\\" else None  # any text before \data\ is a comment and is ignored
        elif line.startswith("\\"):
            if sections:
                sections[-1].close(number, counts[len(sections) - 1])
            wanted = "\\end\\" if 0 < len(counts) == len(sections) else f"\\{len(sections) + 1}-grams:"
            if line != wanted or not counts:
                fail(path, number, f"expected {wanted if counts else 'ngram 1='}, got '{line[:40]}'")
            if line == "\\end\\":
                break
            sections.append(_Section(len(sections) + 1, len(counts), path, space))
        elif sections:
            sections[-1].add(number, line, names)
        else:
            match = _COUNT.fullmatch(line)
            if not match or int(match[1]) != len(counts) + 1:
                fail(path, number, f"expected ngram {len(counts) + 1}=, got '{line[:40]}'")
            counts.append(int(match[2]))
    else:
        wanted = "\\data\\" if counts is None else "\\end\\"
        fail(path, number, f"{wanted} not found; the file is truncated or not an ARPA file")
    for special in (START, END):
        if special not in names:
            fail(path, number, f"required 1-gram {special} is missing; estimate the model from whole lines")
    if UNKNOWN not in names:
        sections[0].append([names.setdefault(UNKNOWN, len(names))], NO_UNKNOWN, 0.0, number)
    return [" " if name == space else name for name in names], [section.ngrams() for section in sections]


def write(path: str | Path, symbols: Sequence[str], orders: Sequence[NGrams], space: str) -> None:
    """Write an ARPA file, compressed with gzip if the path ends in .gz; the highest order has no backoff weights.

    Args:
        path: path to the file.
        symbols: symbols in the order of their ids.
        orders: n-grams, one entry per order.
        space: name of the space character in the file.

    Raises:
        InputError: if `space` is a symbol or contains whitespace, or the file cannot be written.
    """
    if not space or space in symbols or set(space) & set(SEPARATORS + " "):
        raise InputError(f"{path}: invalid name '{space}' for the space character; choose another --space")
    names = [space if symbol == " " else symbol for symbol in symbols]
    pack = gzip.open if Path(path).suffix == ".gz" else open
    try:
        with pack(path, "wt", encoding="utf-8", newline="\n") as file:
            file.write("\\data\\\n" + "".join(f"ngram {k}={len(part.ids)}\n" for k, part in enumerate(orders, 1)))
            for k, ngrams in enumerate(orders, 1):
                file.write(f"\n\\{k}-grams:\n")
                rows = (part.tolist() for part in (ngrams.ids, ngrams.log_probs / _LN10, ngrams.backoffs / _LN10))
                for ids, log_prob, backoff in zip(*rows, strict=True):
                    weight = f"\t{backoff:.8g}" if k < len(orders) else ""
                    file.write(f"{log_prob:.8g}\t{' '.join([names[id] for id in ids])}{weight}\n")
            file.write("\n\\end\\\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another path") from None


def fail(path: str | Path, line: int, reason: str) -> NoReturn:
    """Raise an InputError that names the file and line."""
    raise InputError(f"{path}, line {line}: {reason}")


class _Section:
    """The n-grams of one order that have been read so far."""

    def __init__(self, order: int, highest: int, path: str | Path, space: str) -> None:
        self.order, self.weighted, self.path, self.space = order, order < highest, path, space
        self.ids: list[list[int]] = []
        self.weights: list[tuple[float, float]] = []
        self.lines: list[int] = []

    def add(self, number: int, line: str, names: dict[str, int]) -> None:
        fields = line.replace("\t", " ").split(" ")
        if "" in fields:
            fields = [field for field in fields if field]
        symbols, rest = fields[1 : self.order + 1], fields[self.order + 1 :]
        if len(symbols) < self.order or len(rest) > self.weighted:
            end = "s" * (self.order > 1) + " and optionally a backoff weight" * self.weighted
            fail(self.path, number, f"expected a log10 probability, {self.order} symbol{end}, got '{line[:40]}'")
        try:
            log_prob, backoff = float(fields[0]), float(rest[0]) if rest else 0.0
        except ValueError:
            log_prob = backoff = math.nan
        if not (math.isfinite(log_prob) and math.isfinite(backoff) and log_prob <= 0):
            fail(self.path, number, f"invalid log10 probability (must be at most 0) or backoff weight in '{line[:40]}'")
        if self.order == 1:
            self._name(number, symbols[0], names)
        try:
            ids = [names[symbol] for symbol in symbols]
        except KeyError as error:
            fail(self.path, number, f"unknown symbol '{error.args[0][:40]}', which is not among the 1-grams")
        self.append(ids, log_prob, backoff, number)

    def append(self, ids: list[int], log_prob: float, backoff: float, number: int) -> None:
        self.ids.append(ids)
        self.weights.append((log_prob, backoff))
        self.lines.append(number)

    def close(self, number: int, count: int) -> None:
        if len(self.ids) != count:
            fail(self.path, number, f"expected {count} {self.order}-grams, as stated in \\data\\, got {len(self.ids)}")

    def ngrams(self) -> NGrams:
        weights = np.array(self.weights).reshape(-1, 2) * _LN10
        ids = np.array(self.ids, np.int64).reshape(-1, self.order)
        return NGrams(ids, weights[:, 0], weights[:, 1], self.lines)

    def _name(self, number: int, symbol: str, names: dict[str, int]) -> None:
        if len(symbol) > 1 and symbol not in SPECIALS and symbol != self.space:
            reason = f"is neither a single character nor {self.space} (the space); use --space to set another name"
            fail(self.path, number, f"'{symbol[:40]}' {reason}")
        if symbol in names:
            fail(self.path, number, f"duplicate 1-gram '{symbol}'")
        names[symbol] = len(names)


def _lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield the numbered, stripped lines of a plain or gzip-compressed text file."""
    number = 0
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                yield number, line.decode("utf-8").strip(" \t\r\n")
    except UnicodeDecodeError:
        fail(path, number, "not UTF-8; convert the file")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); check the file"
        ) from None
