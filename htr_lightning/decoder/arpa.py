"""The ARPA format of n-gram models, as read and written by KenLM and SRILM.

Symbols are single characters besides <s>, </s> and <unk>. Blanks are separators in the format, so a space is written
under another name.
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
SEPARATORS = "\0\t\n\v\f\r"  # cannot be symbols, since ARPA files could not hold them
NO_UNKNOWN = -100.0  # log10 probability of <unk> in a file without it, as in KenLM
_LN10 = math.log(10)
_COUNT = re.compile(r"ngram +(\d+) *= *(\d+)")


class NGrams(NamedTuple):
    """The n-grams of one order: symbol ids, natural logarithms, and line numbers of the file."""

    ids: Int[ndarray, "N K"]
    log_probs: Float[ndarray, " N"]
    backoffs: Float[ndarray, " N"]
    lines: list[int]


def read(path: str | Path, space: str) -> tuple[list[str], list[NGrams]]:
    """The symbols of an ARPA file in order, and its n-grams order by order; plain or gzip.

    Raises:
        InputError: the file cannot be read or is malformed; the message names file and line.
    """
    counts: list[int] | None = None
    sections: list[_Section] = []
    names: dict[str, int] = {}
    number = 0
    for number, line in _lines(path):
        if not line:
            continue
        if counts is None:
            counts = [] if line == "\\data\\" else None  # anything before it is a comment
        elif line.startswith("\\"):
            if sections:
                sections[-1].close(number, counts[len(sections) - 1])
            wanted = "\\end\\" if 0 < len(counts) == len(sections) else f"\\{len(sections) + 1}-grams:"
            if line != wanted or not counts:
                fail(path, number, f"'{line[:40]}' instead of {wanted if counts else 'ngram 1='}")
            if line == "\\end\\":
                break
            sections.append(_Section(len(sections) + 1, len(counts), path, space))
        elif sections:
            sections[-1].add(number, line, names)
        else:
            match = _COUNT.fullmatch(line)
            if not match or int(match[1]) != len(counts) + 1:
                fail(path, number, f"'{line[:40]}' instead of 'ngram {len(counts) + 1}='")
            counts.append(int(match[2]))
    else:
        wanted = "\\data\\" if counts is None else "\\end\\"
        fail(path, number, f"the file ends before {wanted}; it is not an ARPA file, or is truncated")
    for special in (START, END):
        if special not in names:
            fail(path, number, f"{special} is not among the 1-grams; every line model needs it")
    if UNKNOWN not in names:
        sections[0].append([names.setdefault(UNKNOWN, len(names))], NO_UNKNOWN, 0.0, number)
    return [" " if name == space else name for name in names], [section.ngrams() for section in sections]


def write(path: str | Path, symbols: Sequence[str], orders: Sequence[NGrams], space: str) -> None:
    """Write n-grams order by order, as gzip if the name ends in .gz; the longest have no backoff weights.

    Raises:
        InputError: `space` is a symbol itself or contains blanks, or the file cannot be written.
    """
    if not space or space in symbols or set(space) & set(SEPARATORS + " "):
        raise InputError(f"{path}: '{space}' cannot represent the space in it; choose another name")
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
    """Raise the error for a malformed file."""
    raise InputError(f"{path}, line {line}: {reason}")


class _Section:
    """The n-grams of one order, as they are read."""

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
            end = " and an optional weight" if self.weighted else ""
            fail(self.path, number, f"'{line[:40]}' is not a logarithm, {self.order} symbols{end}")
        try:
            log_prob, backoff = float(fields[0]), float(rest[0]) if rest else 0.0
        except ValueError:
            log_prob = backoff = math.nan
        if not (math.isfinite(log_prob) and math.isfinite(backoff) and log_prob <= 0):
            fail(self.path, number, f"'{line[:40]}' has no valid log10 probability (0 or less) or backoff weight")
        if self.order == 1:
            self._name(number, symbols[0], names)
        try:
            ids = [names[symbol] for symbol in symbols]
        except KeyError as error:
            fail(self.path, number, f"'{error.args[0][:40]}' is not among the 1-grams")
        self.append(ids, log_prob, backoff, number)

    def append(self, ids: list[int], log_prob: float, backoff: float, number: int) -> None:
        self.ids.append(ids)
        self.weights.append((log_prob, backoff))
        self.lines.append(number)

    def close(self, number: int, count: int) -> None:
        if len(self.ids) != count:
            fail(self.path, number, f"{len(self.ids)} {self.order}-grams, but \\data\\ says {count}")

    def ngrams(self) -> NGrams:
        weights = np.array(self.weights).reshape(-1, 2) * _LN10
        ids = np.array(self.ids, np.int64).reshape(-1, self.order)
        return NGrams(ids, weights[:, 0], weights[:, 1], self.lines)

    def _name(self, number: int, symbol: str, names: dict[str, int]) -> None:
        if len(symbol) > 1 and symbol not in SPECIALS and symbol != self.space:
            reason = f"is neither a character nor {self.space}, the name of the space; give its name by --space"
            fail(self.path, number, f"'{symbol[:40]}' {reason}")
        if symbol in names:
            fail(self.path, number, f"'{symbol}' is listed twice")
        names[symbol] = len(names)


def _lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """The numbered lines of a text file, plain or gzip, stripped of blanks."""
    number = 0
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                yield number, line.decode("utf-8").strip(" \t\r\n")
    except UnicodeDecodeError:
        fail(path, number, "is not UTF-8; convert the file")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
