"""Draw lines of text with the glyphs of a font file."""

from collections.abc import Collection, Sequence
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from htr_lightning.errors import InputError
from htr_lightning.text.codec import name

SIZE = 56  # font size in pixels at which glyphs are drawn before they are distorted and scaled
CELL = 20  # size in pixels of the parts of a letter that are shifted independently of each other
IDEOGRAPHS = "\u2e80"  # characters from this code point on are drawn one by one, each with its own variation


@lru_cache(maxsize=256)
def open_font(path: Path, size: int = SIZE) -> ImageFont.FreeTypeFont:
    """Load a font; raise InputError if it cannot be read."""
    try:
        return ImageFont.truetype(str(path), size)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot read the font ({error}); remove it from the folder") from None


@cache
def covers(path: Path, character: str) -> bool:
    """Return whether a font has a glyph for a character, other than its placeholder for missing characters."""
    if character == " ":
        return True
    font = open_font(path)
    try:
        drawn, (size, pixels) = font.getmask(character), _missing(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot draw {name(character)} ({error}); remove the font from the folder") from None
    return drawn.getbbox() is not None and (drawn.size != size or bytes(drawn) != pixels)


@cache
def _missing(path: Path) -> tuple[tuple[int, int], bytes]:
    """Return the size and the pixels of a font's placeholder for missing characters."""
    mask = open_font(path).getmask("\U0010fffe")
    return mask.size, bytes(mask)


class FontWriter:
    """A synthetic writer that uses the glyphs of font files; its style applies to a line as a whole.

    A line is drawn with the first font that has all of its characters. If there is no such font, each character is
    drawn with the first font that has it.

    Args:
        seed: random seed of the writer.
        fonts: paths to the font files, in order of preference.
    """

    def __init__(self, seed: tuple[int, ...], fonts: Sequence[Path]) -> None:
        rng = np.random.default_rng(seed)
        self.fonts = list(fonts)
        self.slant = rng.normal(0, 0.15)
        self.width = float(np.exp(rng.normal(0, 0.1)))
        self.wander = rng.uniform(0.005, 0.04)  # amplitude of the waves in the baseline, as a fraction of the font size
        self.jitter = rng.uniform(0, 0.04)
        self.word_space = rng.uniform(0.2, 0.45)
        self.shake = rng.uniform(0.3, 1.6)  # irregularity of the letters, so that no two are the same, in pixels
        self.weight = rng.uniform(-0.3, 1.0)  # blending weight of thicker strokes, or of thinner strokes if negative
        self.pencil = bool(rng.random() < 0.25)

    def mask(
        self, text: str, rng: np.random.Generator, height: int, crossed_out: Collection[int] = ()
    ) -> tuple[UInt8[ndarray, "H W"], float]:
        """Draw a line in an image `height` pixels high; return its ink coverage (0 to 255) and its baseline row.

        Raises:
            ValueError: if the text contains a character that none of the fonts has.
        """
        ink, baseline = self._drawn(text, rng, crossed_out)
        changed = (cv2.dilate if self.weight > 0 else cv2.erode)(ink, np.ones((3, 3), np.uint8))
        ink = cv2.addWeighted(ink, 1 - abs(self.weight), changed, abs(self.weight), 0)
        ink = self._distorted(ink, baseline, rng)
        used_rows, used_columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
        if not len(used_rows):
            return np.zeros((height, 2 * height), np.uint8), height * 0.7
        top, bottom, left, right = used_rows[0], used_rows[-1] + 1, used_columns[0], used_columns[-1] + 1
        margin = (rng.uniform(0.03, 0.14, 4) * (bottom - top)).astype(int) + 1
        ink = np.pad(ink[top:bottom, left:right], ((margin[0], margin[1]), (2 * margin[2], 2 * margin[3])))
        scale = height / ink.shape[0]
        size = (max(4, round(ink.shape[1] * scale)), height)
        shrinks = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        return cv2.resize(ink, size, interpolation=shrinks), float((baseline - top + margin[0]) * scale)

    def letter_boxes(self, *_: object) -> None:
        """Return None: where letters lie is not known, since the library that draws fonts shapes runs of them."""

    def _drawn(
        self, text: str, rng: np.random.Generator, crossed_out: Collection[int]
    ) -> tuple[UInt8[ndarray, "H W"], float]:
        """Draw the words side by side with a margin of one em on either side; return the image and the baseline row."""
        whole = next(([path] for path in self.fonts if all(covers(path, c) for c in text)), self.fonts)
        pieces: list[tuple[float, str, ImageFont.FreeTypeFont]] = []
        lines: list[tuple[float, float]] = []
        x = float(SIZE)
        for number, word in enumerate(text.split(" ")):
            start = x
            for piece, path in _pieces(word, whole):
                font = open_font(path, SIZE + int(rng.integers(-4, 5)) if piece[:1] >= IDEOGRAPHS else SIZE)
                pieces.append((x, piece, font))
                x += font.getlength(piece) * (1 + self.jitter * rng.normal())
            if number in crossed_out:
                lines.append((start, x))
            x += self.word_space * SIZE * float(np.exp(rng.normal(0, 0.15)))
        canvas = Image.new("L", (int(x + SIZE), 3 * SIZE), 0)
        draw, baseline = ImageDraw.Draw(canvas), 1.8 * SIZE
        for left, piece, font in pieces:
            draw.text((left, baseline + rng.normal(0, self.jitter) * SIZE), piece, fill=255, font=font, anchor="ls")
        for start, end in lines:
            for _ in range(int(rng.integers(1, 4))):
                y, slope = baseline - SIZE * rng.uniform(0.15, 0.4), SIZE * rng.normal(0, 0.08)
                draw.line((start, y - slope, end, y + slope), fill=255, width=int(rng.integers(2, 5)))
        return np.array(canvas), baseline

    def _distorted(
        self, ink: UInt8[ndarray, "H W"], baseline: float, rng: np.random.Generator
    ) -> UInt8[ndarray, "H w"]:
        """Stretch and slant the line, bend its baseline up and down, and make its letters irregular."""
        height, width = ink.shape
        lean = abs(self.slant) * height
        columns = np.arange(int(width * self.width + 2 * lean), dtype=np.float32) - np.float32(lean)
        rows = np.arange(height, dtype=np.float32)[:, None]
        wave = self.wander * SIZE * np.sin(columns / (SIZE * rng.uniform(1.5, 4)) + rng.uniform(0, 6.3))
        from_x = (columns - np.float32(self.slant) * (np.float32(baseline) - rows)) / np.float32(self.width)
        from_y = (rows + wave).astype(np.float32)
        cells = (2, height // CELL + 2, len(columns) // CELL + 2)
        shakes = [
            cv2.resize(cell, (len(columns), height), interpolation=cv2.INTER_CUBIC)
            for cell in rng.normal(0, self.shake, cells).astype(np.float32)
        ]
        return cv2.remap(ink, from_x + shakes[0], from_y + shakes[1], cv2.INTER_LINEAR)


def _pieces(word: str, fonts: Sequence[Path]) -> list[tuple[str, Path]]:
    """Split a word into single ideographs and runs of other characters, and choose a font for each piece."""
    pieces: list[tuple[str, Path]] = []
    for character in word:
        path = next((path for path in fonts if covers(path, character)), None)
        if path is None:
            raise ValueError(f"none of {', '.join(font.name for font in fonts)} has {name(character)}")
        if pieces and path == pieces[-1][1] and character < IDEOGRAPHS and pieces[-1][0][-1] < IDEOGRAPHS:
            pieces[-1] = pieces[-1][0] + character, path
        else:
            pieces.append((character, path))
    return pieces
