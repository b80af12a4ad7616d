"""Measure the slope, slant, x-height and stroke spacing of a line of handwriting so that they can be normalised.

Writers differ more in slant, size and width than in the shapes of their letters, and a network need not learn
variation that has been removed (Marti and Bunke, 2001, "Using a statistical language model to improve the performance
of an HMM-based cursive handwriting recognition system", section 3; Vinciarelli and Luettin, 2001, "A new normalization
technique for cursive handwritten words").

A measurement on a few strokes is unreliable, so each comes with a confidence, by which its correction is weakened.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

ROWS = 48  # height in pixels to which a line is scaled before it is measured
INK = 0.4  # ink level above which a pixel belongs to a stroke
SLANTS = np.arange(-0.6, 0.95, 0.1)  # columns per row; from 31 degrees to the left to 42 degrees to the right
SLOPES = np.arange(-0.2, 0.21, 0.02)  # rows per column; up to 11 degrees
MIN_GAIN = 1.05  # by how much sharper rows must become for a slope to be removed
MIN_RULE = 60  # minimum length in columns of a ruled line; horizontal runs in letters are shorter
MIN_STROKES = 4  # minimum number of strokes that a row must cross for their spacing to be measured
MARGIN = 7  # rows kept above and below the writing when blank rows are removed
TYPICAL_X_HEIGHT = 0.245  # median of 8,000 lines in five sets, as a fraction of the height of the line


class WritingStyle(NamedTuple):
    """The style of a line of handwriting. The x-height band extends from the baseline to the top of the letter x."""

    slope: float  # rows per column; positive if the line falls to the right
    slant: float  # columns per row; positive if strokes lean to the right
    top: float  # top of the x-height band at half of the image width, as a fraction of the image height
    bottom: float  # baseline at half of the image width, as a fraction of the image height
    stroke_spacing: float | None  # columns between strokes divided by the x-height; None if there are too few strokes
    confidence: float  # from 0 for no strokes to 1 for about 150 strokes along the line


def measure(ink: Float32[ndarray, "H W"]) -> WritingStyle:
    """Measure the style of a line, given its ink in [0, 1].

    The x-height is a weighted geometric mean of the measured one and the typical one. The weights were fitted to lines
    of four manuscripts and one set of letters so that each line agrees with the others on its page.
    """
    height, columns = ink.shape
    if height > 2 * ROWS:
        ink = cv2.resize(ink, (max(1, round(columns * 2 * ROWS / height)), 2 * ROWS), interpolation=cv2.INTER_AREA)
    strokes = find_strokes(ink)
    if slope := estimate_slope(strokes):
        ink = skew(ink, slope)
        strokes = find_strokes(ink)
    first, last = _written_rows(strokes, len(ink))
    if last - first < 0.8 * len(ink):  # measure the writing at full resolution, without the blank rows around it
        strokes = find_strokes(ink[first:last])
    else:
        first, last = 0, len(ink)
    slant = estimate_slant(strokes)
    upright = shear(strokes, slant)
    starts = _starts(upright)
    top, bottom = x_height_band(stroke_profile(starts))
    used = np.flatnonzero(upright[top:bottom].any(0))
    crossed = float(np.percentile(starts.sum(1)[top:bottom], 75))
    confidence = min(1.0, 0.2 * float(np.log1p(crossed)))
    rows = (last - first) / ROWS / len(ink)  # of the image, as fractions of its height, in each row of `strokes`
    typical = TYPICAL_X_HEIGHT * ((last - first) / len(ink) if slope else 1)
    x_height = typical * ((bottom - top) * rows / typical) ** confidence
    spacing = (used[-1] - used[0] + 1) * rows / crossed / x_height if crossed >= MIN_STROKES else None
    middle = min(max(first / len(ink) + (top + bottom) / 2 * rows, x_height / 2), 1 - x_height / 2)
    return WritingStyle(slope, slant, middle - x_height / 2, middle + x_height / 2, spacing, confidence)


def find_strokes(ink: Float32[ndarray, "H W"]) -> UInt8[ndarray, "h w"]:
    """Return the strokes of a line at a height of `ROWS` rows, without ruled lines and parts of neighbouring lines."""
    columns = max(ROWS // 3, round(ink.shape[1] * ROWS / ink.shape[0]))
    small = cv2.resize(ink, (columns, ROWS), interpolation=cv2.INTER_AREA)
    return remove_neighbours(remove_rules((small > INK).astype(np.uint8)))


def remove_neighbours(strokes: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "H W"]:
    """Remove components that enter from above or below without reaching the middle fifth, and vertical rules."""
    rows = len(strokes)
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(strokes, connectivity=8)
    top, bottom, width = boxes[:, 1], boxes[:, 1] + boxes[:, 3], boxes[:, 2]
    above = (top == 0) & (bottom <= 0.4 * rows)
    below = (bottom == rows) & (top >= 0.6 * rows)
    rules = (boxes[:, 3] >= 0.9 * rows) & (width <= 0.12 * rows)
    foreign = above | below | rules
    foreign[0] = False  # the paper
    return np.where(foreign[labels], 0, strokes).astype(np.uint8) if foreign.any() else strokes


def remove_rules(strokes: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "H W"]:
    """Remove ruled lines, solid or dotted, from a binary image, keeping the strokes that cross them."""
    closed = cv2.morphologyEx(strokes, cv2.MORPH_CLOSE, np.ones((1, 9), np.uint8))
    rules = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((1, MIN_RULE), np.uint8))
    if not rules.any():
        return strokes
    rules = cv2.dilate(rules, np.ones((3, 1), np.uint8))
    tall = cv2.morphologyEx(strokes, cv2.MORPH_OPEN, np.ones((5, 1), np.uint8))
    return strokes * (1 - rules * (1 - cv2.dilate(tall, np.ones((3, 3), np.uint8))))


def skew(ink: Float32[ndarray, "H W"], slope: float) -> Float32[ndarray, "H W"]:
    """Shift each column vertically so that a line with the given slope becomes horizontal at half of the width."""
    rows, columns = ink.shape
    skewing = np.array([[1, 0, 0], [-slope, 1, slope * columns / 2]], np.float32)
    return cv2.warpAffine(ink, skewing, (columns, rows), flags=cv2.INTER_LINEAR)


def estimate_slope(strokes: UInt8[ndarray, "H W"]) -> float:
    """Estimate the slope as that along which strokes are concentrated in the fewest rows; 0 for a short line."""
    rows, columns = strokes.shape
    x, y = _points(_starts(strokes))
    if columns < 2 * rows or len(x) < 20:
        return 0.0
    x -= columns / 2

    def sharpness(slope: float) -> float:
        return float(np.square(cv2.GaussianBlur(_histogram(y - slope * x)[:, None], (1, 3), 0)).sum())

    measured = {slope: sharpness(slope) for slope in SLOPES.tolist()}
    best = max(measured, key=measured.__getitem__)
    if measured[best] < MIN_GAIN * sharpness(0.0):
        return 0.0
    return max((best - 0.01, best, best + 0.01), key=sharpness)


def shear(strokes: UInt8[ndarray, "H W"], slant: float) -> UInt8[ndarray, "H w"]:
    """Shear a binary image so that strokes with the given slant become upright."""
    rows, columns = strokes.shape
    room = int(np.ceil(abs(SLANTS).max() * rows))
    shear = np.array([[1, slant, -slant * rows / 2 + room / 2], [0, 1, 0]], np.float32)
    return cv2.warpAffine(strokes, shear, (columns + room, rows), flags=cv2.INTER_NEAREST)


def estimate_slant(strokes: UInt8[ndarray, "H W"]) -> float:
    """Estimate the slant as the shear that concentrates ink in the fewest columns (largest sum of squared counts)."""
    x, y = _points(strokes)
    sharpness = [float(np.square(_histogram(x + slant * y)).sum()) for slant in SLANTS.tolist()]
    return float(SLANTS[int(np.argmax(sharpness))])


def stroke_profile(starts: UInt8[ndarray, "H W"], min_segments: int = 4) -> Float32[ndarray, " H"]:
    """Return the number of strokes in each row; on a long line, a trimmed mean over segments.

    Thus a struck-out word or a descender from the line above, which affect one or two segments, have little influence.
    """
    columns = starts.shape[1]
    edges = np.linspace(0, columns, max(1, columns // (2 * ROWS)) + 1).astype(int)
    segments = np.add.reduceat(starts.astype(np.float32), edges[:-1], axis=1).T
    strokes = segments.sum(1)
    written = strokes > 0.25 * np.median(strokes[strokes > 0]) if strokes.any() else strokes > 0
    if written.sum() < min_segments:
        return segments.sum(0)
    segments, strokes = segments[written], strokes[written]
    segments = segments * np.minimum(1, 1.3 * np.median(strokes) / strokes)[:, None]
    ordered = np.sort(cv2.GaussianBlur(segments, (5, 1), 0), axis=0)
    trimmed = len(ordered) // 4
    return ordered[trimmed : len(ordered) - trimmed].mean(0)


def x_height_band(crossings: Float32[ndarray, " H"], min_rows: int = 5) -> tuple[int, int]:
    """Return the range of rows [top, bottom) with the largest total excess of stroke counts over half their peak."""
    smooth = cv2.GaussianBlur(crossings[:, None], (1, 5), 0)[:, 0]
    gains = np.concatenate([[0.0], np.cumsum(smooth - 0.5 * np.sort(smooth)[-5:].mean())])
    gain = gains[None, :] - gains[:, None]
    starts = np.arange(len(gains))
    gain[starts[None, :] - starts[:, None] < min_rows] = -np.inf
    top, bottom = divmod(int(np.argmax(gain)), len(gains))
    return top, bottom


def _points(strokes: UInt8[ndarray, "H W"]) -> tuple[Float32[ndarray, " N"], Float32[ndarray, " N"]]:
    """Return the x and y coordinates of the pixels of strokes."""
    found = cv2.findNonZero(strokes)
    if found is None:
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    x, y = found.reshape(-1, 2).T.astype(np.float32)
    return x, y


def _histogram(positions: Float32[ndarray, " N"]) -> Float32[ndarray, " B"]:
    """Count the positions that round to each integer, from the smallest to the largest."""
    whole = np.floor(positions + 0.5).astype(np.int64)  # rounding halves to even would fill every other row or column
    return np.bincount(whole - whole.min(initial=0), minlength=1).astype(np.float32)


def _starts(strokes: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "H v"]:
    """Return 1 where a stroke starts along its row."""
    return (strokes[:, 1:] > strokes[:, :-1]).astype(np.uint8)


def _written_rows(strokes: UInt8[ndarray, "H W"], rows: int) -> tuple[int, int]:
    """Return the range of rows [first, last) that contains the writing, for an image of the given number of rows."""
    counts = np.cumsum(_starts(strokes).sum(1, dtype=np.int64))
    first, last = np.searchsorted(counts, (0.03 * counts[-1], 0.97 * counts[-1])).tolist()
    scale = rows / len(strokes)
    return max(0, int((first - MARGIN) * scale)), min(rows, int(np.ceil((last + 1 + MARGIN) * scale)))
