"""The texts of synthetic lines: words of a list, or running text."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from importlib import resources
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from htr_lightning.errors import InputError

SIGNS = "0123456789,.;:!?-'\"()"
# Signs before and after a word of a list, all with the same probability.
MARKS = [*(("", sign) for sign in ",.,.,.;:!?-'"), ('"', '"'), ("(", ")"), ("(", ")")]
UNITS = ("words", "line", "characters")
MAX_CHARACTERS = 200  # of a line of handwriting


@runtime_checkable
class Source(Protocol):
    """Gives the words of random lines."""

    def draw(self, length: Sequence[int], rng: np.random.Generator) -> list[str]: ...


class WordList:
    """Words of a list, the first ones more often, with the capitals, punctuation and figures of prose.

    Args:
        words: the most frequent first.
        writable: the characters that can be written; other capitals, signs and figures are not used.
    """

    def __init__(self, words: Sequence[str], writable: Collection[str]) -> None:
        self.words, self.writable = list(words), writable
        self.figures = all(digit in writable for digit in "0123456789")

    def draw(self, length: Sequence[int], rng: np.random.Generator) -> list[str]:
        count = int(rng.integers(length[0], length[1] + 1))
        chosen = [self.words[i] for i in (len(self.words) * rng.random(count) ** 1.5).astype(int)]
        for number, (figure, mark, capital) in enumerate(rng.random((count, 3)).tolist()):
            if figure < 0.05 and self.figures:
                chosen[number] = str(rng.integers(10 ** rng.integers(1, 5)))
            if capital < (0.3 if number == 0 else 0.04):
                chosen[number] = capitalized(chosen[number], self.writable)
            if mark < 0.16:
                before, after = MARKS[int(rng.integers(len(MARKS)))]
                if all(sign in self.writable for sign in before + after):
                    chosen[number] = before + chosen[number] + after
        return chosen


class RunningText:
    """Pieces of a text, with its capitals and punctuation.

    Args:
        text: any text.
        unit: words: as many consecutive words as `length` says; line: a whole line of the text; characters: as many
            consecutive characters as `length` says, beginning and ending anywhere.

    Raises:
        InputError: the unit is unknown, or would give a line that is too long to be written.
    """

    def __init__(self, text: str, unit: str) -> None:
        if unit not in UNITS:
            raise InputError(f"data.reader.unit={unit}: use one of {', '.join(UNITS)}")
        lines = [" ".join(line.split()) for line in text.splitlines()]
        self.unit, self.lines = unit, [line for line in lines if line]
        self.words = text.split()
        self.body = " ".join(self.words)
        pieces = {"words": self.words, "line": self.lines, "characters": []}[unit]
        if longest := next((piece for piece in pieces if len(piece) > MAX_CHARACTERS), None):
            remedy = "characters" if unit == "words" else "words"
            raise InputError(
                f"data.reader.unit={unit}: '{longest[:20]}…' has {len(longest)} characters, more than a line of "
                f"handwriting ({MAX_CHARACTERS}); use data.reader.unit={remedy}"
            )

    def draw(self, length: Sequence[int], rng: np.random.Generator) -> list[str]:
        if self.unit == "line":
            return self.lines[int(rng.integers(len(self.lines)))].split()
        count = int(rng.integers(length[0], length[1] + 1))
        if self.unit == "words":
            start = int(rng.integers(max(1, len(self.words) - count + 1)))
            return self.words[start : start + count]
        start = int(rng.integers(max(1, len(self.body) - count + 1)))
        start += self.body[start] == " "
        return self.body[start : start + count].split()


class Spelling:
    """Makes pseudowords spelt like the words of a source, by a Markov chain of letters of order two.

    Args:
        words: of the source; only those that consist of letters are used.
        writable: the letters that can be written.
    """

    def __init__(self, words: Sequence[str], writable: Collection[str]) -> None:
        after: dict[str, Counter[str]] = defaultdict(Counter)
        for word in words[:200_000]:
            bare = word.strip(",.;:!?-'\"()«»").lower()
            if bare.isalpha() and all(letter in writable for letter in bare):
                for start, letter in enumerate(bare + " "):
                    after[("  " + bare)[start : start + 2]][letter] += 1
        self.after = {pair: ("".join(sorted(seen.elements()))) for pair, seen in after.items()}

    def draw(self, rng: np.random.Generator) -> str:
        """A pseudoword of at most 14 letters; "" if the source has no word."""
        word = "  "
        for value in rng.random(14 if self.after else 0).tolist():
            letters = self.after[word[-2:]]
            letter = letters[int(value * len(letters))]
            if letter == " ":
                break
            word += letter
        return word[2:]


def capitalized(word: str, writable: Collection[str]) -> str:
    """The word with a capital first letter, if that can be written."""
    capital = word[0].upper()
    return capital + word[1:] if all(letter in writable for letter in capital) else word


def read_words(words: str) -> list[str]:
    """A word list, the most frequent first.

    Raises:
        InputError: there is no such file, or it is empty.
    """
    found = _read(words, "words").split()
    if not found:
        raise InputError(f"{words}: the word list is empty; add words")
    return found


def read_text(text: str) -> str:
    """A file of running text.

    Raises:
        InputError: there is no such file, or it is empty.
    """
    found = _read(text, "text")
    if not found.strip():
        raise InputError(f"{text}: the file has no text; add some")
    return found


def _read(path: str, key: str) -> str:
    kind, _, name = path.rpartition(":")
    try:
        source = resources.files("htr_lightning.data") / "words" / name if kind == "package" else Path(path)
        return source.read_text(encoding="utf-8-sig")
    except (OSError, ValueError):  # a path with a null byte is a ValueError, as is what is not UTF-8
        what = "word list" if key == "words" else "text"
        raise InputError(f"{path}: no such {what}, or not UTF-8; set data.reader.{key} to a file of {key}") from None
