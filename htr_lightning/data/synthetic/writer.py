"""Draw the handwriting of synthetic writers, each with their own letter shapes and joins."""

from collections.abc import Collection
from itertools import accumulate
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float64, UInt8
from numpy import ndarray

from htr_lightning.data.synthetic.glyphs import BASELINE, CAP_TOP, CURSIVE, PRINTED, Glyph, glyph, smooth, x_height

SUPERSAMPLING = 2
SHIFT = 3  # number of fractional bits in drawing coordinates
CAPITAL = BASELINE - CAP_TOP  # height of capitals in font units

_T = np.linspace(0, 1, 8, dtype=np.float32)
HERMITE = np.stack([2 * _T**3 - 3 * _T**2 + 1, _T**3 - 2 * _T**2 + _T, _T**3 - _T**2, 3 * _T**2 - 2 * _T**3], 1)


class Form(NamedTuple):
    """A letter shape: concatenated strokes with the baseline at y = 0 and the left edge at x = 0."""

    points: Float[ndarray, "N 2"]
    lengths: list[int]  # number of points in each stroke
    advance: float
    entry: int = -1  # index of the point where a join from the previous letter ends; -1 for no join
    exit: int = -1  # index of the point where a join to the next letter starts; -1 for no join


class Letter(NamedTuple):
    """The one or two forms of a letter that a writer uses."""

    forms: list[Form]
    fraction: float  # probability of the first form if there are two
    last: bool  # whether the second form is used at the end of each word, and only there, rather than at random


class Written(NamedTuple):
    """A line of text as strokes."""

    points: Float[ndarray, "N 2"]  # concatenated strokes
    lengths: list[int]  # number of points in each stroke
    letters: list[slice]  # points of each character, without joins; empty for a space


class Placed(NamedTuple):
    """Where the strokes of a line lie in its image."""

    written: Written  # in pixels
    size: tuple[int, int]  # height and width in pixels
    scale: float  # pixels per font unit
    baseline: float  # row
    pen: float  # width in pixels


class SyntheticWriter:
    """A synthetic writer, defined by the fonts it starts from and a random style that distorts them.

    Args:
        seed: random seed, which determines the writer.
    """

    def __init__(self, seed: tuple[int, ...]) -> None:
        rng = np.random.default_rng(seed)
        self.seed = seed
        style = rng.choice(3, p=[0.45, 0.35, 0.2])  # printed, mixed, cursive
        self.joined = bool(style)
        family, other = (PRINTED, CURSIVE) if style == 0 or (style == 1 and rng.random() < 0.6) else (CURSIVE, PRINTED)
        self.font = family[rng.integers(2)]
        self.other = other[rng.integers(2)]
        self.mix = (rng.choice([0.0, 0.15]), rng.uniform(0.2, 0.6), rng.choice([0.0, 0.2]))[style]
        self.capitals = PRINTED[rng.integers(2)] if rng.random() < (0.9, 0.8, 0.4)[style] else CURSIVE[rng.integers(2)]
        self.variety = rng.uniform(0.0, 0.5)  # fraction of letters that have two forms
        self.ligature = (rng.choice([0.0, 0.25, 0.6]), rng.uniform(0.4, 0.95), rng.uniform(0.85, 1.0))[style]
        # cursive fonts are already slanted
        self.slant = rng.normal(0.1, 0.2) if self.font in PRINTED else rng.normal(-0.05, 0.18)
        self.width = float(np.exp(rng.normal(0.08, 0.2)))
        self.x_height = CAPITAL * rng.uniform(0.4, 0.65) / x_height(self.font)  # scale of lowercase letters
        self.ascender, self.descender = rng.uniform(0.8, 1.3), rng.uniform(0.6, 1.3)
        self.spacing = rng.normal(0.0, 0.9) if not self.joined else rng.normal(-0.4, 0.4)  # font units between letters
        self.word_space = rng.uniform(7, 22)
        self.bend = rng.uniform(0.4, 1.6)  # deviation of letter shapes from the font, in font units
        self.jitter = rng.uniform(0.5, 1.8)  # variation between instances of a letter
        self.taper = rng.choice([0.0, rng.uniform(0.05, 0.3)])  # shrinkage of letters towards the end of a word
        self.bounce = rng.uniform(0.1, 0.9)  # vertical deviation of words from the baseline, in font units
        self.wander = rng.uniform(0.3, 2.0)  # amplitude of the waves in the baseline, in font units
        self.drift = rng.normal(0.0, 0.008)
        self.tremor = rng.uniform(0.05, 0.3)
        self.pen = float(np.exp(rng.uniform(-0.4, 0.65)))  # pen width in pixels at an x-height of about 18 pixels
        self.nib = rng.uniform(0, np.pi)
        self.contrast = rng.choice([0.0, 0.35, 0.8], p=[0.6, 0.3, 0.1])
        self.pencil = rng.random() < 0.2
        self.dot = rng.normal(0, 1, 2) * (1.2, 1.0) + (0.8, -0.8)  # displacement of dots and accents
        self.dash = rng.random() < 0.3  # whether dots are drawn as dashes
        self.bar = float(np.exp(rng.normal(0.1, 0.3)))  # relative length of the bars of t and f
        # fraction by which closed strokes are shortened, which leaves them open
        self.open = rng.uniform(0.05, 0.18) if rng.random() < 0.3 else 0.0
        self._letters: dict[str, Letter] = {}

    def letter(self, character: str) -> Letter:
        """Return the forms of a character that this writer uses."""
        if character not in self._letters:
            rng = np.random.default_rng((*self.seed, 1, ord(character)))
            count = 1 + int(rng.random() < self.variety)
            forms = [self._form(character, self._source(character, number, rng), rng) for number in range(count)]
            self._letters[character] = Letter(forms, rng.uniform(0.2, 0.8), bool(rng.random() < 0.3))
        return self._letters[character]

    def _source(self, character: str, number: int, rng: np.random.Generator) -> str:
        if not character.islower():
            return self.capitals if number == 0 else (CURSIVE + PRINTED)[rng.integers(4)]
        if number == 0:
            return self.other if rng.random() < self.mix else self.font
        return (self.font, self.other, *PRINTED)[rng.integers(4)]

    def _form(self, character: str, font: str, rng: np.random.Generator) -> Form:
        source = glyph(font, character)
        strokes = _habits(character, source, self, rng)
        turn, shear = rng.normal(0, 0.03), rng.normal(0, 0.07)
        sx, sy = np.exp(rng.normal(0, 0.08)), np.exp(rng.normal(0, 0.05))
        if character.islower():  # match the x-height of letters from different fonts
            size = self.x_height * x_height(self.font) / x_height(font)
            sx, sy = sx * size, sy * size
        points = np.concatenate(strokes) - np.array((source.advance / 2, BASELINE), np.float32)
        points = points @ np.array([[sx, turn], [-turn, sy]], dtype=np.float32)
        points[:, 0] -= shear * points[:, 1]
        waves, phases = rng.normal(0, 1, (2, 3)), rng.uniform(0, 2 * np.pi, (2, 3))
        angles = np.stack([points[:, 1] / 5, points[:, 0] / 5, points.sum(1) / 7], 1)
        for axis in range(2):
            points[:, axis] += self.bend * 0.4 * (np.sin(angles + phases[axis]) @ waves[axis])
        small = self.x_height * x_height(self.font)
        if character.islower():
            above, below = points[:, 1] < -small, points[:, 1] > 0
            points[above, 1] = -small + (points[above, 1] + small) * self.ascender
            points[below, 1] *= self.descender
        points[:, 0] += source.advance * sx / 2
        entry, exit_ = _ends(strokes[: len(strokes) - source.marks]) if character.islower() else (-1, -1)
        form = Form(points.astype(np.float32), [len(stroke) for stroke in strokes], float(source.advance * sx))
        return form._replace(entry=entry, exit=exit_)

    def strokes(
        self, text: str, rng: np.random.Generator, crossed_out: Collection[int] = ()
    ) -> list[Float[ndarray, "_ 2"]]:
        """Return a line of text as strokes in font units, with the baseline at y = 0.

        Args:
            text: words separated by single spaces.
            rng: random generator.
            crossed_out: indices of crossed-out words.
        """
        written = self._written(text, rng, crossed_out)
        return _split(written.points, written.lengths)

    def _written(self, text: str, rng: np.random.Generator, crossed_out: Collection[int]) -> Written:
        pieces: list[ndarray] = []
        lengths: list[int] = []
        letters: list[int | None] = []  # index of the piece
        x = 0.0
        for number, word in enumerate(text.split(" ")):
            letters += [None] * (number > 0)
            start, lift, tilt = x, self.bounce * rng.normal(), 0.012 * rng.normal()
            noise = rng.normal(0, 1, (len(word), 5)) * self.jitter
            chances = rng.random((len(word), 2))
            pen: tuple[ndarray, ndarray] | None = None  # end point and direction of the previous letter
            for index, character in enumerate(word):
                forms, fraction, last = self.letter(character)
                second = len(forms) > 1 and (index == len(word) - 1 if last else chances[index, 0] > fraction)
                form = forms[1 if second else 0]
                size = 1 - self.taper * index / max(6, len(word))
                a, b, c, d, e = noise[index].tolist()
                sx, sy, turn = (1 + 0.05 * a) * size * self.width, (1 + 0.05 * b) * size, 0.03 * c
                points = form.points @ np.array([[sx, turn], [-turn, sy]], dtype=np.float32)
                points += np.array((x, lift + 0.5 * d + tilt * (x - start)), np.float32)
                if pen is not None and form.entry >= 0 and chances[index, 1] < self.ligature:
                    join = _join(*pen, points[form.entry], points[form.entry + 1] - points[form.entry])
                    if join is not None:
                        pieces.append(join)
                        lengths.append(len(join))
                pen = None
                if form.exit > 0:
                    pen = points[form.exit], points[form.exit] - points[form.exit - 1]
                letters.append(len(pieces))
                pieces.append(points)
                lengths += form.lengths
                x += form.advance * sx + self.spacing + 0.4 * e
            if number in crossed_out and word:
                for line in _scribble(start, x, lift - 0.3 * CAPITAL, rng):
                    pieces.append(line)
                    lengths.append(len(line))
            x += self.word_space * self.width * float(np.exp(rng.normal(0, 0.2)))
        points = np.concatenate(pieces) if pieces else np.zeros((0, 2), np.float32)
        ends = [0, *accumulate(map(len, pieces))]
        slices = [slice(0, 0) if index is None else slice(ends[index], ends[index + 1]) for index in letters]
        return Written(self._distorted(points.astype(np.float32), x, rng), lengths, slices)

    def _distorted(
        self, points: Float[ndarray, "N 2"], length: float, rng: np.random.Generator
    ) -> Float[ndarray, "N 2"]:
        """Slant the strokes, bend their baseline and add pen tremor."""
        x = points[:, 0].copy()
        knots = np.arange(-20, length + 40, 2.5)
        tremor = rng.normal(0, self.tremor, (2, len(knots)))
        waves = rng.normal(0, self.wander, 2)
        phases = rng.uniform(0, 2 * np.pi, 2)
        points[:, 1] += waves[0] * np.sin(x / 60 + phases[0]) + waves[1] * 0.5 * np.sin(x / 23 + phases[1])
        points[:, 0] -= self.slant * points[:, 1]
        points[:, 0] += np.interp(x, knots, tremor[0])
        points[:, 1] += np.interp(x, knots, tremor[1]) + (self.drift + rng.normal(0, 0.003)) * x
        return points

    def mask(
        self, text: str, rng: np.random.Generator, height: int, crossed_out: Collection[int] = ()
    ) -> tuple[UInt8[ndarray, "H W"], float]:
        """Draw a line in an image `height` pixels high; return its ink coverage (0 to 255) and its baseline row.

        Raises:
            ValueError: if the writer cannot draw a character.
        """
        placed = self._placed(text, rng, height, crossed_out)
        if placed is None:
            return np.zeros((height, 2 * height), np.uint8), height * 0.7
        mask = np.zeros((placed.size[0] * SUPERSAMPLING, placed.size[1] * SUPERSAMPLING), dtype=np.uint8)
        pixels = np.round(placed.written.points * (SUPERSAMPLING << SHIFT)).astype(np.int32)
        _ink(mask, _split(pixels, placed.written.lengths), placed.pen * SUPERSAMPLING, self)
        return cv2.resize(mask, placed.size[::-1], interpolation=cv2.INTER_AREA), placed.baseline

    def letter_boxes(
        self, text: str, rng: np.random.Generator, height: int, crossed_out: Collection[int] = ()
    ) -> Float64[ndarray, "N 4"]:
        """Return the box (left, top, right, bottom) of each character in the image that `mask` draws, in pixels.

        Boxes contain the ink of a letter and its marks, but not the joins to its neighbours. That of a space is NaN.
        The generator must be in the same state as for `mask`.
        """
        placed = self._placed(text, rng, height, crossed_out)
        boxes = np.full((len(text), 4), np.nan)
        if placed is not None:
            for box, letter in zip(boxes, placed.written.letters, strict=True):
                if len(points := placed.written.points[letter]):
                    box[:2], box[2:] = points.min(0) - placed.pen / 2, points.max(0) + placed.pen / 2
        return boxes

    def _placed(self, text: str, rng: np.random.Generator, height: int, crossed_out: Collection[int]) -> Placed | None:
        """Return the strokes of a line in an image of the given height, or None if there are none."""
        written = self._written(text, rng, crossed_out)
        if not len(written.points):
            return None
        low, high = written.points.min(0), written.points.max(0)
        top, bottom = min(low[1], rng.uniform(-28, -18)), max(high[1], rng.uniform(3, 12))
        margin = rng.uniform(0.02, 0.1, 4) * height
        scale = (height - margin[0] - margin[1]) / (bottom - top)  # pixels per font unit
        width = int((high[0] - low[0]) * scale + 2 * (margin[2] + margin[3])) + 4
        offset = np.array([2 * margin[2] + 2 - low[0] * scale, margin[0] - top * scale])
        pen = max(0.8, self.pen * scale / 1.3 * float(np.exp(rng.normal(0, 0.08))))
        placed = written._replace(points=written.points * scale + offset)
        return Placed(placed, (height, width), float(scale), float(offset[1]), float(pen))


def _split(points: ndarray, lengths: list[int]) -> list[ndarray]:
    """Split concatenated points into strokes of the given lengths."""
    ends = list(accumulate(lengths))
    return [points[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def _habits(
    character: str, source: Glyph, writer: SyntheticWriter, rng: np.random.Generator
) -> list[Float[ndarray, "_ 2"]]:
    """Return the strokes of a glyph with bars, dots, accents and closed curves in the writer's style."""
    body = len(source.strokes) - source.marks
    strokes = []
    for number, stroke in enumerate(source.strokes):
        size = stroke.max(0) - stroke.min(0)
        middle = (stroke.max(0) + stroke.min(0)) / 2
        if number >= body:
            shift = writer.dot + rng.normal(0, 0.4, 2)
            if size.max() < 2.5 and writer.dash:
                stroke = middle + smooth(np.array([(-1.3, 0.5), (1.4, -0.5)], dtype=np.float32))
            elif size.max() >= 2.5:
                stroke = middle + (stroke - middle) * np.exp(rng.normal(0, 0.15, 2))
            stroke = stroke + shift * (1, min(1.0, 6 / max(1.0, float(BASELINE - middle[1]))))
        elif character in "tf" and size[0] > 2 * size[1]:
            stroke = middle + (stroke - middle) * (writer.bar * np.exp(rng.normal(0, 0.1)), 1)
            stroke = stroke + rng.normal(0, 0.7, 2)
        elif writer.open and size.min() > 5 and np.hypot(*(stroke[0] - stroke[-1])) < 1.5:
            stroke = stroke[: max(4, int(len(stroke) * (1 - writer.open)))]
        strokes.append(stroke.astype(np.float32))
    if character in "7zZ" and writer.bar > 1.2:
        middle = np.concatenate(strokes).mean(0)
        strokes.append(smooth(np.array([middle + (-4, 1), middle + (4, 0)], dtype=np.float32)))
    return strokes


def _ends(strokes: list[Float[ndarray, "_ 2"]]) -> tuple[int, int]:
    """Return the indices of two points: the start of the leftmost stroke, where a join may end, and the end of the
    rightmost stroke, where a join may start."""
    if not strokes:
        return -1, -1
    starts = np.cumsum([0, *(len(stroke) for stroke in strokes)])
    first = min(range(len(strokes)), key=lambda i: float(strokes[i][0, 0]))
    bars = [np.ptp(stroke[:, 0]) > 3 * np.ptp(stroke[:, 1]) for stroke in strokes]
    last = max(range(len(strokes)), key=lambda i: (not bars[i], float(strokes[i][-1, 0] + 0.3 * strokes[i][-1, 1])))
    return int(starts[first]), int(starts[last + 1] - 1)


def _join(
    start: Float[ndarray, "2"], leaving: Float[ndarray, "2"], end: Float[ndarray, "2"], arriving: Float[ndarray, "2"]
) -> Float[ndarray, "8 2"] | None:
    """Return a cubic Hermite curve that joins two letters, or None if the pen is lifted between them."""
    (dx, dy), (lx, ly), (ax, ay) = (end - start).tolist(), leaving.tolist(), arriving.tolist()
    if not -2.5 < dx < 11 or abs(dy) > 16 or start[1] > 4 or dx * dx + dy * dy < 0.5:
        return None
    if lx < 0:
        lx, ly = 0.9, 0.4  # round letters end leftwards, so the pen has to turn
    if ax <= 0:
        ax, ay = 1.0, -0.3  # arrive from the left and turn within the letter
    distance = (dx * dx + dy * dy) ** 0.5
    leave, arrive = distance / (lx * lx + ly * ly + 1e-9) ** 0.5, distance / (ax * ax + ay * ay + 1e-9) ** 0.5
    knots = np.array([start, (lx * leave, ly * leave), (ax * arrive, ay * arrive), end], dtype=np.float32)
    return HERMITE @ knots


def _scribble(left: float, right: float, middle: float, rng: np.random.Generator) -> list[Float[ndarray, "_ 2"]]:
    """Return one to three lines through a word, or a zigzag across it."""
    if rng.random() < 0.3:
        x = np.arange(left, right, rng.uniform(2, 4))
        y = middle + np.where(np.arange(len(x)) % 2, 1, -1) * rng.uniform(3, 6, len(x))
        return [smooth(np.stack([x, y], 1).astype(np.float32))] if len(x) > 2 else []
    lines = []
    for _ in range(int(rng.integers(1, 4))):
        x = np.linspace(left - rng.uniform(-2, 3), right + rng.uniform(-2, 3), 6)
        y = middle + rng.normal(0, 3) + np.cumsum(rng.normal(0, 0.7, 6))
        lines.append(smooth(np.stack([x, y], 1).astype(np.float32)))
    return lines


def _ink(mask: UInt8[ndarray, "H W"], fixed: list[ndarray], thickness: float, writer: SyntheticWriter) -> None:
    if not writer.contrast:
        cv2.polylines(mask, fixed, False, 255, max(1, round(thickness)), cv2.LINE_AA, SHIFT)
        return
    segments = np.concatenate([np.stack([stroke[:-1], stroke[1:]], 1) for stroke in fixed])
    along = segments[:, 1] - segments[:, 0]
    across = np.abs(np.sin(np.arctan2(along[:, 1], along[:, 0]) - writer.nib))
    level = np.minimum((across * 3).astype(int), 2)  # the nib has three line widths
    for number in range(3):
        width = max(1, round(thickness * (1 + writer.contrast * (number - 1) / 2)))
        cv2.polylines(mask, list(segments[level == number]), False, 255, width, cv2.LINE_AA, SHIFT)
