"""Represent pages and their text lines independently of the file format."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy import ndarray

Points = list[tuple[float, float]]


class Word(NamedTuple):
    """A word of a transcribed line, or a character of a word."""

    text: str
    polygon: Points  # in pixels of the page
    confidence: float
    glyphs: tuple["Word", ...] = ()  # characters with their marks


class Line(NamedTuple):
    """A text line. Coordinates are in pixels, with x pointing right and y pointing down."""

    id: str
    text: str  # "" for a line without text
    polygon: Points  # the four corners if the line has only a box; [] if it has no outline
    baseline: Points  # [] if the line has no baseline
    region: str  # id of the region or block
    confidence: float | None = None  # probability per character; None if unknown
    orientation: float = 0.0  # clockwise rotation in degrees that turns the region upright, given in the file
    direction: str = ""  # reading direction given in the file, such as "right-to-left"
    bad_polygon: str = ""  # the polygon in the file and why it is unusable
    bad_baseline: str = ""  # the baseline in the file and why it is unusable
    words: tuple[Word, ...] = ()  # of a transcribed line, in logical order; () if it is not known where they lie


class Page(NamedTuple):
    """A page and its lines, in reading order."""

    path: Path  # the PAGE or ALTO file, or the image if there is no XML file
    image: str  # image file name given in the XML file, or ""
    width: int  # 0 if the XML file does not specify it
    height: int
    lines: list[Line]
    regions: Mapping[str, Points] = {}  # outlines of those that have one, by id


def baseline_angle(baseline: Points) -> float:
    """Return the downward slope of a baseline, from its first to its last point, in degrees; 0 if it has no length."""
    if len(baseline) < 2:
        return 0.0
    (x0, y0), (x1, y1) = baseline[0], baseline[-1]
    return math.degrees(math.atan2(y1 - y0, x1 - x0))


def box_corners(left: float, top: float, right: float, bottom: float) -> Points:
    """Return the corners of a box, clockwise from the top left."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def bounding_box(points: Sequence[tuple[float, float]]) -> tuple[float, float, float, float]:
    """Return the bounding box (left, top, right, bottom) of points."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def page_box(polygon: Sequence[tuple[float, float]] | ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the bounding box (left, top, right, bottom) of a polygon, clipped to a page of size (height, width)."""
    corners = np.asarray(polygon, dtype=np.float64).clip((0, 0), size[::-1])
    (left, top), (right, bottom) = np.floor(corners.min(0)), np.ceil(corners.max(0))
    return int(left), int(top), int(right), int(bottom)
