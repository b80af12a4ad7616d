"""Find the paper in a photo or scan: remove what surrounds it, detect the polarity and even out the light.

Decisions are made on thumbnails, so that an ordinary line takes little more time than scaling it.
"""

import math

import cv2
import numpy as np
from jaxtyping import Float32, Int32, UInt8
from numpy import ndarray

from htr_lightning.data.image import histogram

PIXELS = 40_000  # maximum number of pixels of the thumbnail on which paper is outlined
UNEVEN = 0.4  # variation of the paper's grey level, relative to the contrast, above which light is evened out
WINDOW = 4  # height of an image divided by the side of the window in which the lightest pixel is paper
MIN_LIGHT = 0.33  # minimum grey level of the paper in a shadow relative to that beside it
OFFSET = 16  # added to grey levels before light is divided out, because ratios of dark levels are mostly noise
MIN_PAPER = 0.2  # minimum area of the paper, as a fraction of the image
SIDE = 0.9  # minimum fraction of one side of the image that is covered by its surroundings
CORNERS = 6  # maximum number of corners of the paper, since the image may cut off two
STRAIGHT = 0.96  # minimum area of the paper relative to its convex hull; a stroke across the edge of a shadow has less
POLYGON = 0.93  # minimum area of a polygon with `CORNERS` corners relative to the convex hull; round letters have less
NOISE = 8  # grey levels by which evenly lit paper may vary
FAINT = 24  # minimum grey levels between paper and ink on a table
MIN_INK, MAX_INK = 0.001, 0.35  # bounds for the fraction of the paper that is ink
MAX_WRITTEN = 0.005  # maximum fraction of the surroundings with strokes; more indicates paper in a shadow
MAX_SHADE = 0.55  # maximum grey level of the surroundings relative to the paper; shadows are lighter


def clean(image: UInt8[ndarray, "H W"], uneven: float = UNEVEN, crop: bool = False) -> UInt8[ndarray, "h w"]:
    """Return an image as dark ink on evenly lit paper, without a table or a scanner's frame around the paper.

    Args:
        image: image of a line or a character.
        uneven: variation of the paper's grey level, relative to the contrast of ink, above which light is evened out.
        crop: whether to crop the image to the paper; otherwise, its surroundings become paper and it keeps its size.
    """
    return cleaned(image, uneven, crop)[0]


def cleaned(
    image: UInt8[ndarray, "H W"], uneven: float = UNEVEN, crop: bool = False
) -> tuple[UInt8[ndarray, "h w"], tuple[int, int]]:
    """Return what `clean` returns, and the column and row of the image at which it begins."""
    small, corner = thumbnail(image), (0, 0)
    paper = find_paper(image, small)
    if paper is not None:
        image, corner = _without_surroundings(image, paper, crop)
        small = thumbnail(image)
    light_ink = light_on_dark(small)
    if _unevenness(small, light_ink) > uneven:
        image = even_light(image, light_ink)
    return 255 - image if light_ink else image, corner


def even_light(image: UInt8[ndarray, "H W"], light_ink: bool) -> UInt8[ndarray, "H W"]:
    """Divide an image by the light on its paper, so that all paper has the grey level of its brightest part.

    An image is returned unchanged if its paper seems to have dark areas with sharp edges, which are large areas of ink.
    """
    small = thumbnail(image, PIXELS)
    levels = _paper_levels(small, light_ink, WINDOW)
    window = np.ones((5, 5), np.uint8)
    dark, bright = (operation(levels, window).astype(np.float32) + OFFSET for operation in (cv2.erode, cv2.dilate))
    if (dark < MIN_LIGHT * bright).any():
        return image
    brightest, paper = float(np.percentile(levels, 98)), _blurred(levels, WINDOW)
    gain: Float32[ndarray, "h w"] = np.float32(brightest + OFFSET) / (paper + np.float32(OFFSET))
    if light_ink:  # Ink that is as bright as elsewhere would be enlarged by its soft edges.
        contrast = cv2.dilate(cv2.subtract(small, paper), np.ones((min(small.shape) // WINDOW | 1,) * 2, np.uint8))
        gain = np.minimum(gain, np.float32(255 - brightest) / np.maximum(_blurred(contrast, WINDOW), 1))
    paper, gain = (cv2.resize(part, image.shape[::-1]) for part in (paper, gain))
    return ((image - paper.astype(np.float32)) * gain + brightest).round().clip(0, 255).astype(np.uint8)


def _unevenness(small: UInt8[ndarray, "h w"], light_ink: bool) -> float:
    """Return the variation of the paper's grey level relative to the contrast of ink.

    Light ink on dark paper varies more than the paper, so the variation of the paper is relative to its own grey level.
    """
    paper = _blurred(_paper_levels(small, light_ink, 2), 2)
    if np.ptp(paper) <= NOISE:
        return 0.0
    darkest, median, lightest = _levels(paper, 0.02, 0.5, 0.98)
    if light_ink:
        return 1 - (darkest + OFFSET) / (lightest + OFFSET)
    return (lightest - darkest) / max(1, median - _levels(small, 0.01)[0])


def _levels(image: UInt8[ndarray, "h w"], *quantiles: float) -> list[int]:
    return np.searchsorted(np.cumsum(histogram(image)), np.multiply(quantiles, image.size)).tolist()


def _paper_levels(small: UInt8[ndarray, "h w"], light_ink: bool, parts: int) -> UInt8[ndarray, "h w"]:
    """Return the grey level of the paper at each pixel: the lightest (or darkest) one within a window."""
    window = max(3, min(small.shape) // parts) | 1
    operation = cv2.MORPH_OPEN if light_ink else cv2.MORPH_CLOSE
    return cv2.morphologyEx(small, operation, np.ones((window, window), np.uint8))


def _blurred(paper: UInt8[ndarray, "h w"], parts: int) -> UInt8[ndarray, "h w"]:
    return cv2.blur(paper, (min(paper.shape) // (2 * parts) | 1,) * 2, borderType=cv2.BORDER_REPLICATE)


def thumbnail(image: UInt8[ndarray, "H W"], pixels: int = 10_000) -> UInt8[ndarray, "h w"]:
    """Average square blocks of pixels so that at most about the given number of pixels remain."""
    block = min(math.ceil((image.size / pixels) ** 0.5), *image.shape)
    if block <= 1:
        return image
    rows, columns = image.shape[0] // block, image.shape[1] // block
    # whole blocks are averaged much faster
    return cv2.resize(image[: rows * block, : columns * block], (columns, rows), interpolation=cv2.INTER_AREA)


def light_on_dark(image: UInt8[ndarray, "H W"]) -> bool:
    """Return whether an image has light ink on dark paper.

    Ink covers the smaller part of any neighbourhood, so the long tail of the differences from the local mean is on the
    side of the ink, and the sign of their third moment indicates the polarity, even under uneven light. An image
    without contrast counts as dark on light.
    """
    small = thumbnail(image)
    window = (max(3, min(small.shape) // 2) | 1,) * 2
    difference = small - cv2.blur(small.astype(np.float32), window, borderType=cv2.BORDER_REFLECT)
    return bool((difference * difference * difference).sum() > 0)


def dark_on_light(image: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "H W"]:
    """Return the image with dark ink on light paper, inverting it if necessary."""
    return 255 - image if light_on_dark(image) else image


def find_paper(image: UInt8[ndarray, "H W"], glance: UInt8[ndarray, "k l"]) -> UInt8[ndarray, "h w"] | None:
    """Return the paper in a thumbnail of an image as a binary mask, or None if there is nothing around the paper.

    The paper is bounded by straight, sharp edges and has ink on it. Its surroundings are dark and without writing and
    cover a side of the image. A blackboard on a light wall is found in the same way.
    """
    for inverted in (False, True):
        dark = _dark(255 - glance if inverted else glance)
        window = np.ones((min(dark.shape) // 6 | 1,) * 2, np.uint8)  # larger than strokes
        if not _covers_a_side(dark) or cv2.countNonZero(cv2.dilate(dark, window)) > (1 - MIN_PAPER / 4) * dark.size:
            continue
        small = thumbnail(image, PIXELS)
        if (paper := _outline(255 - small if inverted else small)) is not None:
            return paper
    return None


def _dark(small: UInt8[ndarray, "h w"]) -> UInt8[ndarray, "h w"]:
    return cv2.threshold(small, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)[1]


def _covers_a_side(mask: UInt8[ndarray, "h w"]) -> bool:
    """Return whether a mask covers a side of the image; a short side to a depth that excludes strokes along it."""
    depth = min(mask.shape) // 8 if mask.shape[1] > 2 * mask.shape[0] else 1
    sides = mask[:1], mask[-1:], mask[:, :depth], mask[:, -depth:]
    return any(cv2.countNonZero(side) > SIDE * side.size for side in sides)


def _outline(small: UInt8[ndarray, "h w"]) -> UInt8[ndarray, "h w"] | None:
    """Return the paper as a binary mask if it is surrounded by something darker, else None."""
    dark = _dark(small)
    window = min(small.shape) // 4 | 1
    # With dark padding, opening keeps a frame however thin, but no stroke.
    padded = cv2.copyMakeBorder(dark, window, window, window, window, cv2.BORDER_CONSTANT, value=1)
    around = cv2.morphologyEx(padded, cv2.MORPH_OPEN, np.ones((window, window), np.uint8))
    around = (_components(around)[0] == 1).astype(np.uint8)  # the component of the padding
    around = cv2.min(cv2.dilate(around, np.ones((5, 5), np.uint8)), padded)
    around = cv2.morphologyEx(around, cv2.MORPH_OPEN, np.ones((window // 2 | 1,) * 2, np.uint8))  # no tips of strokes
    around = np.ascontiguousarray(around[window:-window, window:-window])
    labels, areas = _components(1 - around)
    if not _covers_a_side(around) or max(areas, default=0) < MIN_PAPER * small.size:
        return None
    paper = (labels == 1 + np.argmax(areas)).astype(np.uint8)
    (outline,), _ = cv2.findContours(paper, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    paper = cv2.fillPoly(np.zeros_like(paper), [outline], 1)
    return paper if _is_straight(outline) and _is_paper(small, paper, dark, around) else None


def _is_straight(outline: Int32[ndarray, "N 1 2"]) -> bool:
    """Return whether an outline is nearly a convex polygon with few corners, in contrast to that of a letter."""
    hull = polygon = cv2.convexHull(outline)
    tolerance = 1.0
    while len(polygon) > CORNERS:
        tolerance *= 1.25
        polygon = cv2.approxPolyDP(hull, tolerance, True)
    area = cv2.contourArea(hull)
    return cv2.contourArea(outline) > STRAIGHT * area and cv2.contourArea(polygon) > POLYGON * area


def _is_paper(
    small: UInt8[ndarray, "h w"],
    paper: UInt8[ndarray, "h w"],
    dark: UInt8[ndarray, "h w"],
    around: UInt8[ndarray, "h w"],
) -> bool:
    """Return whether there is ink on the paper, and neither ink nor a shadow around it."""
    window = np.ones((7, 7), np.uint8)
    inner = cv2.erode(paper, window, borderValue=1) > 0
    if not inner.any():
        return False
    level, shade = float(np.median(small[inner])), float(np.median(small[around > 0]))
    ink = (small < level - FAINT) & inner
    if not MIN_INK < ink.sum() / inner.sum() < MAX_INK:
        return False
    strokes, _ = _components(dark)
    if np.isin(strokes[ink], np.unique(strokes[around > 0])).mean() > 0.5:
        return False  # the ink extends to the side of the image
    edge = cv2.morphologyEx(paper, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    steps = cv2.morphologyEx(small, cv2.MORPH_GRADIENT, window)[edge]
    if shade > MAX_SHADE * level or np.percentile(steps, 30) < (level - shade) / 2:
        return False  # a shadow, which is lighter or has soft edges
    surface = cv2.erode(around, window, borderValue=1) > 0
    plain = np.where(surface, small, np.uint8(shade))
    window = np.ones((15, 15), np.uint8)  # larger than strokes
    darkest = np.minimum(plain, cv2.morphologyEx(plain, cv2.MORPH_OPEN, window)) + float(NOISE)
    lightest = np.maximum(plain, cv2.morphologyEx(plain, cv2.MORPH_CLOSE, window))
    return bool((darkest < MAX_SHADE * lightest).sum() <= MAX_WRITTEN * surface.sum())


def _components(mask: UInt8[ndarray, "h w"]) -> tuple[Int32[ndarray, "h w"], Int32[ndarray, " N"]]:
    """Return the number of the component of each pixel and the area of each component."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    return labels, stats[1:, cv2.CC_STAT_AREA]


def _without_surroundings(
    image: UInt8[ndarray, "H W"], paper: UInt8[ndarray, "k l"], crop: bool
) -> tuple[UInt8[ndarray, "h w"], tuple[int, int]]:
    """Fill everything around the paper with its median grey level, or crop the image to the paper; see `cleaned`."""
    paper = cv2.erode(paper, np.ones((3, 3), np.uint8), borderValue=1)  # without the blurred edge
    mask = cv2.resize(paper, image.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    image = np.where(mask, image, np.median(image[mask]).astype(np.uint8))
    if not crop:
        return image, (0, 0)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    inside = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.ascontiguousarray(inside), (int(columns[0]), int(rows[0]))
