"""Generate any number of handwritten lines by synthetic writers."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from htr_lightning.data.sample import Sample, Skipped
from htr_lightning.data.synthetic.fonts import FontWriter, covers
from htr_lightning.data.synthetic.glyphs import can_write
from htr_lightning.data.synthetic.paper import with_neighbors, write_on_paper
from htr_lightning.data.synthetic.texts import (
    SIGNS,
    RunningText,
    Source,
    Spelling,
    WordList,
    capitalized,
    read_text,
    read_words,
)
from htr_lightning.data.synthetic.writer import SyntheticWriter
from htr_lightning.errors import InputError
from htr_lightning.text.codec import name

SPLITS = {"train": 0, "val": 1, "test": 2}


class Synthetic(Sequence[Sample]):
    """Lines drawn by synthetic writers; validation and test writers never occur in training.

    A line depends only on the seed, the split and its index, not on the worker or rank that draws it. A crossed-out
    word appears as `>word<` in the reference.

    Args:
        split: train, val or test.
        lines: number of lines in each split.
        writers: number of writers in each split.
        words: word list with one word per line: "package:english.txt", "package:french.txt", or a path.
        text: running text used instead of the word list: "package:french_prose.txt", or a path.
        unit: unit in which running text is cut: words, line or characters; use characters for scripts without spaces.
        length: minimum and maximum line length in words, or in characters if `unit` is characters.
        pseudoword_fraction: fraction of words replaced by pseudowords with a similar spelling.
        rare_characters: characters that are rare in the source or missing from it.
        rare_fraction: fraction of words to which a rare character is added.
        crossed_out_fraction: fraction of words that are crossed out.
        fonts: folder of TTF, OTF or TTC files; writers in every split use them, each with an individual style.
        font_fraction: fraction of writers who use a font; 1 for scripts that the built-in alphabets do not cover.
        unwritable: what to do with a character that no writer can draw: "error", or "skip" to omit it from the lines.
        incomplete_fonts: what to do with a font that lacks a character: "error", or "skip" to ignore the font.
        neighbor_fraction: fraction of lines that show ascenders and descenders of adjacent lines at their edges.
        height: minimum and maximum line height in pixels.
        seed: random seed for writers, texts and everything else.

    Raises:
        InputError: if a file cannot be used, a character cannot be drawn, or an option is invalid.
    """

    def __init__(
        self,
        split: str,
        lines: dict[str, int],
        writers: dict[str, int],
        words: str = "package:english.txt",
        text: str | None = None,
        unit: str = "words",
        length: Sequence[int] = (2, 6),
        pseudoword_fraction: float = 0.0,
        rare_characters: str = "",
        rare_fraction: float = 0.0,
        crossed_out_fraction: float = 0.0,
        fonts: str | None = None,
        font_fraction: float = 0.5,
        unwritable: str = "error",
        incomplete_fonts: str = "error",
        neighbor_fraction: float = 0.2,
        height: Sequence[int] = (40, 64),
        seed: int = 0,
    ) -> None:
        if split not in SPLITS:
            raise InputError(f"'{split}' is not a split; expected one of {', '.join(SPLITS)}")
        if writers[split] < 1:
            raise InputError(f"data.reader.writers.{split}={writers[split]}: expected at least 1")
        for key, value in (("unwritable", unwritable), ("incomplete_fonts", incomplete_fonts)):
            if value not in ("error", "skip"):
                raise InputError(f"data.reader.{key}={value}: expected error or skip")
        if not 1 <= length[0] <= length[1]:
            raise InputError(f"data.reader.length={list(length)}: expected a minimum and a maximum, at least 1")
        self.skipped: list[Skipped] = []
        self._split, self._count, self._writer_count = split, lines[split], writers[split]
        self._origin = words if text is None else text
        self._fonts = [] if fonts is None else find_fonts(Path(fonts))
        self._font_fraction = font_fraction if self._fonts else 0.0
        known: list[str] = []
        if text is None:
            known = [unicodedata.normalize("NFC", word) for word in read_words(words)]
            counts = Counter(c for word in known for c in (*word, *word[0].upper())) + Counter(SIGNS)
        else:
            prose = unicodedata.normalize("NFC", read_text(text))
            counts = Counter(prose)
        counts += Counter(rare_characters)
        left_out = self._unwritable(counts, unwritable, incomplete_fonts)
        self._rare = rare_characters.translate(left_out)
        self._writable = {c for c in counts if ord(c) not in left_out}
        self._source: Source
        if text is None:
            known = [word for word in (word.translate(left_out) for word in known) if word]
            self._source = WordList(known, self._writable)
        else:
            self._source = RunningText(prose.translate(left_out), unit)
            known = self._source.words
        if not known:
            raise InputError(
                f"{self._origin}: no writer can draw any of its characters; set data.reader.fonts and font_fraction=1"
            )
        self._spelling = Spelling(known, self._writable) if pseudoword_fraction else None
        self._pseudoword_fraction, self._rare_fraction = pseudoword_fraction, rare_fraction
        self._crossed_out_fraction = crossed_out_fraction
        self._length, self._height, self._seed = tuple(length), tuple(height), seed
        self._neighbor_fraction = neighbor_fraction
        self._writers: dict[int, SyntheticWriter | FontWriter] = {}  # created on demand, by number

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        rng = np.random.default_rng((self._seed, SPLITS[self._split], index, 1))
        writer = self._writer(self._writer_number(index))
        words, crossed_out = self._line(index)
        low, high = self._height
        mask, baseline = writer.mask(" ".join(words), rng, int(rng.integers(low, high + 1)), crossed_out)
        if rng.random() < self._neighbor_fraction:
            mask = with_neighbors(mask, baseline, rng)
        image = write_on_paper(mask, baseline, writer.pencil, rng)
        return Sample(self.ids[index], image, _reference(words, crossed_out), self.groups[index])

    @cached_property
    def ids(self) -> list[str]:
        return [f"synthetic/{self._split}/{index}" for index in range(self._count)]

    @cached_property
    def texts(self) -> list[str]:
        return [_reference(*self._line(index)) for index in range(self._count)]

    @cached_property
    def groups(self) -> list[str]:
        return [f"{self._split}-writer-{self._writer_number(index)}" for index in range(self._count)]

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        return [(64, 24 + 22 * len(text)) for text in self.texts]  # estimates, accurate enough for batching

    def _writer_number(self, index: int) -> int:
        return (index * 7919 + index // self._writer_count) % self._writer_count

    def _writer(self, number: int) -> SyntheticWriter | FontWriter:
        if number not in self._writers:
            self._writers[number] = self._new_writer(number)
        return self._writers[number]

    def _new_writer(self, number: int) -> SyntheticWriter | FontWriter:
        seed = (self._seed, SPLITS[self._split], number)
        rng = np.random.default_rng((*seed, 2))
        if rng.random() < self._font_fraction:
            return FontWriter(seed, self._fonts[int(rng.integers(len(self._fonts)))])
        return SyntheticWriter(seed)

    def _unwritable(self, counts: Counter[str], unwritable: str, incomplete_fonts: str) -> dict[int, None]:
        """Reject or drop unusable characters and fonts before anything is drawn."""
        needed = sorted(c for c in counts if not c.isspace())
        if self._font_fraction < 1:
            lacking = {c for c in needed if not can_write(c)}
        else:
            lacking = {c for c in needed if not any(covers(path, c) for path in self._fonts)}
        if lacking and unwritable == "error":
            remedy = "remove it from the text, or set data.reader.unwritable=skip"
            raise InputError(f"{self._origin}: no writer can draw {name(min(lacking))}; {remedy}")
        self.skipped += [
            Skipped(f"synthetic/{self._split}/{name(c)}", "character that no writer can draw", f"{counts[c]} times")
            for c in sorted(lacking)
        ]
        whole = []
        for path in self._fonts:
            if absent := next((c for c in needed if c not in lacking and not covers(path, c)), None):
                if incomplete_fonts == "error":
                    remedy = "remove it from the folder, or set data.reader.incomplete_fonts=skip"
                    raise InputError(f"{path}: the font has no {name(absent)}; {remedy}")
                self.skipped.append(Skipped(path.name, "font with a missing character", name(absent)))
            else:
                whole.append(path)
        if self._fonts and not whole:
            raise InputError(
                f"{self._fonts[0].parent}: no font has every character in {self._origin}; add one that does"
            )
        self._fonts = whole
        return dict.fromkeys(map(ord, lacking))

    def _line(self, index: int) -> tuple[list[str], frozenset[int]]:
        """Return the words of a line, and the indices of those that are crossed out."""
        rng = np.random.default_rng((self._seed, SPLITS[self._split], index, 0))
        words = self._source.draw(self._length, rng)
        if self._spelling is None and not self._rare_fraction and not self._crossed_out_fraction:
            return words, frozenset()
        chances = rng.random((len(words), 3))
        for number, (respelt, rare, _) in enumerate(chances.tolist()):
            word = words[number]
            if self._spelling is not None and respelt < self._pseudoword_fraction and word.isalpha():
                new = self._spelling.draw(rng) or word
                words[number] = word = capitalized(new, self._writable) if word[0].isupper() else new
            if self._rare and rare < self._rare_fraction:
                words[number] = _with_rare(word, self._rare[int(rng.integers(len(self._rare)))], rng)
        return words, frozenset(np.flatnonzero(chances[:, 2] < self._crossed_out_fraction).tolist())


def _with_rare(word: str, character: str, rng: np.random.Generator) -> str:
    """Replace a letter of a word by a rare letter, or add another rare character before or after the word."""
    if character.isalpha():
        position = 0 if character.isupper() else int(rng.integers(len(word)))
        return word[:position] + character + word[position + 1 :]
    return word + character if rng.random() < 0.5 else character + word


def _reference(words: list[str], crossed_out: frozenset[int]) -> str:
    return " ".join(f">{word}<" if number in crossed_out else word for number, word in enumerate(words))


def find_fonts(folder: Path) -> list[Path]:
    """Find the font files below a folder.

    Raises:
        InputError: if the folder contains no font files.
    """
    fonts = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".ttf", ".otf", ".ttc"))
    if not fonts:
        raise InputError(f"{folder}: contains no .ttf, .otf or .ttc files; set data.reader.fonts to a folder of fonts")
    return fonts
