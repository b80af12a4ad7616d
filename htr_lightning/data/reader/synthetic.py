"""Handwriting drawn on demand: endless lines by writers that do not exist."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from htr_lightning.data.sample import Sample, Skipped
from htr_lightning.data.synthetic.fonts import FontWriter, covers
from htr_lightning.data.synthetic.glyphs import can_write
from htr_lightning.data.synthetic.paper import with_neighbours, write_on_paper
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
    """Lines in synthetic hands; validation and test are written by hands that training never saw.

    Line `index` depends on the seed, the split and the index alone, whichever worker or rank draws it. A word that is
    struck out reads `>word<` in the reference.

    Args:
        split: train, val or test.
        lines: lines of each split.
        writers: of each split.
        words: a word list, one a line: "package:english.txt", "package:french.txt", or a file.
        text: a file of running text, written instead of the word list: "package:french_prose.txt", or a file.
        unit: of the running text: words, line or characters; characters for scripts without spaces.
        length: shortest and longest line in words, or in characters where that is the unit.
        invented: share of words that are spelt anew, as the words of the source are spelt.
        rare: characters that the source has not or hardly has.
        rare_fraction: share of words that get one of them.
        struck: share of words that are struck out.
        fonts: a folder of your own TTF, OTF or TTC files; hands of every split use them, each bent in its own way.
        font_fraction: of the writers who use one of them; 1 for scripts that the built-in alphabets lack.
        unwritable: error refuses a character that no hand can write, skip leaves it out of the lines.
        incomplete: error refuses a font that lacks a character, skip leaves the font out.
        neighbours: share of lines with tails and tips of other lines at their edges.
        height: smallest and largest height of a line in pixels.
        seed: of hands, texts and everything drawn.

    Raises:
        InputError: a file that cannot be used, a character that cannot be written, an option that is none.
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
        invented: float = 0.0,
        rare: str = "",
        rare_fraction: float = 0.0,
        struck: float = 0.0,
        fonts: str | None = None,
        font_fraction: float = 0.5,
        unwritable: str = "error",
        incomplete: str = "error",
        neighbours: float = 0.2,
        height: Sequence[int] = (40, 64),
        seed: int = 0,
    ) -> None:
        if split not in SPLITS:
            raise InputError(f"'{split}' is no split of synthetic lines; use one of {', '.join(SPLITS)}")
        if writers[split] < 1:
            raise InputError(
                f"data.reader.writers: {writers[split]} writers for split '{split}'; it takes at least one"
            )
        for key, value in (("unwritable", unwritable), ("incomplete", incomplete)):
            if value not in ("error", "skip"):
                raise InputError(f"data.reader.{key}={value}: use error or skip")
        if not 1 <= length[0] <= length[1]:
            raise InputError(f"data.reader.length={list(length)}: give the shortest and the longest, from 1 up")
        self.skipped: list[Skipped] = []
        self._split, self._count, self._writers = split, lines[split], writers[split]
        self._origin = words if text is None else text
        self._fonts = [] if fonts is None else find_fonts(Path(fonts))
        self._font_share = font_fraction if self._fonts else 0.0
        known: list[str] = []
        if text is None:
            known = [unicodedata.normalize("NFC", word) for word in read_words(words)]
            counts = Counter(c for word in known for c in (*word, *word[0].upper())) + Counter(SIGNS)
        else:
            prose = unicodedata.normalize("NFC", read_text(text))
            counts = Counter(prose)
        counts += Counter(rare)
        left_out = self._unwritable(counts, unwritable, incomplete)
        self._rare = rare.translate(left_out)
        self._writable = {c for c in counts if ord(c) not in left_out}
        self._source: Source
        if text is None:
            known = [word for word in (word.translate(left_out) for word in known) if word]
            self._source = WordList(known, self._writable)
        else:
            self._source = RunningText(prose.translate(left_out), unit)
            known = self._source.words
        if not known:
            raise InputError(f"{self._origin}: no hand can write any of it; set data.reader.fonts and font_fraction=1")
        self._spelling = Spelling(known, self._writable) if invented else None
        self._invented, self._rare_share, self._struck = invented, rare_fraction, struck
        self._length, self._height, self._seed = tuple(length), tuple(height), seed
        self._neighbours = neighbours
        self._drawn: dict[int, SyntheticWriter | FontWriter] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        rng = np.random.default_rng((self._seed, SPLITS[self._split], index, 1))
        hand = self._hand(self._writer(index))
        words, struck = self._line(index)
        low, high = self._height
        mask, baseline = hand.mask(" ".join(words), rng, int(rng.integers(low, high + 1)), struck)
        if rng.random() < self._neighbours:
            mask = with_neighbours(mask, baseline, rng)
        image = write_on_paper(mask, baseline, hand.pencil, rng)
        return Sample(self.ids[index], image, _reference(words, struck), self.groups[index])

    @cached_property
    def ids(self) -> list[str]:
        return [f"synthetic/{self._split}/{index}" for index in range(self._count)]

    @cached_property
    def texts(self) -> list[str]:
        return [_reference(*self._line(index)) for index in range(self._count)]

    @cached_property
    def groups(self) -> list[str]:
        return [f"{self._split}-hand-{self._writer(index)}" for index in range(self._count)]

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        return [(64, 24 + 22 * len(text)) for text in self.texts]  # close enough to batch by

    def _writer(self, index: int) -> int:
        return (index * 7919 + index // self._writers) % self._writers

    def _hand(self, number: int) -> SyntheticWriter | FontWriter:
        if number not in self._drawn:
            self._drawn[number] = self._new_hand(number)
        return self._drawn[number]

    def _new_hand(self, number: int) -> SyntheticWriter | FontWriter:
        seed = (self._seed, SPLITS[self._split], number)
        rng = np.random.default_rng((*seed, 2))
        if rng.random() < self._font_share:
            return FontWriter(seed, self._fonts[int(rng.integers(len(self._fonts)))])
        return SyntheticWriter(seed)

    def _unwritable(self, counts: Counter[str], unwritable: str, incomplete: str) -> dict[int, None]:
        """Refuse or leave out at once what a hand could not write later, characters and fonts."""
        needed = sorted(c for c in counts if not c.isspace())
        if self._font_share < 1:
            lacking = {c for c in needed if not can_write(c)}
        else:
            lacking = {c for c in needed if not any(covers(path, c) for path in self._fonts)}
        if lacking and unwritable == "error":
            remedy = "take it out of the text, or set data.reader.unwritable=skip"
            raise InputError(f"{self._origin}: no hand can write {name(min(lacking))}; {remedy}")
        self.skipped += [
            Skipped(f"synthetic/{self._split}/{name(c)}", "character that no hand can write", f"{counts[c]} times")
            for c in sorted(lacking)
        ]
        whole = []
        for path in self._fonts:
            if absent := next((c for c in needed if c not in lacking and not covers(path, c)), None):
                if incomplete == "error":
                    remedy = "take it out of the folder, or set data.reader.incomplete=skip"
                    raise InputError(f"{path}: this font has no {name(absent)}; {remedy}")
                self.skipped.append(Skipped(path.name, "font without a character", name(absent)))
            else:
                whole.append(path)
        if self._fonts and not whole:
            raise InputError(f"{self._fonts[0].parent}: none of its fonts has every character of {self._origin}")
        self._fonts = whole
        return dict.fromkeys(map(ord, lacking))

    def _line(self, index: int) -> tuple[list[str], frozenset[int]]:
        """The words of a line, and the numbers of those that are struck out."""
        rng = np.random.default_rng((self._seed, SPLITS[self._split], index, 0))
        words = self._source.draw(self._length, rng)
        if self._spelling is None and not self._rare_share and not self._struck:
            return words, frozenset()
        dice = rng.random((len(words), 3))
        for place, (invent, rare, _) in enumerate(dice.tolist()):
            word = words[place]
            if self._spelling is not None and invent < self._invented and word.isalpha():
                new = self._spelling.draw(rng) or word
                words[place] = word = capitalized(new, self._writable) if word[0].isupper() else new
            if self._rare and rare < self._rare_share:
                words[place] = _with_rare(word, self._rare[int(rng.integers(len(self._rare)))], rng)
        return words, frozenset(np.flatnonzero(dice[:, 2] < self._struck).tolist())


def _with_rare(word: str, character: str, rng: np.random.Generator) -> str:
    """A letter instead of one of the word's; a sign before or after it."""
    if character.isalpha():
        place = 0 if character.isupper() else int(rng.integers(len(word)))
        return word[:place] + character + word[place + 1 :]
    return word + character if rng.random() < 0.5 else character + word


def _reference(words: list[str], struck: frozenset[int]) -> str:
    return " ".join(f">{word}<" if number in struck else word for number, word in enumerate(words))


def find_fonts(folder: Path) -> list[Path]:
    """The font files below a folder.

    Raises:
        InputError: there is none.
    """
    fonts = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".ttf", ".otf", ".ttc"))
    if not fonts:
        raise InputError(f"{folder}: no .ttf, .otf or .ttc file below it; set data.reader.fonts to a folder of fonts")
    return fonts
