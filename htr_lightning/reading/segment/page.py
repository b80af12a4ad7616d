"""Find the lines on the image of a page, with baselines, outlines and reading order. Does not import torch."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray

from htr_lightning.data.page.baseline import ABOVE, BELOW
from htr_lightning.data.page.crop import crop_line
from htr_lightning.data.page.page import Line, Page, Points
from htr_lightning.reading.segment.detect import find_writing
from htr_lightning.reading.segment.join import join, main_angle, reading_order, typical_thickness
from htr_lightning.reading.segment.pieces import Piece, find_pieces
from htr_lightning.reading.segment.view import View, find_sheet, look

SIDE, MAX_SIDE = 960, 1920  # longer side of a view in pixels
MIN_THICKNESS = 9.0  # of the middle zones of letters in a view, in pixels; smaller writing is enlarged
MAX_ANGLE = 8.0  # degrees; steeper writing is turned
DISTANCE = 2.6  # typical distance of baselines in thicknesses
MIN_DISTANCE, MAX_DISTANCE = 2.2, 3.2  # bounds for the distance that an outline takes up, in thicknesses
MAX_TURN = 45.0  # degrees by which lines may differ from the main direction to be turned together with it
TRIED = 3  # lines that are read both ways up
SURER = 0.05  # confidence by which lines have to be read better upside down

Confidence = Callable[[Sequence[UInt8[ndarray, "_ _"]]], float]


def find_page(path: Path, image: UInt8[ndarray, "H W"], confidence: Confidence | None = None) -> Page:
    """Return the page in an image with the lines found on it, in reading order and without text.

    Args:
        path: path of the image.
        image: image of the page, or a photo of a sheet of paper.
        confidence: mean confidence with which a recognizer reads lines, which tells whether they are upside down;
            without it, lines run from left to right, or upwards.
    """
    height, width = image.shape
    view, pieces = _examine(image)
    lines = join(pieces, view.image.shape[1])
    level = [abs(_angle(line)) <= MAX_TURN for line in lines]
    distance = _distance(lines)
    if confidence is not None:
        turned = [_is_turned(image, view, [one for one, same in zip(lines, level, strict=True) if same == chosen],
                             distance, confidence) for chosen in (False, True)]  # fmt: skip
        lines = [_reversed(line) if turned[same] else line for line, same in zip(lines, level, strict=True)]
        if turned[True]:  # the order is that of the page when it is upright
            size = np.array(view.image.shape[::-1])
            groups = reading_order([Piece(size - line.middle, size - line.bottom, line.thickness) for line in lines])
            return _page(path, (height, width), view, lines, groups, distance)
    return _page(path, (height, width), view, lines, reading_order(lines), distance)


def _examine(image: UInt8[ndarray, "H W"]) -> tuple[View, list[Piece]]:
    """Return the view of a page in which its writing is large enough and runs from left to right, and its pieces."""
    sheet = find_sheet(image)
    view = look(image, SIDE, sheet)
    pieces = find_pieces(find_writing(view.image))
    angle, thickness = main_angle(pieces), typical_thickness(pieces)
    enlarge = min(MAX_SIDE / SIDE, MIN_THICKNESS / thickness) if thickness else 1.0
    if abs(angle) > MAX_ANGLE or enlarge > 1.1:
        view = look(image, round(SIDE * max(1.0, enlarge)), sheet, angle if abs(angle) > MAX_ANGLE else 0.0)
        pieces = find_pieces(find_writing(view.image))
    return view, pieces


def _angle(line: Piece) -> float:
    return float(np.degrees(np.arctan2(line.step[1], line.step[0])))


def _distance(lines: Sequence[Piece]) -> float:
    """Return the typical distance of neighbouring baselines in thicknesses of the lines."""
    gaps = []
    for index, line in enumerate(lines):
        down = np.array((-line.step[1], line.step[0])) / line.length
        near = []
        for other in (*lines[:index], *lines[index + 1 :]):
            offset = (other.middle[:, None] - line.middle[None]).reshape(-1, 2)
            beside = np.abs(offset @ line.step) < line.length * line.thickness
            across = np.abs(offset @ down)[beside]
            if len(across) and abs(other.step @ line.step) > 0.9 * other.length * line.length:
                near.append(float(np.median(across)))
        if near:
            gaps.append(min(near) / line.thickness)
    return float(np.clip(np.median(gaps), MIN_DISTANCE, MAX_DISTANCE)) if gaps else DISTANCE


def _reversed(line: Piece) -> Piece:
    """Return a line as it is when the page is upside down."""
    return Piece(line.middle[::-1], (2 * line.middle - line.bottom)[::-1], line.thickness)


def _is_turned(
    image: UInt8[ndarray, "H W"], view: View, lines: Sequence[Piece], distance: float, confidence: Confidence
) -> bool:
    """Return whether the longest of some lines are read better upside down."""
    longest = sorted(lines, key=lambda line: -line.length)[:TRIED]
    both = []
    for some in (longest, [_reversed(line) for line in longest]):
        crops = []
        for line in some:
            try:
                crops.append(crop_line(image, _line(view, line, distance, "", ""), rotate="reading"))
            except ValueError:
                continue  # outside the page
        both.append(confidence(crops) if crops else 0.0)
    return both[1] > both[0] + SURER


def _page(
    path: Path, size: tuple[int, int], view: View, lines: Sequence[Piece], groups: Sequence[Sequence[int]], distance: float
) -> Page:
    found = []
    for number, group in enumerate(groups, start=1):
        for index in group:
            found.append(_line(view, lines[index], distance, f"line_{len(found) + 1}", f"region_{number}"))
    return Page(path, path.name, size[1], size[0], found)


def _line(view: View, line: Piece, distance: float, name: str, region: str) -> Line:
    """Return a line in the coordinates of the page."""
    up = np.array((line.step[1], -line.step[0])) / line.length * distance * line.thickness
    bottom = _simple(line.bottom, line.thickness)
    outline = np.concatenate([bottom + ABOVE * up, (bottom - BELOW * up)[::-1]])
    return Line(name, "", _inside(view.points(outline)), view.points(bottom), region)


def _inside(points: Points) -> Points:
    return points


def _simple(points: Float64[ndarray, "N 2"], thickness: float) -> Float64[ndarray, "M 2"]:
    """Return a curve with as few points as are needed."""
    simple = cv2.approxPolyDP(points.astype(np.float32)[:, None], 0.05 * thickness, closed=False)[:, 0]
    return simple.astype(np.float64)
