"""Measure the slant, x-height and stroke spacing of a line of handwriting so that they can be normalised.

Writers differ more in slant, size and width than in the shapes of their letters, and a network need not learn
variation that has been removed (Marti and Bunke, 2001, "Using a statistical language model to improve the performance
of an HMM-based cursive handwriting recognition system", section 3; Vinciarelli and Luettin, 2001, "A new normalization
technique for cursive handwritten words").
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

ROWS = 48  # height in pixels to which a line is scaled before it is measured
INK = 0.4  # ink level above which a pixel belongs to a stroke
SLANTS = np.arange(-0.6, 0.95, 0.1)  # columns per row; from 31 degrees to the left to 42 degrees to the right
MIN_RULE = 60  # minimum length in columns of a ruled line; horizontal runs in letters are shorter
MIN_STROKES = 4  # minimum number of strokes that a row must cross for their spacing to be measured


class WritingStyle(NamedTuple):
    """The style of a line of handwriting. The x-height band extends from the baseline to the top of the letter x."""

    slant: float  # columns per row; positive if strokes lean to the right
    top: float  # top of the x-height band, as a fraction of the image height
    bottom: float  # baseline, as a fraction of the image height
    stroke_spacing: float | None  # columns between strokes divided by the x-height; None if there are too few strokes


def measure(ink: Float32[ndarray, "H W"]) -> WritingStyle:
    """Measure the style of a line, given its ink in [0, 1]."""
    columns = max(ROWS // 3, round(ink.shape[1] * ROWS / ink.shape[0]))
    small = cv2.resize(ink, (columns, ROWS), interpolation=cv2.INTER_AREA)
    strokes = remove_rules((small > INK).astype(np.uint8))
    slant = estimate_slant(strokes)
    upright = shear(strokes, slant)
    crossings = (np.diff(upright, axis=1) == 1).sum(1)  # number of strokes that each row crosses
    top, bottom = x_height_band(crossings.astype(np.float32))
    used = np.flatnonzero(upright[top:bottom].any(0))
    crossed = float(np.percentile(crossings[top:bottom], 75))
    stroke_spacing = (used[-1] - used[0] + 1) / crossed / (bottom - top) if crossed >= MIN_STROKES else None
    return WritingStyle(slant, top / ROWS, bottom / ROWS, stroke_spacing)


def remove_rules(strokes: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "H W"]:
    """Remove ruled lines, solid or dotted, from a binary image, keeping the strokes that cross them."""
    closed = cv2.morphologyEx(strokes, cv2.MORPH_CLOSE, np.ones((1, 9), np.uint8))
    rules = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((1, MIN_RULE), np.uint8))
    if not rules.any():
        return strokes
    rules = cv2.dilate(rules, np.ones((3, 1), np.uint8))
    tall = cv2.morphologyEx(strokes, cv2.MORPH_OPEN, np.ones((5, 1), np.uint8))
    return strokes * (1 - rules * (1 - cv2.dilate(tall, np.ones((3, 3), np.uint8))))


def shear(strokes: UInt8[ndarray, "H W"], slant: float) -> UInt8[ndarray, "H w"]:
    """Shear a binary image so that strokes with the given slant become upright."""
    rows, columns = strokes.shape
    room = int(np.ceil(abs(SLANTS).max() * rows))
    shear = np.array([[1, slant, -slant * rows / 2 + room / 2], [0, 1, 0]], np.float32)
    return cv2.warpAffine(strokes, shear, (columns + room, rows), flags=cv2.INTER_NEAREST)


def estimate_slant(strokes: UInt8[ndarray, "H W"]) -> float:
    """Estimate the slant as the shear that concentrates ink in the fewest columns (largest sum of squared counts)."""
    columns = [cv2.reduce(shear(strokes, slant), 0, cv2.REDUCE_SUM, dtype=cv2.CV_32F) for slant in SLANTS.tolist()]
    return float(SLANTS[int(np.argmax([float((ink * ink).sum()) for ink in columns]))])


def x_height_band(crossings: Float32[ndarray, " H"], min_rows: int = 5) -> tuple[int, int]:
    """Return the range of rows [top, bottom) with the largest total excess of stroke counts over half their peak."""
    smooth = cv2.GaussianBlur(crossings[:, None], (1, 5), 0)[:, 0]
    gains = np.concatenate([[0.0], np.cumsum(smooth - 0.5 * np.sort(smooth)[-5:].mean())])
    gain = gains[None, :] - gains[:, None]
    starts = np.arange(len(gains))
    gain[starts[None, :] - starts[:, None] < min_rows] = -np.inf
    top, bottom = divmod(int(np.argmax(gain)), len(gains))
    return top, bottom
