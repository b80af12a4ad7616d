"""Find the lines on the image of a page, with baselines, outlines and reading order. Does not import torch."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from htr_lightning.data.page.baseline import ABOVE, BELOW, line_distance
from htr_lightning.data.page.crop import crop_line
from htr_lightning.data.page.page import Line, Page
from htr_lightning.data.writing import is_page
from htr_lightning.reading.segment.detect import detector, find_writing
from htr_lightning.reading.segment.join import join, main_angle, reading_order, stacked, typical_thickness
from htr_lightning.reading.segment.pieces import Piece, find_pieces
from htr_lightning.reading.segment.view import View, find_sheet, look

MIN_PAGE, MAX_RATIO = 600, 4  # pixels of the shorter side of a page, and maximum ratio of its sides
MIN_LINES = 3  # of a page, below each other
SIDE, MAX_SIDE = 960, 1920  # longer side of a view in pixels
MIN_THICKNESS = 9.0  # of the middle zones of letters in a view, in pixels; smaller writing is enlarged
MAX_ANGLE = 8.0  # degrees; steeper writing is turned
DISTANCE = 2.6  # typical distance of baselines in thicknesses
MIN_DISTANCE, MAX_DISTANCE = 2.2, 3.2  # bounds for the distance that an outline takes up, in thicknesses
SHRUNK = 0.8  # thicknesses by which the detector makes each end of a line shorter
TRIED = 3  # lines that are read both ways up
SURER = 0.05  # confidence by which they have to be read better upside down

Confidence = Callable[[Sequence[UInt8[ndarray, "_ _"]]], float]


def find_page(
    path: Path, image: UInt8[ndarray, "H W"], confidence: Confidence | None = None, pages: bool | None = True
) -> Page | None:
    """Return the page in an image with the lines found on it, in reading order and without text.

    Args:
        path: path of the image.
        image: image of the page, or a photo of a sheet of paper.
        confidence: mean confidence with which a recognizer reads lines, which tells whether they are upside down;
            without it, lines run from left to right, or upwards.
        pages: whether the image is known to be a page, or a line, for which the result is None. If it is not known, it
            is a page if it looks like one (see `is_page`), or if it is large and lines are found below each other.
    """
    sure = is_page(image) if pages is None else pages
    if not sure and (pages is False or detector() is None or not _is_large(image)):
        return None
    view, pieces, writing = _examine(image)
    lines = join(pieces, writing)
    if not sure and stacked(lines) < MIN_LINES:
        return None
    groups = reading_order(lines)
    distance = _distance(lines)
    found = [_line(view, line, distance) for line in lines]
    if confidence is not None and lines:
        level = [abs(line.step[1]) <= abs(line.step[0]) for line in lines]  # the others are turned apart from these
        for kind in (True, False):
            some = [index for index, one in enumerate(level) if one == kind]
            some.sort(key=lambda index: -lines[index].length)
            longest = [lines[index] for index in some[:TRIED]]
            ahead, back = ([_line(view, one, distance) for one in both] for both in (longest, map(_reversed, longest)))
            if not some or _read(image, back, confidence) <= _read(image, ahead, confidence) + SURER:
                continue
            for index in some:
                found[index] = _line(view, _reversed(lines[index]), distance)
            if kind:  # the order is that on the upright page
                corner = np.array(view.image.shape[::-1])
                groups = reading_order([_reversed(Piece(corner - a, corner - b, c)) for a, b, c in lines])
    height, width = image.shape
    order = [(index, f"region_{number}") for number, group in enumerate(groups, start=1) for index in group]
    named = [
        found[index]._replace(id=f"line_{count}", region=region) for count, (index, region) in enumerate(order, start=1)
    ]
    return Page(path, path.name, width, height, named)


def _is_large(image: UInt8[ndarray, "H W"]) -> bool:
    return min(image.shape) >= MIN_PAGE and max(image.shape) <= MAX_RATIO * min(image.shape)


def _examine(image: UInt8[ndarray, "H W"]) -> tuple[View, list[Piece], Float32[ndarray, "h w"]]:
    """Return a view of a page with large enough writing that runs from left to right, its pieces and their map."""
    sheet = find_sheet(image)
    view = look(image, SIDE, sheet)
    pieces = find_pieces(writing := find_writing(view.image))
    angle, thickness = main_angle(pieces), typical_thickness(pieces)
    angle = angle if abs(angle) > MAX_ANGLE else 0.0
    enlarge = min(MAX_SIDE / SIDE, max(1.0, MIN_THICKNESS / thickness)) if thickness else 1.0
    if angle or enlarge > 1.1:
        view = look(image, round(SIDE * enlarge), sheet, angle)
        pieces = find_pieces(writing := find_writing(view.image))
    return view, pieces, writing


def _distance(lines: Sequence[Piece]) -> float:
    """Return the distance of neighbouring baselines that outlines take up, in thicknesses of the lines."""
    distance = line_distance([Line("", "", [], [(x, y) for x, y in line.bottom.tolist()], "") for line in lines])
    if not distance:
        return DISTANCE
    return float(np.clip(distance / typical_thickness(lines), MIN_DISTANCE, MAX_DISTANCE))


def _reversed(line: Piece) -> Piece:
    """Return a line as it is when it is upside down."""
    return Piece(line.middle[::-1], (2 * line.middle - line.bottom)[::-1], line.thickness)


def _read(image: UInt8[ndarray, "H W"], lines: Sequence[Line], confidence: Confidence) -> float:
    """Return the confidence with which lines of a page are read."""
    crops = []
    for line in lines:
        try:
            crops.append(crop_line(image, line, rotate="reading"))
        except ValueError:
            continue  # outside the page
    return confidence(crops) if crops else 0.0


def _line(view: View, line: Piece, distance: float) -> Line:
    """Return a line in the coordinates of the page, with a distance of baselines in thicknesses."""
    along = line.step / line.length * line.thickness
    up = distance * np.array((along[1], -along[0]))
    bottom = cv2.approxPolyDP(line.bottom.astype(np.float32)[:, None], 0.05 * line.thickness, closed=False)[:, 0]
    bottom = bottom.astype(np.float64)
    bottom[0] -= SHRUNK * along
    bottom[-1] += SHRUNK * along
    outline = np.concatenate([bottom + ABOVE * up, (bottom - BELOW * up)[::-1]])
    return Line("", "", view.points(outline), view.points(bottom), "")
