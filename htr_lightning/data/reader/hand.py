"""Hands that write: single-stroke letters, warped by a writer's habits."""

import unicodedata
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from HersheyFonts import HersheyFonts
from jaxtyping import Float, UInt8
from numpy import ndarray

# Hershey's alphabets that are single strokes; units: baseline 9, x-height 14, capitals 21, y down.
PRINTED = ("futural", "rowmans")
CURSIVE = ("scripts", "cursive")
BASELINE, X_TOP, CAP_TOP = 9.0, -5.0, -12.0
SUPERSAMPLING = 2
SHIFT = 3  # fractional bits of drawn coordinates

# Marks above or below a letter, centred on it, in font units from its top (or the baseline, for the cedilla).
MARKS: dict[str, list[list[tuple[float, float]]]] = {
    "\u0300": [[(-3, -5), (1.5, -1.5)]],
    "\u0301": [[(3, -5), (-1.5, -1.5)]],
    "\u0302": [[(-3.5, -1.5), (0, -5), (3.5, -1.5)]],
    "\u0303": [[(-4, -2), (-1.5, -4), (1.5, -2), (4, -4)]],
    "\u0308": [[(-2.8, -3.5), (-2.3, -2.8)], [(2.3, -3.5), (2.8, -2.8)]],
    "\u0327": [[(0, 0), (0.5, 2), (2, 3), (1, 5), (-2, 5)]],
}
BUILT = {"\u2019": "'", "\u2018": "'",
         "\u2013": "-", "\u2014": "--", "œ": "oe", "Œ": "OE", "æ": "ae", "Æ": "AE", "…": "...",
         "«": "<<", "»": ">>", "\u201c": '"', "\u201d": '"'}  # fmt: skip


class Glyph(NamedTuple):
    """A letter as strokes in font units, its left edge at x = 0."""

    strokes: list[Float[ndarray, "N 2"]]
    advance: float


@lru_cache(maxsize=8)
def _font(name: str) -> dict[str, Glyph]:
    fonts = HersheyFonts()
    fonts.load_default_font(name)
    glyphs = {}
    for code in range(33, 127):
        glyph = next(iter(fonts.glyphs_for_text(chr(code))))
        left = glyph.left_offset
        strokes = [np.array(stroke, dtype=np.float32) - (left, 0) for stroke in glyph.strokes if len(stroke) > 1]
        glyphs[chr(code)] = Glyph([_smooth(stroke) for stroke in strokes], float(glyph.char_width))
    return glyphs


def _smooth(stroke: Float[ndarray, "N 2"]) -> Float[ndarray, "M 2"]:
    """Corners rounded by cutting them twice (Chaikin, 1974), ends kept."""
    for _ in range(2):
        ahead, behind = stroke[:-1] * 0.75 + stroke[1:] * 0.25, stroke[:-1] * 0.25 + stroke[1:] * 0.75
        stroke = np.concatenate([stroke[:1], np.stack([ahead, behind], 1).reshape(-1, 2), stroke[-1:]])
    return stroke


@lru_cache(maxsize=4096)
def glyph(font: str, character: str) -> Glyph:
    """A character of a font; letters with marks and a few signs are put together from others.

    Raises:
        ValueError: the font cannot write it.
    """
    letters = _font(font)
    if character in letters:
        return letters[character]
    if character in BUILT:
        parts = [letters[c] for c in BUILT[character]]
        squeeze = 0.75 if len(parts) > 1 else 1.0
        strokes, x = [], 0.0
        for part in parts:
            strokes += [stroke + (x, 0) for stroke in part.strokes]
            x += part.advance * squeeze
        return Glyph(strokes, x)
    decomposed = unicodedata.normalize("NFD", character)
    base, marks = decomposed[:1], decomposed[1:]
    if base not in letters or not marks or any(mark not in MARKS for mark in marks):
        raise ValueError(f"hand '{font}' cannot write '{character}' (U+{ord(character):04X})")
    strokes, advance = letters[base]
    if base in "ij":
        strokes = [stroke for stroke in strokes if stroke[:, 1].max() > X_TOP]  # the mark replaces the dot
    points = np.concatenate(strokes)
    middle, top = float(points[:, 0].min() + points[:, 0].max()) / 2, float(points[:, 1].min())
    added = []
    for mark in marks:
        height = BASELINE if mark == "\u0327" else top
        added += [_smooth(np.array(stroke, dtype=np.float32)) + (middle, height) for stroke in MARKS[mark]]
    return Glyph([*strokes, *added], advance)


class Hand:
    """A writer: a font and the habits that bend it. The same seed is the same writer.

    Args:
        seed: of the writer.
    """

    def __init__(self, seed: tuple[int, ...]) -> None:
        rng = np.random.default_rng(seed)
        self.seed = seed
        self.joined = rng.random() < 0.5
        family = CURSIVE if self.joined else PRINTED
        self.font = family[rng.integers(len(family))]
        self.other = (CURSIVE + PRINTED)[rng.integers(4)]  # a few letters come from another alphabet
        self.mix = rng.choice([0.0, 0.0, 0.12])
        self.slant = rng.normal(0.12, 0.18) if not self.joined else rng.normal(0.0, 0.16)  # cursive leans by itself
        self.width = float(np.exp(rng.normal(0.0, 0.12)))
        self.x_height = float(np.exp(rng.normal(-0.05, 0.1)))  # small letters beside the capitals
        self.spacing = rng.normal(0.0, 0.9) if not self.joined else rng.normal(-0.4, 0.3)  # units between letters
        self.word_space = rng.uniform(8, 16)
        self.bend = rng.uniform(0.4, 1.6)  # units by which a letter's own form departs from the font's
        self.jitter = rng.uniform(0.5, 1.6)  # how much two of the same letter differ
        self.wander = rng.uniform(0.3, 1.8)  # units of baseline wander
        self.drift = rng.normal(0.0, 0.008)
        self.tremor = rng.uniform(0.05, 0.3)
        self.pen = rng.uniform(1.1, 2.4)  # pixels at an x-height of about 18
        self.nib = rng.uniform(0, np.pi)
        self.contrast = rng.choice([0.0, 0.35, 0.8], p=[0.45, 0.35, 0.2])
        self.ligature = rng.uniform(0.5, 1.0) if self.joined else rng.choice([0.0, 0.25])
        self.pencil = rng.random() < 0.25
        self._letters: dict[str, Glyph] = {}

    def letter(self, character: str) -> Glyph:
        """A character in this writer's form."""
        if character not in self._letters:
            rng = np.random.default_rng((*self.seed, 1, ord(character)))
            source = glyph(self.other if rng.random() < self.mix else self.font, character)
            turn, shear = rng.normal(0, 0.03), rng.normal(0, 0.06)
            sx, sy = np.exp(rng.normal(0, 0.07)), np.exp(rng.normal(0, 0.05))
            if character.islower():
                sy, sx = sy * self.x_height, sx * self.x_height
            matrix = np.array([[sx, -turn], [turn, sy]], dtype=np.float32)
            waves = rng.normal(0, 1, (2, 3))
            phases = rng.uniform(0, 2 * np.pi, (2, 3))
            strokes = []
            for stroke in source.strokes:
                points = (stroke - (source.advance / 2, BASELINE)) @ matrix.T
                points[:, 0] -= shear * points[:, 1]
                angles = np.stack([points[:, 1] / 5, points[:, 0] / 5, points.sum(1) / 7], 1)
                for axis in range(2):
                    points[:, axis] += self.bend * 0.4 * (np.sin(angles + phases[axis]) @ waves[axis])
                strokes.append(points + (source.advance * sx / 2, BASELINE))
            self._letters[character] = Glyph(strokes, float(source.advance * sx))
        return self._letters[character]

    def strokes(self, text: str, rng: np.random.Generator) -> list[Float[ndarray, "N 2"]]:
        """A line of text as strokes in font units, the baseline at y = 0."""
        strokes: list[ndarray] = []
        x = 0.0
        pen: ndarray | None = None  # where the last letter ended, to join the next
        for character in text:
            if character == " ":
                x += self.word_space * self.width * float(np.exp(rng.normal(0, 0.15)))
                pen = None
                continue
            letter = self.letter(character)
            noise = rng.normal(0, 1, 6) * self.jitter
            sx, sy, turn = 1 + 0.05 * noise[0], 1 + 0.05 * noise[1], 0.03 * noise[2]
            matrix = np.array([[sx * self.width, turn], [-turn, sy]], dtype=np.float32)
            lift = 0.5 * noise[3]
            written = [(stroke - (0, BASELINE)) @ matrix + (x, lift) for stroke in letter.strokes]
            if written:
                first = written[0][0]
                low = pen is not None and -9 < pen[1] < 4 and -9 < first[1] < 4
                if pen is not None and low and 0.3 < first[0] - pen[0] < 9 and rng.random() < self.ligature:
                    sag = np.array([(pen[0] + first[0]) / 2, max(pen[1], first[1]) + 0.6])
                    strokes.append(_smooth(np.array([pen, sag, first], dtype=np.float32)))
                pen = written[-1][-1] if character.isalpha() else None
                strokes += written
            x += letter.advance * sx * self.width + self.spacing + 0.4 * noise[4]
        return self._bent(strokes, x, rng)

    def _bent(self, strokes: list[ndarray], length: float, rng: np.random.Generator) -> list[ndarray]:
        if not strokes:
            return []
        cuts = np.cumsum([len(stroke) for stroke in strokes])[:-1]
        points = np.concatenate(strokes).astype(np.float32)
        x = points[:, 0].copy()
        knots = np.arange(-20, length + 40, 2.5)
        tremor = rng.normal(0, self.tremor, (2, len(knots)))
        waves = rng.normal(0, self.wander, 2)
        phases = rng.uniform(0, 2 * np.pi, 2)
        points[:, 1] += waves[0] * np.sin(x / 60 + phases[0]) + waves[1] * 0.5 * np.sin(x / 23 + phases[1])
        points[:, 0] -= self.slant * points[:, 1]
        points[:, 0] += np.interp(x, knots, tremor[0])
        points[:, 1] += np.interp(x, knots, tremor[1]) + (self.drift + rng.normal(0, 0.003)) * x
        return np.split(points, cuts)

    def mask(self, text: str, rng: np.random.Generator, height: int) -> tuple[UInt8[ndarray, "H W"], float]:
        """A line as ink coverage in [0, 255], filling most of `height` pixels, and the row of its baseline.

        Raises:
            ValueError: the hand's font lacks a character.
        """
        strokes = self.strokes(text, rng)
        if not strokes:
            return np.zeros((height, 2 * height), np.uint8), height * 0.7
        points = np.concatenate(strokes)
        low, high = points.min(0), points.max(0)
        top, bottom = min(low[1], rng.uniform(-21, -15)), max(high[1], rng.uniform(1, 6))
        margin = rng.uniform(0.03, 0.12, 4) * height
        scale = (height - margin[0] - margin[1]) / (bottom - top)  # pixels a unit
        width = int((high[0] - low[0]) * scale + 4 * (margin[2] + margin[3])) + 4
        offset = np.array([2 * (margin[2] + margin[3]) - low[0] * scale, margin[0] - top * scale])
        mask = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING), dtype=np.uint8)
        pixels = [(stroke * scale + offset) * SUPERSAMPLING for stroke in strokes]
        thickness = max(1.0, self.pen * scale / 1.3 * SUPERSAMPLING * float(np.exp(rng.normal(0, 0.08))))
        _ink(mask, pixels, thickness, self)
        return cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA), float(offset[1])


def _ink(mask: UInt8[ndarray, "H W"], strokes: list[ndarray], thickness: float, hand: Hand) -> None:
    fixed = [np.round(stroke * (1 << SHIFT)).astype(np.int32) for stroke in strokes]
    if not hand.contrast:
        cv2.polylines(mask, fixed, False, 255, max(1, round(thickness)), cv2.LINE_AA, SHIFT)
        return
    segments = np.concatenate([np.stack([stroke[:-1], stroke[1:]], 1) for stroke in fixed])
    along = (segments[:, 1] - segments[:, 0]).astype(np.float32)
    angle = np.arctan2(along[:, 1], along[:, 0])
    widths = np.round(thickness * (1 - hand.contrast * 0.5 + hand.contrast * np.abs(np.sin(angle - hand.nib))))
    for width in np.unique(widths.clip(1)):
        chosen = segments[widths.clip(1) == width]
        cv2.polylines(mask, list(chosen), False, 255, int(width), cv2.LINE_AA, SHIFT)
