"""Measure a line image: its ink, polarity, edges and orientation, and a fingerprint for finding duplicates."""

from hashlib import blake2b
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float16, Float32, Int8, UInt8
from numpy import ndarray

from htr_lightning.data.image import MIN_SIDE
from htr_lightning.data.paper import dark_on_light
from htr_lightning.data.preprocess import stretch
from htr_lightning.data.writing import is_blank

ROWS = 32  # height in pixels at which lines are measured
MAX_COLUMNS = 4096  # wider images are compressed horizontally
GRID = (64, 8)  # columns and rows in a fingerprint
COLUMNS = 128  # number of columns in a profile: two or three per character
RADII = (2, 4, 8)  # radii in pixels at height ROWS, from the width of a stroke to that of a letter


class Measures(NamedTuple):
    """The measurements of a line image, with fractions in [0, 1] and lengths in line heights."""

    size: tuple[int, int]  # (height, width) in pixels
    digest: bytes  # hash of the pixels
    dark: bool  # whether the ink is darker than the paper
    blank: bool  # whether there is no writing, so that preprocessing outputs zeros; see `is_blank`
    contrast: int  # grey levels between the paper and the darkest percentile
    ink: float  # fraction of pixels that are ink
    edges: tuple[float, float, float, float]  # fraction of ink along the top, right, bottom and left edges
    extent: float  # distance between the first and the last ink column
    strokes: float  # number of strokes that a row through the letters crosses
    spread: float  # standard deviation of the vertical position of ink
    shape: Float16[ndarray, "768"]  # histograms of local shapes, minus those of the line rotated by 180 degrees
    fingerprint: Int8[ndarray, "512"]  # coarse image of the inked area, robust to compression and shifts
    profile: Float16[ndarray, "3 128"]  # ink per column above, within and below the x-height


def measure(image: UInt8[ndarray, "H W"]) -> Measures:
    """Measure a line image. Ink is defined as in `preprocess.stretch`."""
    digest = blake2b(image.tobytes(), digest_size=12, key=b"%d" % image.shape[1]).digest()
    if min(image.shape) < MIN_SIDE:
        nothing = np.zeros((6, COLUMNS), np.float16)
        return Measures(image.shape, digest, True, True, 0, 0.0, (0.0,) * 4, 0.0, 0.0, 0.0,
                        nothing.ravel(), nothing[:4].ravel().astype(np.int8), nothing[:3])  # fmt: skip
    upright = dark_on_light(image)
    width = min(MAX_COLUMNS, max(MIN_SIDE, round(image.shape[1] * ROWS / image.shape[0])))
    small = cv2.resize(upright, (width, ROWS), interpolation=cv2.INTER_AREA)
    darkest, paper = np.percentile(small, (1, 50), method="nearest")
    ink = stretch(small)
    mask = ink > 0.5
    rows, columns = _box(mask)
    heights = np.repeat(np.arange(ROWS), mask.sum(1))
    middle, spread = (float(heights.mean()), float(heights.std())) if len(heights) else (ROWS / 2, 0.0)
    crossings = (mask[:, 1:] & ~mask[:, :-1]).sum(1) + mask[:, 0]
    return Measures(
        size=(image.shape[0], image.shape[1]),
        digest=digest,
        dark=upright is image,
        blank=is_blank(image),
        contrast=int(paper) - int(darkest),
        ink=float(mask.mean()),
        edges=(float(mask[0].mean()), float(mask[:, -1].mean()), float(mask[-1].mean()), float(mask[:, 0].mean())),
        extent=(columns.stop - columns.start) / ROWS if len(heights) else 0.0,
        strokes=float(np.sort(crossings)[-ROWS // 4 :].mean()),
        spread=spread / ROWS,
        shape=_shape(mask, middle),
        fingerprint=_fingerprint(ink[rows, columns]),
        profile=_profile(mask[:, columns], middle, spread),
    )


def _box(mask: Bool[ndarray, "H W"]) -> tuple[slice, slice]:
    """Return the rows and columns of the ink, ignoring outlying specks, or the whole image if there is no ink."""
    if not mask.any():
        return slice(0, mask.shape[0]), slice(0, mask.shape[1])
    rows, columns = mask.sum(1).cumsum(), mask.sum(0).cumsum()
    total = rows[-1]
    top, bottom = np.searchsorted(rows, (0.02 * total, 0.98 * total))
    left, right = np.searchsorted(columns, (0.005 * total, 0.995 * total))
    return slice(int(top), int(bottom) + 1), slice(int(left), int(right) + 1)


def _shape(mask: Bool[ndarray, "H W"], middle: float) -> Float16[ndarray, "768"]:
    """Return histograms of the local shapes above the middle of a line, minus those of the rotated line.

    A local shape records which of eight neighbours at a given distance are ink. Rotation by 180 degrees swaps above
    with below and each neighbour with its opposite, so the rotated line needs no second pass. Square roots give rare
    shapes more weight.
    """
    height, width = mask.shape
    above, below = (np.arange(height) <= middle)[:, None], (np.arange(height) >= middle)[:, None]
    codes = np.arange(256)
    opposite = (codes >> 4) | ((codes & 15) << 4)
    differences = []
    total = max(1, int(mask.sum()))
    for radius in RADII:
        padded = np.pad(mask, radius)
        code = np.zeros(mask.shape, np.uint8)
        diagonal = round(radius / np.sqrt(2))
        steps = [(0, radius), (diagonal, diagonal), (radius, 0), (diagonal, -diagonal)]
        for bit, (down, right) in enumerate(steps + [(-down, -right) for down, right in steps]):
            shifted = padded[radius + down : radius + down + height, radius + right : radius + right + width]
            code |= shifted.astype(np.uint8) << bit
        upper, lower = (np.bincount(code[mask & part], minlength=256) / total for part in (above, below))
        differences.append(np.sqrt(upper) - np.sqrt(lower[opposite]))
    return np.concatenate(differences).astype(np.float16)


def _fingerprint(ink: Float[ndarray, "h w"]) -> Int8[ndarray, "512"]:
    """Return the ink on a coarse grid, minus the mean of each row, which is similar in all handwritten lines."""
    grid: ndarray = cv2.resize(np.ascontiguousarray(ink, dtype=np.float32), GRID, interpolation=cv2.INTER_AREA)
    grid = cv2.GaussianBlur(grid, (3, 1), 0)
    grid -= grid.mean(1, keepdims=True)
    return np.round(grid.ravel() * 127 / max(float(np.abs(grid).max()), 1e-6)).astype(np.int8)


def _profile(mask: Bool[ndarray, "H w"], middle: float, spread: float) -> Float16[ndarray, "3 128"]:
    """Return the ink per column in three zones, each normalised to mean 0 and variance 1."""
    rows = np.arange(mask.shape[0])
    zones = (rows < middle - spread, abs(rows - middle) <= spread, rows > middle + spread)
    ink: ndarray = np.stack([mask[zone].sum(0) for zone in zones]).astype(np.float32)
    ink = cv2.resize(ink, (COLUMNS, 3), interpolation=cv2.INTER_AREA)
    ink = cv2.GaussianBlur(ink, (3, 1), 0)
    ink -= ink.mean(1, keepdims=True)
    return (ink / np.maximum(ink.std(1, keepdims=True), 1e-3)).astype(np.float16)


def unit(fingerprints: Int8[ndarray, "N 512"]) -> Float32[ndarray, "N 512"]:
    """Normalise fingerprints to unit length, so that the dot product of two of them is their correlation."""
    vectors = fingerprints.astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


def uprightness(shapes: Float16[ndarray, "N F"], ridge: float = 2.0, rounds: int = 3) -> Float32[ndarray, " N"]:
    """Score the orientation of each line: about 1 for the orientation of most lines, about -1 for the opposite.

    A ridge regression maps the shapes of upright lines to 1, and hence those of rotated lines to -1. Each score is a
    leave-one-out prediction divided by the median prediction. Lines that score below 0 count as rotated in the next
    fit, so that many of them do not distort it. A weaker penalty overfits when there are about as many lines as
    features.

    Args:
        shapes: local shapes of the lines; see `Measures`.
        ridge: penalty, relative to the number of lines.
        rounds: number of fits.
    """
    scale = np.sqrt(np.square(shapes.astype(np.float32)).mean(0)) + 1e-4
    rows = shapes.astype(np.float32) / scale
    inverse = np.linalg.inv(rows.T @ rows + ridge * len(rows) * np.eye(rows.shape[1], dtype=np.float32))
    projected = rows @ inverse
    own = (projected * rows).sum(1)
    signs = np.ones(len(rows), np.float32)
    for _ in range(rounds):
        scores = (projected @ (signs @ rows) - own * signs) / (1 - own)
        signs = np.where(scores < 0, -1, 1).astype(np.float32)
    return scores / max(1e-6, float(np.median(scores)))
