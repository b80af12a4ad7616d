"""Turn a map of where the writing is into pieces of lines, which run along the writing whatever its direction."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int
from numpy import ndarray

THRESHOLD = 0.3  # probability above which a pixel belongs to the middle of a line
RAISED = (0.5, 0.7, 0.85)  # thresholds that separate lines which touch
MIN_MEAN = 0.5  # minimum mean probability of a piece
TALL = 1.7  # thickness of a piece relative to that of the others, above which it may be several lines
LONG = 2.5  # length in thicknesses from which the direction of a piece is its own
MIN_SIZE = 0.5  # minimum thickness and half of the minimum length, relative to the typical thickness
MAX_PIECES = 600  # the largest ones of a page


class Piece(NamedTuple):
    """A stretch of writing: the middle zone of the letters of a line, or of a part of it."""

    middle: Float64[ndarray, "N 2"]  # points (x, y) along the middle of the letters, in reading direction
    bottom: Float64[ndarray, "N 2"]  # points along the lower edge of the letters
    thickness: float  # of the middle zone, in pixels

    @property
    def step(self) -> Float64[ndarray, "2"]:
        """The vector from the first point to the last."""
        return self.middle[-1] - self.middle[0]

    @property
    def length(self) -> float:
        """The distance from the first point to the last."""
        return float(np.hypot(*self.step))


def find_pieces(writing: Float32[ndarray, "H W"]) -> list[Piece]:
    """Return the pieces in a map of the probability that a pixel belongs to the middle zone of a line."""
    found = _components(writing, THRESHOLD)
    shapes = [_Shape.of(pixels) for pixels in found]
    long = [(shape.thickness, shape.length) for shape in shapes if shape.length > LONG * shape.thickness]
    if not long:
        long = [(shape.thickness, shape.length) for shape in shapes]
    typical = weighted_median(*np.array(long).reshape(-1, 2).T) if long else 0.0
    pieces = []
    for pixels, shape in zip(found, shapes, strict=True):
        for part in _split(writing, pixels, shape, typical):
            if part.thickness >= MIN_SIZE * typical and part.length >= 2 * MIN_SIZE * typical:
                pieces.append(part.piece())
    return pieces


def weighted_median(values: ndarray, weights: ndarray) -> float:
    """Return the value that half of the weights lie below."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


class _Shape(NamedTuple):
    """A component in its own coordinates: u along the writing, v towards the bottom of the letters."""

    origin: Float64[ndarray, "2"]
    along: Float64[ndarray, "2"]
    u: Float64[ndarray, " N"]
    v: Float64[ndarray, " N"]

    @classmethod
    def of(cls, pixels: Int[ndarray, "N 2"], along: Float64[ndarray, "2"] | None = None) -> "_Shape":
        origin = pixels.mean(0)
        if along is None:
            _, axes = np.linalg.eigh(np.cov((pixels - origin).T) if len(pixels) > 1 else np.eye(2))
            along = forward(axes[:, 1])
        offset = pixels - origin
        return cls(origin, along, offset @ along, offset @ (-along[1], along[0]))

    @property
    def length(self) -> float:
        return float(np.ptp(self.u)) + 1

    @property
    def thickness(self) -> float:
        return len(self.u) / self.length

    def bins(self) -> tuple[ndarray, ndarray, ndarray, ndarray]:
        """Return the centre along u, and the lowest, mean and highest v, of each stretch about as long as thick."""
        count = max(2, round(self.length / max(2.0, self.thickness)))
        start = self.u.min()
        place = np.minimum(((self.u - start) * count / self.length).astype(int), count - 1)
        order = np.argsort(place, kind="stable")
        used, first = np.unique(place[order], return_index=True)
        v = self.v[order]
        mean = np.add.reduceat(v, first) / np.diff([*first, len(v)])
        return (
            start + (used + 0.5) * self.length / count,
            np.minimum.reduceat(v, first),
            mean,
            np.maximum.reduceat(v, first),
        )

    def piece(self) -> Piece:
        centre, _, mean, low = self.bins()
        centre[0], centre[-1] = self.u.min(), self.u.max()
        down = np.array((-self.along[1], self.along[0]))

        def points(v: ndarray) -> ndarray:
            return self.origin + centre[:, None] * self.along + smooth(v)[:, None] * down

        return Piece(points(mean), points(low + 0.5), self.thickness)


def forward(along: Float64[ndarray, "2"]) -> Float64[ndarray, "2"]:
    """Return a direction or its opposite: from left to right, or upwards if it is steep, as notes in margins run."""
    steep = abs(along[1]) > abs(along[0])
    return -along if (along[1] > 0 if steep else along[0] < 0) else along


def smooth(values: Float64[ndarray, " N"], window: int = 5) -> Float64[ndarray, " N"]:
    """Return the moving median of values, without the strokes that reach far out of a line, then their mean."""
    half = min(window, len(values)) // 2
    around = np.lib.stride_tricks.sliding_window_view(np.pad(values, half, mode="edge"), 2 * half + 1)
    median = np.median(around, axis=1)
    return np.lib.stride_tricks.sliding_window_view(np.pad(median, half, mode="edge"), 2 * half + 1).mean(1)


def _components(writing: Float32[ndarray, "H W"], threshold: float) -> list[Int[ndarray, "N 2"]]:
    """Return the pixels (x, y) of the connected components above a threshold, the largest if there are too many."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((writing > threshold).astype(np.uint8))
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    means = np.bincount(labels.ravel(), writing.ravel(), count) / stats[:, cv2.CC_STAT_AREA]
    rank = np.argsort(-areas, kind="stable")[:MAX_PIECES]
    kept = np.zeros(count, bool)
    kept[rank] = True
    kept &= (means >= MIN_MEAN) & (areas >= 4)
    rows, columns = np.nonzero(kept[labels])
    owner = labels[rows, columns]
    order = np.argsort(owner, kind="stable")
    pixels = np.stack([columns[order], rows[order]], axis=1)
    return np.split(pixels, np.flatnonzero(np.diff(owner[order])) + 1) if len(pixels) else []


def _split(
    writing: Float32[ndarray, "H W"], pixels: Int[ndarray, "N 2"], shape: _Shape, typical: float
) -> list[_Shape]:
    """Return a component, or the lines that it consists of if they touch in some places only."""
    _, high, _, low = shape.bins()
    if np.percentile(low - high, 75) < TALL * typical or shape.length < LONG * typical:
        return [shape]
    corner = pixels.min(0)
    width, height = (pixels.max(0) - corner + 1).tolist()
    part = np.zeros((height, width), np.float32)
    inside = pixels - corner
    part[inside[:, 1], inside[:, 0]] = writing[pixels[:, 1], pixels[:, 0]]
    for threshold in RAISED:
        parts = [_Shape.of(one + corner) for one in _components(part, threshold)]
        parts = [one for one in parts if one.length > LONG * typical and one.thickness >= MIN_SIZE / 2 * typical]
        if len(parts) > 1:
            return parts
    return [shape]
