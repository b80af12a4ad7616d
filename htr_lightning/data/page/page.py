"""A page and its text lines as plain data, whatever file they come from."""

import math
from pathlib import Path
from typing import NamedTuple

Points = list[tuple[float, float]]


class Line(NamedTuple):
    """A text line as its file describes it. Coordinates in pixels, x right and y down."""

    id: str
    text: str  # "" where the file has none
    polygon: Points  # a box as its four corners; [] where the file has neither
    baseline: Points  # [] where the file has none
    region: str  # id of the region or block


class Page(NamedTuple):
    """A page as its file describes it."""

    path: Path
    image: str  # file name as written, "" where there is none
    width: int  # 0 where the file does not say
    height: int
    lines: list[Line]


def baseline_angle(baseline: Points) -> float:
    """Degrees by which a baseline runs downhill, from its first to its last point; 0 for fewer than two points."""
    if len(baseline) < 2:
        return 0.0
    (x0, y0), (x1, y1) = baseline[0], baseline[-1]
    return math.degrees(math.atan2(y1 - y0, x1 - x0))
