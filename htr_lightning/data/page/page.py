"""A page and its text lines as plain data, whichever format they come from."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy import ndarray

Points = list[tuple[float, float]]


class Line(NamedTuple):
    """A text line. Coordinates are in pixels, x to the right and y down."""

    id: str
    text: str  # "" for a line without text
    polygon: Points  # a box as its four corners; [] for neither
    baseline: Points  # [] for no baseline
    region: str  # id of the region or block
    confidence: float | None = None  # in the text, as a probability per character; None: not known


class Page(NamedTuple):
    """A page and its lines, in reading order."""

    path: Path  # of the PAGE or ALTO file, or of the image if there is no such file
    image: str  # its file name as the file states it, or ""
    width: int  # 0: not stated
    height: int
    lines: list[Line]


def baseline_angle(baseline: Points) -> float:
    """Degrees by which a baseline runs downhill, from its first to its last point; 0 for fewer than two points."""
    if len(baseline) < 2:
        return 0.0
    (x0, y0), (x1, y1) = baseline[0], baseline[-1]
    return math.degrees(math.atan2(y1 - y0, x1 - x0))


def page_box(polygon: Sequence[tuple[float, float]] | ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a polygon's bounding box, clipped to a page of (height, width)."""
    corners = np.asarray(polygon, dtype=np.float64).clip((0, 0), size[::-1])
    (left, top), (right, bottom) = np.floor(corners.min(0)), np.ceil(corners.max(0))
    return int(left), int(top), int(right), int(bottom)
