"""Distinguish blank images and whole pages from images of a line or a character."""

import cv2
import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from htr_lightning.data.handwriting import remove_rules
from htr_lightning.data.image import histogram
from htr_lightning.data.paper import dark_on_light

MAX_DEVIATION = 60  # maximum standard deviation of paper in grey levels, a quick test that most characters exceed
EDGE = (16, 48)  # bounds for the threshold above which a gradient is an edge, in grey levels
EXTENT = (10, 16)  # bounds for the minimum extent of writing, in pixels; smaller marks are dust
PAGE_SIDE = 1024  # length in pixels to which the longer side of a page is reduced
MIN_PAGE_SIDE = 100  # pixels; a smaller image cannot contain a page
MIN_LETTER = 6  # minimum height of a letter on a page, in pixels
MIN_LETTERS = 12  # minimum number of letters on a page
STRIPS = 8  # number of vertical strips in which rows are counted, so that lines may be skewed


def is_blank(image: UInt8[ndarray, "H W"]) -> bool:
    """Return whether an image contains no writing, only paper and perhaps noise, shading, dust or horizontal rules.

    Strokes have sharp edges, whereas shading is smooth and noise has similar gradients everywhere. Writing is therefore
    detected as a large connected component of pixels whose gradients are much larger than the median gradient.
    """
    if cv2.meanStdDev(image)[1][0, 0] >= MAX_DEVIATION:
        return False
    edges = cv2.morphologyEx(cv2.GaussianBlur(image, (3, 3), 0), cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8))
    cumulative = np.cumsum(histogram(edges))
    median, strongest = np.searchsorted(cumulative, (edges.size * 0.5, edges.size * 0.9)).tolist()
    threshold = min(max(3 * median, EDGE[0]), EDGE[1])
    if strongest > 2 * threshold:  # true for most images
        return False
    width, height = _components((edges >= threshold).astype(np.uint8))[:, 2:4].T
    rule = (width >= 0.9 * image.shape[1]) & (height <= max(EXTENT[0], image.shape[0] // 24))
    extent = min(max(min(image.shape) // 10, EXTENT[0]), EXTENT[1], max(image.shape) // 2)
    large = np.maximum(width, height) >= extent
    return not (large & ~rule).any()


def is_page(image: UInt8[ndarray, "H W"]) -> bool:
    """Return whether an image looks like a page, with many small letters that form more than one row."""
    if min(image.shape) < MIN_PAGE_SIDE or max(image.shape) > 4 * min(image.shape):
        return False
    scale = min(1.0, PAGE_SIDE / max(image.shape))
    image = dark_on_light(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    rows, columns = image.shape
    left, top, width, height, area = (found := _components(find_strokes(image)))[found[:, 3] >= MIN_LETTER].T
    if len(area) < MIN_LETTERS:
        return False
    order = np.argsort(height)
    total = np.cumsum(area[order])  # a median weighted by area, so that large strokes outweigh dust
    median = int(height[order][np.searchsorted(total, total[-1] / 2)])
    letters = (height <= rows / 8) & (height >= median / 3) & (width <= 0.6 * columns)
    letters &= area < 0.8 * width * height  # excludes the dots and dashes of ruled lines
    if median > rows / 16 or np.count_nonzero(letters) < MIN_LETTERS:
        return False
    gap = np.ones((median // 2 | 1, 1), np.uint8)  # closes the gaps between letters and their accents
    for strip in range(STRIPS):
        inside = letters & (left < columns * (strip + 1) / STRIPS) & (left + width > columns * strip / STRIPS)
        written = np.zeros((rows, 1), np.uint8)
        for start, size in zip((top + height // 4)[inside], height[inside], strict=True):
            written[start : start + max(1, size // 2)] = 1
        closed = cv2.morphologyEx(written, cv2.MORPH_CLOSE, gap)
        if cv2.connectedComponents(closed)[0] > 2:  # the first component is the background
            return True
    return False


def find_strokes(image: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "H W"]:
    """Return the strokes in a scan as a binary image, without rules, grids, frames or dark borders."""
    rows, columns = image.shape
    small = cv2.resize(image, (columns // 4, rows // 4), interpolation=cv2.INTER_AREA)
    window = (min(small.shape) // 4 | 1,) * 2
    paper = cv2.blur(cv2.morphologyEx(small, cv2.MORPH_CLOSE, np.ones(window, np.uint8)), window)
    ink = cv2.subtract(cv2.resize(paper, (columns, rows)), cv2.GaussianBlur(image, (3, 3), 0))
    otsu, _ = cv2.threshold(ink, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    strokes = (ink >= max(24, 0.6 * otsu)).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(strokes)
    left, top, width, height, area = stats.T
    wide, tall = width >= columns / 2, height >= rows / 2
    border = (left == 0) | (top == 0) | (left + width == columns) | (top + height == rows)
    filled = area / (width * height)
    strokes[((wide & tall & (border | (filled < 0.15))) | (border & (wide | tall) & (filled > 0.3)))[labels]] = 0
    upright = remove_rules(np.ascontiguousarray(remove_rules(strokes).T))
    return np.ascontiguousarray(upright.T)


def _components(mask: UInt8[ndarray, "H W"]) -> Int[ndarray, "N 5"]:
    """Return (left, top, width, height, area) of each connected component in a binary image."""
    return cv2.connectedComponentsWithStats(mask)[2][1:]
