"""Handwriting drawn on demand: endless lines by writers that do not exist."""

from collections.abc import Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path

import numpy as np

from htr_lightning.data.reader.font_hand import FontHand, covers
from htr_lightning.data.reader.hand import CURSIVE, PRINTED, Hand, glyph
from htr_lightning.data.reader.paper import write_on_paper
from htr_lightning.data.sample import Sample, Skipped
from htr_lightning.errors import InputError
from htr_lightning.text.codec import name

SPLITS = {"train": 0, "val": 1, "test": 2}
SIGNS = "0123456789,.;:!?-'\"()"


class Synthetic(Sequence[Sample]):
    """Lines of words in synthetic hands; validation and test are written by hands that training never saw.

    Line `index` depends on the seed, the split and the index alone, whichever worker or rank draws it.

    Args:
        split: train, val or test.
        lines: lines of each split.
        hands: writers of each split.
        fonts: a folder of your own TTF or OTF files; half of the hands then write with one of them.
        words: a word list, one a line: "package:english.txt", "package:french.txt", or a file.
        length: shortest and longest line in words.
        height: smallest and largest height of a line in pixels.
        seed: of hands, texts and everything drawn.
    """

    def __init__(
        self,
        split: str,
        lines: dict[str, int],
        hands: dict[str, int],
        fonts: str | None = None,
        words: str = "package:english.txt",
        length: Sequence[int] = (2, 6),
        height: Sequence[int] = (40, 64),
        seed: int = 0,
    ) -> None:
        if split not in SPLITS:
            raise InputError(f"'{split}' is no split of synthetic lines; use one of {', '.join(SPLITS)}")
        if hands[split] < 1:
            raise InputError(f"data.reader.hands: {hands[split]} hands for split '{split}'; it takes at least one")
        self._split, self._count, self._hands = split, lines[split], hands[split]
        self._words = read_words(words)
        self._fonts = [] if fonts is None else find_fonts(Path(fonts))
        self._check_characters()
        self._length, self._height, self._seed = tuple(length), tuple(height), seed
        self.skipped: list[Skipped] = []
        self._drawn: dict[int, Hand | FontHand] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        rng = np.random.default_rng((self._seed, SPLITS[self._split], index, 1))
        hand = self._hand(self._writer(index))
        text = self._text(index)
        low, high = self._height
        mask, baseline = hand.mask(text, rng, int(rng.integers(low, high + 1)))
        image = write_on_paper(mask, baseline, hand.pencil, rng)
        return Sample(self.ids[index], image, text, self.groups[index])

    @cached_property
    def ids(self) -> list[str]:
        return [f"synthetic/{self._split}/{index}" for index in range(self._count)]

    @cached_property
    def texts(self) -> list[str]:
        return [self._text(index) for index in range(self._count)]

    @cached_property
    def groups(self) -> list[str]:
        return [f"{self._split}-hand-{self._writer(index)}" for index in range(self._count)]

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        return [(64, 24 + 20 * len(text)) for text in self.texts]  # close enough to batch by

    def _writer(self, index: int) -> int:
        return (index * 7919 + index // self._hands) % self._hands

    def _hand(self, number: int) -> Hand | FontHand:
        if number not in self._drawn:
            self._drawn[number] = self._new_hand(number)
        return self._drawn[number]

    def _new_hand(self, number: int) -> Hand | FontHand:
        seed = (self._seed, SPLITS[self._split], number)
        if self._fonts and number % 2:
            return FontHand(seed, self._fonts[int(np.random.default_rng((*seed, 2)).integers(len(self._fonts)))])
        return Hand(seed)

    def _check_characters(self) -> None:
        """Refuse at once what a hand could not write later."""
        words = "".join(self._words)
        for character in sorted({*words, *words.upper(), *SIGNS}):
            try:
                for font in PRINTED + CURSIVE:
                    glyph(font, character)
            except ValueError as error:
                raise InputError(f"words: {error}; take it out of the word list") from None
            if lacking := next((path for path in self._fonts if not covers(path, character)), None):
                raise InputError(f"{lacking}: this font has no {name(character)}; take it out of the folder")

    def _text(self, index: int) -> str:
        """Words, with the capitals, punctuation and figures of ordinary prose."""
        rng = np.random.default_rng((self._seed, SPLITS[self._split], index, 0))
        count = int(rng.integers(self._length[0], self._length[1] + 1))
        chosen = [self._words[i] for i in (len(self._words) * rng.random(count) ** 1.5).astype(int)]
        dice = rng.random((count, 3))
        for place, (figure, mark, capital) in enumerate(dice.tolist()):
            if figure < 0.05:
                chosen[place] = str(rng.integers(10 ** rng.integers(1, 5)))
            if capital < (0.3 if place == 0 else 0.04):
                chosen[place] = chosen[place][0].upper() + chosen[place][1:]
            if mark < 0.16:
                sign = ",.,.,.;:!?-'\"()"[int(rng.integers(15))]
                chosen[place] = (
                    f"({chosen[place]})"
                    if sign in "()"
                    else f'"{chosen[place]}"'
                    if sign == '"'
                    else chosen[place] + sign
                )
        return " ".join(chosen)


def read_words(words: str) -> list[str]:
    """A word list, most frequent first.

    Raises:
        InputError: there is no such file, or it is empty.
    """
    kind, _, name = words.rpartition(":")
    try:
        source = resources.files("htr_lightning.data") / "words" / name if kind == "package" else Path(words)
        found = source.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        raise InputError(
            f"{words}: no such word list, or not UTF-8; set data.reader.words to a file of words"
        ) from None
    if not found:
        raise InputError(f"{words}: the word list is empty; give it words")
    return found


def find_fonts(folder: Path) -> list[Path]:
    """The TTF and OTF files below a folder.

    Raises:
        InputError: there is none.
    """
    fonts = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".ttf", ".otf"))
    if not fonts:
        raise InputError(f"{folder}: no .ttf or .otf file below it; set data.reader.fonts to a folder of fonts")
    return fonts
