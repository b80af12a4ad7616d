"""Provide single-stroke glyphs: the Hershey fonts, and characters composed from their glyphs."""

import unicodedata
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from HersheyFonts import HersheyFonts
from jaxtyping import Float
from numpy import ndarray

# The single-stroke Hershey fonts. The baseline is at y = 9, capitals are 21 font units high, and y points down.
PRINTED = ("futural", "rowmans")
CURSIVE = ("scripts", "cursive")
BASELINE, X_TOP, CAP_TOP = 9.0, -5.0, -12.0

Strokes = list[list[tuple[float, float]]]

# Marks centred above or below a letter, in font units relative to its top, or to the baseline for marks below.
MARKS: dict[str, Strokes] = {
    "\u0300": [[(-3, -5), (1.5, -1.5)]],
    "\u0301": [[(3, -5), (-1.5, -1.5)]],
    "\u0302": [[(-3.5, -1.5), (0, -5), (3.5, -1.5)]],
    "\u0303": [[(-4, -2), (-1.5, -4), (1.5, -2), (4, -4)]],
    "\u0304": [[(-3.5, -3), (3.5, -3)]],
    "\u0306": [[(-3, -4.5), (-1.5, -2), (1.5, -2), (3, -4.5)]],
    "\u0307": [[(-0.3, -3.5), (0.3, -2.8)]],
    "\u0308": [[(-2.8, -3.5), (-2.3, -2.8)], [(2.3, -3.5), (2.8, -2.8)]],
    "\u030a": [[(0, -1), (-1.8, -2), (-1.8, -4), (0, -5), (1.8, -4), (1.8, -2), (0, -1)]],
    "\u030b": [[(0.5, -5), (-2, -1.5)], [(4, -5), (1.5, -1.5)]],
    "\u030c": [[(-3.5, -5), (0, -1.5), (3.5, -5)]],
    "\u0327": [[(0, 0), (0.5, 2), (2, 3), (1, 5), (-2, 5)]],
    "\u0328": [[(2, 0), (0, 2), (0, 4), (3, 5)]],
}
BELOW = ("\u0327", "\u0328")
BUILT = {"\u2019": "'", "\u2018": "'", "\u02bc": "'", "\u2010": "-", "\u2011": "-",
         "\u2014": "\u2013\u2013", "œ": "oe", "Œ": "OE", "æ": "ae", "Æ": "AE", "…": "...",
         "«": "<<", "»": ">>", "\u201c": '"', "\u201d": '"', "\u201e": ",,", "·": ".", "•": "."}  # fmt: skip
# A base letter and strokes across it, in font units relative to the centre of its bounding box.
CROSSED: dict[str, tuple[str, Strokes]] = {
    "ø": ("o", [[(5, -8), (-5, 8)]]),
    "Ø": ("O", [[(7, -12), (-7, 12)]]),
    "ł": ("l", [[(3, -3), (-3, 1)]]),
    "Ł": ("L", [[(0, -3), (-8, 2)]]),
    "đ": ("d", [[(0, -7), (8, -7)]]),
    "€": ("C", [[(-11, -2), (3, -2)], [(-11, 2), (2, 2)]]),
}
RAISED = {"²": "2", "³": "3", "¹": "1", "º": "o", "ª": "a"}
DRAWN: dict[str, tuple[Strokes, float]] = {  # strokes and advance width
    "°": ([[(5, -12), (3, -11), (2, -9), (3, -7), (5, -6), (7, -7), (8, -9), (7, -11), (5, -12)]], 10),
    "π": ([[(2, -4), (14, -5)], [(5, -4), (5, 4), (3, 9)], [(11, -5), (11, 6), (14, 9)]], 16),
    "¡": ([[(4, -5), (4, -4)], [(4, 0), (4, 15)]], 8),
    "¿": ([[(9, -5), (9, -4)], [(9, 0), (9, 4), (5, 7), (3, 11), (5, 15), (9, 15), (12, 12)]], 15),
    "×": ([[(3, -1), (13, 9)], [(13, -1), (3, 9)]], 16),
    "ß": (
        [[(4, 12), (4, -7), (6, -11), (10, -12), (13, -9), (12, -5), (8, -2), (12, 1), (13, 5), (11, 8), (7, 9)]],
        16,
    ),
}


class Glyph(NamedTuple):
    """A glyph as strokes in font units, with its left edge at x = 0."""

    strokes: list[Float[ndarray, "_ 2"]]
    advance: float
    marks: int = 0  # number of strokes that are dots and accents, which come last


@lru_cache(maxsize=8)
def _font(name: str) -> dict[str, Glyph]:
    fonts = HersheyFonts()
    fonts.load_default_font(name)
    glyphs = {}
    for code in range(33, 127):
        glyph = next(iter(fonts.glyphs_for_text(chr(code))))
        left = glyph.left_offset
        strokes = [np.array(stroke, dtype=np.float32) - (left, 0) for stroke in glyph.strokes if len(stroke) > 1]
        strokes = [smooth(stroke) for stroke in strokes]
        dots = [stroke for stroke in strokes if chr(code) in "ij" and stroke[:, 1].max() < X_TOP]
        body = [stroke for stroke in strokes if not any(stroke is dot for dot in dots)]
        glyphs[chr(code)] = Glyph([*body, *dots], float(glyph.char_width), len(dots))
    dash = glyphs["-"]  # as wide as a capital
    hyphen = Glyph([stroke * (0.5, 1) for stroke in dash.strokes], dash.advance * 0.6)
    return glyphs | {"\u2013": dash, "-": hyphen}


def smooth(stroke: Float[ndarray, "N 2"]) -> Float[ndarray, "M 2"]:
    """Round the corners of a stroke with Chaikin's algorithm (1974), keeping its ends; short strokes get two passes."""
    for _ in range(2 if len(stroke) < 5 else 1):
        ahead, behind = stroke[:-1] * 0.75 + stroke[1:] * 0.25, stroke[:-1] * 0.25 + stroke[1:] * 0.75
        stroke = np.concatenate([stroke[:1], np.stack([ahead, behind], 1).reshape(-1, 2), stroke[-1:]])
    return stroke


@lru_cache(maxsize=8)
def x_height(font: str) -> float:
    """Return the x-height of a font in font units."""
    points = np.concatenate(_font(font)["x"].strokes)
    return float(points[:, 1].max() - points[:, 1].min())


def can_write(character: str) -> bool:
    """Return whether every built-in font has a character or the glyphs to compose it from."""
    try:
        return all(glyph(font, character).strokes for font in PRINTED + CURSIVE)
    except ValueError:
        return False


@lru_cache(maxsize=4096)
def glyph(font: str, character: str) -> Glyph:
    """Return the glyph for a character in a font, composing accented letters and some symbols from other glyphs.

    Raises:
        ValueError: if the font cannot draw the character.
    """
    letters = _font(font)
    if character in letters:
        return letters[character]
    if character in BUILT:
        return _side_by_side([letters[part] for part in BUILT[character]])
    if character in RAISED:
        base = letters[RAISED[character]]
        return Glyph([(stroke - (0, CAP_TOP)) * 0.55 + (0, CAP_TOP) for stroke in base.strokes], base.advance * 0.6)
    if character in CROSSED:
        crossed, across = letters[CROSSED[character][0]], CROSSED[character][1]
        points = np.concatenate(crossed.strokes)
        middle = (points.min(0) + points.max(0)) / 2
        added = [smooth(np.array(stroke, dtype=np.float32)) + middle for stroke in across]
        return Glyph([*crossed.strokes, *added], crossed.advance, len(added))
    if character in DRAWN:
        strokes, advance = DRAWN[character]
        return Glyph([smooth(np.array(stroke, dtype=np.float32)) for stroke in strokes], advance)
    decomposed = unicodedata.normalize("NFD", character)
    letter, marks = decomposed[:1], decomposed[1:]
    if letter not in letters or not marks or any(mark not in MARKS for mark in marks):
        raise ValueError(f"font '{font}' has no glyph for '{character}' (U+{ord(character):04X})")
    written, advance, dots = letters[letter]
    body = written[: len(written) - dots] if not all(mark in BELOW for mark in marks) else written
    points = np.concatenate(body)
    middle, top = float(points[:, 0].min() + points[:, 0].max()) / 2, float(points[:, 1].min())
    accents: list[Float[ndarray, "_ 2"]] = []
    for mark in marks:
        height = BASELINE if mark in BELOW else top
        accents += [smooth(np.array(stroke, dtype=np.float32)) + (middle, height) for stroke in MARKS[mark]]
    return Glyph([*body, *accents], advance, len(accents) + dots - (len(written) - len(body)))


def _side_by_side(parts: list[Glyph]) -> Glyph:
    squeeze = 0.75 if len(parts) > 1 else 1.0
    strokes, x = [], 0.0
    for part in parts:
        strokes += [stroke + (x, 0) for stroke in part.strokes]
        x += part.advance * squeeze
    return Glyph(strokes, x)
