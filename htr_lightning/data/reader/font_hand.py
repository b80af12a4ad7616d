"""Hands made of a font file."""

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from htr_lightning.errors import InputError

SIZE = 96  # pixels at which letters are drawn before they are bent and scaled


@lru_cache(maxsize=64)
def _font(path: Path) -> ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype(str(path), SIZE)
    except OSError as error:
        raise InputError(f"{path}: not a font that can be used ({error}); take it out of the folder") from None


@lru_cache(maxsize=16384)
def covers(path: Path, character: str) -> bool:
    """Whether a font has a glyph of its own for a character; the one for missing characters does not count."""
    if character == " ":
        return True
    font = _font(path)
    drawn, missing = font.getmask(character), font.getmask("\U0010fffe")
    return drawn.getbbox() is not None and (drawn.size != missing.size or bytes(drawn) != bytes(missing))


class FontHand:
    """A writer whose letters come from a TTF or OTF file; habits bend the line, not the letter.

    Args:
        seed: of the writer.
        path: of the font file.
    """

    def __init__(self, seed: tuple[int, ...], path: Path) -> None:
        rng = np.random.default_rng(seed)
        self.path = path
        self.slant = rng.normal(0, 0.15)
        self.width = float(np.exp(rng.normal(0, 0.1)))
        self.wander = rng.uniform(0.005, 0.03)  # of the height
        self.jitter = rng.uniform(0, 0.03)
        self.word_space = rng.uniform(0.2, 0.45)
        self.weight = int(rng.integers(-1, 2))
        self.pencil = bool(rng.random() < 0.25)

    def mask(self, text: str, rng: np.random.Generator, height: int) -> tuple[UInt8[ndarray, "H W"], float]:
        """A line as ink coverage in [0, 255], filling most of `height` pixels, and the row of its baseline.

        Raises:
            ValueError: the font lacks a character.
        """
        if lacking := next((c for c in text if not covers(self.path, c)), None):
            raise ValueError(f"{self.path.name} has no '{lacking}' (U+{ord(lacking):04X})")
        font = _font(self.path)
        words = text.split(" ")
        lengths = [font.getlength(word) for word in words]
        gap = self.word_space * SIZE
        canvas = Image.new("L", (int(sum(lengths) + gap * len(words) + 2 * SIZE), 3 * SIZE), 0)
        draw, x, baseline = ImageDraw.Draw(canvas), float(SIZE), 1.8 * SIZE
        for word, length in zip(words, lengths, strict=True):
            draw.text((x, baseline + rng.normal(0, self.jitter) * SIZE), word, fill=255, font=font, anchor="ls")
            x += length + gap * float(np.exp(rng.normal(0, 0.15)))
        ink = np.array(canvas)
        if self.weight:
            ink = (cv2.dilate if self.weight > 0 else cv2.erode)(ink, np.ones((3, 3), np.uint8))
        rows, columns = np.indices(ink.shape, dtype=np.float32)
        wave = self.wander * SIZE * np.sin(columns / (SIZE * rng.uniform(1.5, 4)) + rng.uniform(0, 6.3))
        from_x = np.asarray(columns / self.width - self.slant * (baseline - rows), dtype=np.float32)
        from_y = np.asarray(rows + wave, dtype=np.float32)
        ink = cv2.remap(ink, from_x, from_y, cv2.INTER_LINEAR)
        used_rows, used_columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
        if not len(used_rows):
            return np.zeros((height, 2 * height), np.uint8), height * 0.7
        top, bottom, left, right = used_rows[0], used_rows[-1] + 1, used_columns[0], used_columns[-1] + 1
        margin = (rng.uniform(0.04, 0.14, 4) * (bottom - top)).astype(int) + 1
        ink = np.pad(ink[top:bottom, left:right], ((margin[0], margin[1]), (2 * margin[2], 2 * margin[3])))
        scale = height / ink.shape[0]
        size = (max(4, round(ink.shape[1] * scale)), height)
        return cv2.resize(ink, size, interpolation=cv2.INTER_AREA), (baseline - top + margin[0]) * scale
