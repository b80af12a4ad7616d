"""Generate any number of lines handwritten by synthetic writers."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Interval, Len
from jaxtyping import Float64
from numpy import ndarray

from htr_lightning.data.files import files_below
from htr_lightning.data.sample import Sample, Skipped
from htr_lightning.data.synthetic.fonts import IDEOGRAPHS, FontWriter, covers, open_font
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
from htr_lightning.parameters import Count, Fraction, Seed
from htr_lightning.text.codec import name

SPLITS = {"train": 0, "val": 1, "test": 2}
Lines = Annotated[int, Interval(ge=1, le=10**7)]
Bounds = Annotated[Sequence[Annotated[int, Interval(ge=1, le=1000)]], Len(2, 2)]
Heights = Annotated[Sequence[Annotated[int, Interval(ge=8, le=1 << 10)]], Len(2, 2)]

SUFFIXES = (".ttf", ".otf", ".ttc", ".woff", ".woff2")  # of font files


class Synthetic(Sequence[Sample]):
    """Lines drawn by synthetic writers; validation and test writers never appear in training.

    A line depends only on the seed, the split and its index, not on the worker or rank that draws it. A crossed-out
    word appears as `>word<` in the reference.

    Args:
        split: train, val or test.
        lines: number of lines in each split.
        writers: number of writers in each split.
        words: word list with one word per line, given as "package:english.txt", "package:french.txt" or a path.
        text: running text used instead of the word list, given as "package:french_prose.txt" or a path.
        unit: unit of the passages taken from running text (words, line or characters); use characters for scripts
            without spaces.
        length: minimum and maximum line length in words, or in characters if `unit` is characters.
        pseudoword_fraction: fraction of words replaced by pseudowords with a similar spelling.
        rare_characters: characters that are rare in the source or missing from it.
        rare_fraction: fraction of words that receive a rare character.
        crossed_out_fraction: fraction of words that are crossed out.
        fonts: folder of font files, used by writers in every split; each writer has an individual style.
        font_fraction: fraction of writers who use a font. If the text contains characters that only fonts can provide,
            such as Chinese characters, all writers use fonts.
        unwritable: what to do with a character that no writer can draw; "error", or "skip" to omit it from the lines.
        neighbor_fraction: fraction of lines with ascenders or descenders of adjacent lines at the edges of the image.
        height: minimum and maximum line height in pixels.
        seed: random seed for writers, texts and images.

    Raises:
        InputError: if a file cannot be used, a character cannot be drawn, or an option is invalid.
    """

    def __init__(
        self,
        split: str,
        lines: Mapping[str, Lines],
        writers: Mapping[str, Count],
        words: str = "package:english.txt",
        text: str | None = None,
        unit: str = "words",
        length: Bounds = (2, 6),
        pseudoword_fraction: Fraction = 0.0,
        rare_characters: str = "",
        rare_fraction: Fraction = 0.0,
        crossed_out_fraction: Fraction = 0.0,
        fonts: str | None = None,
        font_fraction: Fraction = 0.5,
        unwritable: str = "error",
        neighbor_fraction: Fraction = 0.2,
        height: Heights = (40, 64),
        seed: Seed = 0,
    ) -> None:
        if split not in SPLITS:
            raise InputError(f"'{split}' is not a split; expected one of {', '.join(SPLITS)}")
        for key, value in (("lines", lines), ("writers", writers)):
            if split not in value:
                raise InputError(f"data.reader.{key}.{split} is missing; set it to a number")
        if unwritable not in ("error", "skip"):
            raise InputError(f"data.reader.unwritable={unwritable}: expected error or skip")
        if text is None and unit != "words":
            raise InputError(f"data.reader.unit={unit}: requires running text; set data.reader.text=FILE")
        for key, bounds in (("length", length), ("height", height)):
            if bounds[0] > bounds[1]:
                raise InputError(f"data.reader.{key}={list(bounds)}: the minimum is larger than the maximum; swap them")
        self.skipped: list[Skipped] = []
        self._split, self._count, self._writer_count = split, lines[split], writers[split]
        self._origin = words if text is None else text
        self._folder = fonts
        self._fonts = find_fonts(Path(fonts)) if fonts is not None and font_fraction > 0 else []
        self._font_fraction = font_fraction if self._fonts else 0.0
        known: list[str] = []
        if text is None:
            known = [unicodedata.normalize("NFC", word) for word in read_words(words)]
            counts = Counter("".join(known))
            added = set(SIGNS).union(*(word[0].upper() for word in known))
        else:
            prose = unicodedata.normalize("NFC", read_text(text))
            counts, added = Counter(prose), set()
        counts += Counter(rare_characters)
        characters = {c for c in added.union(counts) if not c.isspace()}
        self._in_fonts = _covered(characters, self._fonts)
        built_in = {c for c in characters if can_write(c)}
        if (self._in_fonts - built_in).intersection(counts):
            self._font_fraction = 1.0
        self._writable = built_in if self._font_fraction < 1 else self._in_fonts
        left_out = self._left_out(counts, unwritable)
        self._rare = rare_characters.translate(left_out)
        self._source: Source
        if text is None:
            known = [word for word in (word.translate(left_out) for word in known) if word]
            self._source = WordList(known, self._writable)
        else:
            self._source = RunningText(prose.translate(left_out), unit)
            known = self._source.words
        if not known:
            raise InputError(f"{self._origin}: {self._sources()} has any character in the text; {self._remedy()}")
        self._spelling = Spelling(known, self._writable) if pseudoword_fraction else None
        self._pseudoword_fraction, self._rare_fraction = pseudoword_fraction, rare_fraction
        self._crossed_out_fraction = crossed_out_fraction
        self._length, self._height, self._seed = tuple(length), tuple(height), seed
        self._neighbor_fraction = neighbor_fraction
        self._writers: dict[tuple[int, bool], SyntheticWriter | FontWriter] = {}  # created on demand

    def __len__(self) -> int:
        return self._count

    @property
    def note(self) -> str | None:
        """The number of fonts and the fraction of writers who use them, or None if there are no fonts."""
        if not self._fonts:
            return None
        complete = sum(all(covers(path, c) for c in self._writable) for path in self._fonts)
        return (f"fonts: {len(self._fonts)} files in {self._folder}, {complete} with all {len(self._writable)} "
                f"characters of the texts; used by {self._font_fraction:.0%} of the writers")  # fmt: skip

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        words, crossed_out = self._line(index)
        writer, rng, height = self._writer_of(index, words)
        mask, baseline = writer.mask(" ".join(words), rng, height, crossed_out)
        if rng.random() < self._neighbor_fraction:
            mask = with_neighbors(mask, baseline, rng)
        image = write_on_paper(mask, baseline, writer.pencil, rng)
        return Sample(self.ids[index], image, _reference(words, crossed_out), self.groups[index])

    def letter_boxes(self, index: int) -> Float64[ndarray, "N 4"] | None:
        """Return the box of each character in the image of a line, or None if its writer uses a font.

        Boxes are (left, top, right, bottom) in pixels; that of a space is NaN. The marks of words that are crossed out
        (`>` and `<` in the text) have none.
        """
        words, crossed_out = self._line(index)
        writer, rng, height = self._writer_of(index, words)
        return writer.letter_boxes(" ".join(words), rng, height, crossed_out)

    def _writer_of(self, index: int, words: list[str]) -> tuple[SyntheticWriter | FontWriter, np.random.Generator, int]:
        """Return the writer of a line, the random generator to draw it with, and its height in pixels."""
        rng = np.random.default_rng((self._seed, SPLITS[self._split], index, 1))
        writer = self._writer(self._writer_number(index), "".join(words))
        low, high = self._height
        return writer, rng, int(rng.integers(low, high + 1))

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
        # Estimates, accurate enough for batching.
        return [(64, 24 + sum(52 if c >= IDEOGRAPHS else 22 for c in text)) for text in self.texts]

    def _writer_number(self, index: int) -> int:
        return (index * 7919 + index // self._writer_count) % self._writer_count

    def _writer(self, number: int, text: str) -> SyntheticWriter | FontWriter:
        """Return a writer, using the built-in alphabets if the fonts lack a character in the text."""
        seed = (self._seed, SPLITS[self._split], number)
        rng = np.random.default_rng((*seed, 2))
        uses_fonts = bool(rng.random() < self._font_fraction) and self._in_fonts.issuperset(text)
        if (number, uses_fonts) not in self._writers:
            fonts = [self._fonts[place] for place in rng.permutation(len(self._fonts))]
            self._writers[number, uses_fonts] = FontWriter(seed, fonts) if uses_fonts else SyntheticWriter(seed)
        return self._writers[number, uses_fonts]

    def _left_out(self, counts: Counter[str], unwritable: str) -> dict[int, None]:
        """Reject or record the characters that no writer can draw; return a table that removes them from a text."""
        lacking = [c for c, _ in counts.most_common() if not c.isspace() and c not in self._writable]
        if lacking and unwritable == "error":
            raise InputError(
                f"{self._origin}: {self._sources()} has {_first(list(map(name, lacking)))}; {self._remedy()}, "
                "or set data.reader.unwritable=skip to leave out such characters"
            )
        self.skipped += [
            Skipped(f"synthetic/{self._split}/{name(c)}", "character that no writer can draw", f"{counts[c]} times")
            for c in sorted(lacking)
        ]
        return dict.fromkeys(map(ord, lacking))

    def _sources(self) -> str:
        if not self._fonts:
            return "no built-in alphabet"
        return f"no font in {self._folder} ({_first([path.name for path in self._fonts])})"

    def _remedy(self) -> str:
        return "add a font that does" if self._fonts else "set data.reader.fonts to a folder of fonts that do"

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


def _covered(characters: Iterable[str], fonts: Sequence[Path]) -> set[str]:
    """Return the characters that at least one font has."""
    covered, ranked = set(), list(fonts)
    for character in characters:
        path = next((path for path in ranked if covers(path, character)), None)
        if path is not None:
            covered.add(character)
            ranked.remove(path)
            ranked.insert(0, path)  # try this font first for the next character, since look-ups are slow
    return covered


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _with_rare(word: str, character: str, rng: np.random.Generator) -> str:
    """Replace a letter of a word with a rare letter, or add another rare character before or after the word."""
    if character.isalpha():
        position = 0 if character.isupper() else int(rng.integers(len(word)))
        return word[:position] + character + word[position + 1 :]
    return word + character if rng.random() < 0.5 else character + word


def _reference(words: list[str], crossed_out: frozenset[int]) -> str:
    return " ".join(f">{word}<" if number in crossed_out else word for number, word in enumerate(words))


def find_fonts(folder: Path) -> list[Path]:
    """Find the font files below a folder.

    Raises:
        InputError: if the folder contains no font files, or a font file cannot be read.
    """
    files = files_below(folder) if folder.is_dir() else []
    fonts = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not fonts:
        raise InputError(
            f"{folder}: contains no {', '.join(SUFFIXES)} files; set data.reader.fonts to a folder of fonts"
        )
    for path in fonts:
        open_font(path)
    return fonts
