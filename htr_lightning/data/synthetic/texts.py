"""What synthetic lines say: words of a list, or running text."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from importlib import resources
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from htr_lightning.errors import InputError

SIGNS = "0123456789,.;:!?-'\"()"
# What stands before and after a word of a list, each as often as the others.
MARKS = [*(("", sign) for sign in ",.,.,.;:!?-'"), ('"', '"'), ("(", ")"), ("(", ")")]
UNITS = ("words", "line", "characters")
LONGEST = 200  # characters of a line; more is no line that anybody writes


@runtime_checkable
class Source(Protocol):
    """Draws the words of a line."""

    def draw(self, length: Sequence[int], rng: np.random.Generator) -> list[str]: ...


class WordList:
    """Words of a list, the first more often, with the capitals, punctuation and figures of ordinary prose.

    Args:
        words: most frequent first.
        writable: the characters that may be drawn; a capital, sign or figure that is not among them is left out.
    """

    def __init__(self, words: Sequence[str], writable: Collection[str]) -> None:
        self.words, self.writable = list(words), writable
        self.figures = all(digit in writable for digit in "0123456789")

    def draw(self, length: Sequence[int], rng: np.random.Generator) -> list[str]:
        count = int(rng.integers(length[0], length[1] + 1))
        chosen = [self.words[i] for i in (len(self.words) * rng.random(count) ** 1.5).astype(int)]
        for place, (figure, mark, capital) in enumerate(rng.random((count, 3)).tolist()):
            if figure < 0.05 and self.figures:
                chosen[place] = str(rng.integers(10 ** rng.integers(1, 5)))
            if capital < (0.3 if place == 0 else 0.04):
                chosen[place] = capitalized(chosen[place], self.writable)
            if mark < 0.16:
                before, after = MARKS[int(rng.integers(len(MARKS)))]
                if all(sign in self.writable for sign in before + after):
                    chosen[place] = before + chosen[place] + after
        return chosen


class RunningText:
    """Pieces of a text as it stands, with its capitals and punctuation.

    Args:
        text: any.
        unit: words: as many consecutive words as `length` says; line: a whole line of the text; characters: as many
            consecutive characters as `length` says, cut anywhere.

    Raises:
        InputError: the unit is none, or would give a line too long to write.
    """

    def __init__(self, text: str, unit: str) -> None:
        if unit not in UNITS:
            raise InputError(f"data.reader.unit={unit}: use one of {', '.join(UNITS)}")
        lines = [" ".join(line.split()) for line in text.splitlines()]
        self.unit, self.lines = unit, [line for line in lines if line]
        self.words = text.split()
        self.body = " ".join(self.words)
        pieces = {"words": self.words, "line": self.lines, "characters": []}[unit]
        if longest := next((piece for piece in pieces if len(piece) > LONGEST), None):
            raise InputError(
                f"data.reader.unit={unit}: '{longest[:20]}…' has {len(longest)} characters, more than a line of "
                f"handwriting has ({LONGEST}); use data.reader.unit={'characters' if unit == 'words' else 'words'}"
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
    """Invents words that are spelt as the words of a source are: a chain of letters, each after the two before it.

    Args:
        words: any; those of letters only are learnt from.
        writable: the letters that may be drawn.
    """

    def __init__(self, words: Sequence[str], writable: Collection[str]) -> None:
        after: dict[str, Counter[str]] = defaultdict(Counter)
        for word in words[:200_000]:
            bare = word.strip(",.;:!?-'\"()«»").lower()
            if bare.isalpha() and all(letter in writable for letter in bare):
                for place, letter in enumerate(bare + " "):
                    after[("  " + bare)[place : place + 2]][letter] += 1
        self.after = {pair: ("".join(sorted(seen.elements()))) for pair, seen in after.items()}

    def draw(self, rng: np.random.Generator) -> str:
        """A word of at most 14 letters; empty where the source has no word."""
        word = "  "
        for dice in rng.random(14 if self.after else 0).tolist():
            letters = self.after[word[-2:]]
            letter = letters[int(dice * len(letters))]
            if letter == " ":
                break
            word += letter
        return word[2:]


def capitalized(word: str, writable: Collection[str]) -> str:
    """The word with a capital first letter, where that can be written."""
    capital = word[0].upper()
    return capital + word[1:] if all(letter in writable for letter in capital) else word


def read_words(words: str) -> list[str]:
    """A word list, most frequent first.

    Raises:
        InputError: there is no such file, or it is empty.
    """
    found = _read(words, "words").split()
    if not found:
        raise InputError(f"{words}: the word list is empty; give it words")
    return found


def read_text(text: str) -> str:
    """A file of running text.

    Raises:
        InputError: there is no such file, or it is empty.
    """
    found = _read(text, "text")
    if not found.strip():
        raise InputError(f"{text}: the file has no text; give it some")
    return found


def _read(path: str, key: str) -> str:
    kind, _, name = path.rpartition(":")
    try:
        source = resources.files("htr_lightning.data") / "words" / name if kind == "package" else Path(path)
        return source.read_text(encoding="utf-8-sig")
    except (OSError, ValueError):  # a path with a null byte is a ValueError, as is what is not UTF-8
        what = "word list" if key == "words" else "text"
        raise InputError(f"{path}: no such {what}, or not UTF-8; set data.reader.{key} to a file of {key}") from None
