"""Generate the texts of synthetic lines from a word list or running text."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from importlib import resources
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from htr_lightning.errors import InputError

SIGNS = "0123456789,.;:!?-'\"()"
# Punctuation before and after a word from a word list; all entries have the same probability.
MARKS = [*(("", sign) for sign in ",.,.,.;:!?-'"), ('"', '"'), ("(", ")"), ("(", ")")]
UNITS = ("words", "line", "characters")
# A character of a script without spaces between words: Chinese or Japanese with its punctuation, but not Korean.
UNSPACED = "[\u2e80-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff]"
MAX_CHARACTERS = 200  # maximum length of a line


@runtime_checkable
class Source(Protocol):
    """Interface for text sources, which return the words of random lines."""

    def draw(self, length: Sequence[int], rng: np.random.Generator) -> list[str]: ...


class WordList:
    """A source of random words from a list, with the capitals, punctuation and numbers of prose.

    Args:
        words: words in order of descending frequency; earlier words are chosen more often.
        writable: characters that can be drawn, to which added capitals, punctuation and digits are limited.
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
    """A source of random passages from a text.

    Args:
        text: running text.
        unit: unit of a passage. "words" and "characters" select a random number of consecutive words or characters
            within the bounds passed to `draw`; "line" selects a whole line of the text.

    Raises:
        InputError: if the unit is invalid, does not suit the text, or would produce a line that is too long.
    """

    def __init__(self, text: str, unit: str) -> None:
        if unit not in UNITS:
            raise InputError(f"data.reader.unit={unit}: use one of {', '.join(UNITS)}")
        lines = [" ".join(line.split()) for line in text.splitlines()]
        self.unit, self.lines = unit, [line for line in lines if line]
        self.words = text.split()
        self.body = re.sub(rf"(?<={UNSPACED})\n|\n(?={UNSPACED})", "", "\n".join(self.lines)).replace("\n", " ")
        if unit == "words" and 2 * len(re.findall(UNSPACED, text)) > sum(map(len, self.words)) > 0:
            raise InputError(
                "data.reader.unit=words: Chinese and Japanese have no spaces between words; use "
                "data=synthetic_chinese, or data.reader.unit=characters"
            )
        pieces = {"words": self.words, "line": self.lines, "characters": []}[unit]
        if longest := next((piece for piece in pieces if len(piece) > MAX_CHARACTERS), None):
            remedy = "characters" if unit == "words" else "words"
            raise InputError(
                f"data.reader.unit={unit}: '{longest[:20]}…' is too long for a line ({len(longest)} characters, "
                f"maximum {MAX_CHARACTERS}); use data.reader.unit={remedy}"
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
    """A generator of pseudowords spelt by a second-order Markov chain over the letters of the given words.

    Args:
        words: words to imitate, stripped of punctuation; those that contain anything other than letters are ignored.
        writable: characters that can be drawn; words with other characters are ignored.
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
        """Return a pseudoword of at most 14 letters, or "" if there are no words to imitate."""
        word = "  "
        for value in rng.random(14 if self.after else 0).tolist():
            letters = self.after[word[-2:]]
            letter = letters[int(value * len(letters))]
            if letter == " ":
                break
            word += letter
        return word[2:]


def capitalized(word: str, writable: Collection[str]) -> str:
    """Capitalise the first letter of a word if the capital can be drawn."""
    capital = word[0].upper()
    return capital + word[1:] if all(letter in writable for letter in capital) else word


def read_words(words: str) -> list[str]:
    """Read a word list, which is ordered by descending frequency.

    Raises:
        InputError: if the file is missing, empty or not UTF-8.
    """
    found = _read(words, "words").split()
    if not found:
        raise InputError(f"{words}: the word list is empty; add words to it")
    return found


def read_text(text: str) -> str:
    """Read a file of running text.

    Raises:
        InputError: if the file is missing, empty or not UTF-8.
    """
    found = _read(text, "text")
    if not found.strip():
        raise InputError(f"{text}: the file is empty; add text to it")
    return found


def _read(path: str, key: str) -> str:
    kind, _, name = path.rpartition(":")
    try:
        source = resources.files("htr_lightning.data") / "words" / name if kind == "package" else Path(path)
        return source.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8; save the file as UTF-8") from None
    except (OSError, ValueError):  # ValueError: null byte in the path
        raise InputError(f"{path}: not found; set data.reader.{key} to a text file") from None
