"""Views of a page: a sheet of paper cut out of a photo, straightened, turned upright and reduced."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray

from htr_lightning.data.page.page import Points
from htr_lightning.data.paper import dark_on_light, thumbnail

MULTIPLE = 32  # the sides of a view are multiples of this, as the detector needs
PIXELS = 40_000  # of the thumbnail in which a sheet is found
STROKE = 20  # side of a picture divided by the width of the widest stroke that is not part of the surface
MIN_SHEET, MAX_SHEET = 0.15, 0.97  # bounds for the area of a sheet, as a fraction of the picture
STRAIGHT = 0.95  # minimum overlap of a sheet with the polygon of its four corners
MAX_SHADE = 0.6  # maximum grey level of the surface relative to the sheet
MARGIN = 0.03  # added around the sheet, since writing may reach its edge


class View(NamedTuple):
    """A picture of a page, or of a part of it, from which points lead back to the page."""

    image: UInt8[ndarray, "H W"]  # dark ink on light paper
    to_page: Float64[ndarray, "3 3"]  # homography

    def points(self, points: Float64[ndarray, "N 2"]) -> Points:
        """Return points of the view in the coordinates of the page, in whole pixels."""
        moved = cv2.perspectiveTransform(points[None], self.to_page)[0]
        return [(float(x), float(y)) for x, y in np.round(moved)]


def look(
    image: UInt8[ndarray, "H W"], side: int, corners: Float64[ndarray, "4 2"] | None = None, angle: float = 0.0
) -> View:
    """Return a view of a page.

    Args:
        image: image of the page.
        side: length of the longer side of the sheet in the view, unless it has fewer pixels in the image.
        corners: corners of the sheet, clockwise from the upper left one; None for the whole image.
        angle: clockwise rotation of the writing on the sheet in degrees, which is turned back.
    """
    if corners is None:
        height, width = image.shape
        flat = np.eye(3)
    else:
        width, height = _size(corners)
        flat = _homography(corners, width, height)
    scale = min(1.0, side / max(width, height))
    reduced = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = image if scale == 1 else cv2.resize(image, reduced, interpolation=cv2.INTER_AREA)
    shrink = np.diag([small.shape[1] / image.shape[1], small.shape[0] / image.shape[0], 1.0])
    grow = np.diag([scale, scale, 1.0])
    turn = cv2.getRotationMatrix2D((width * scale / 2, height * scale / 2), angle, 1.0)
    cosine, sine = np.abs(turn[0, :2])
    size = scale * np.array((width * cosine + height * sine, width * sine + height * cosine))
    columns, rows = (np.ceil(np.maximum(size, 1) / MULTIPLE).astype(int) * MULTIPLE).tolist()
    turn[:, 2] += (size - scale * np.array((width, height))) / 2
    to_view = np.vstack([turn, (0, 0, 1)]) @ grow @ flat
    level = int(np.median(small))
    drawn = cv2.warpPerspective(small, to_view @ np.linalg.inv(shrink), (columns, rows), flags=cv2.INTER_LINEAR,
                                borderMode=cv2.BORDER_CONSTANT, borderValue=level)  # fmt: skip
    return View(dark_on_light(drawn), np.linalg.inv(to_view))  # of the sheet, whatever is around it


def find_sheet(image: UInt8[ndarray, "H W"]) -> Float64[ndarray, "4 2"] | None:
    """Return the corners of a sheet of paper on a darker surface, clockwise from the upper left one, if there is one.

    In contrast to `paper.find_paper`, the surface may have a texture, since a page is much larger than a line.
    """
    small = thumbnail(image, PIXELS)
    window = np.ones((min(small.shape) // STROKE | 1,) * 2, np.uint8)
    plain = cv2.GaussianBlur(cv2.morphologyEx(small, cv2.MORPH_CLOSE, window), (3, 3), 0)  # without ink
    light = cv2.threshold(plain, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1]
    outlines, _ = cv2.findContours(
        cv2.morphologyEx(light, cv2.MORPH_OPEN, window), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    outline = max(outlines, key=cv2.contourArea, default=None)
    if outline is None or not MIN_SHEET < cv2.contourArea(outline) / small.size < MAX_SHEET:
        return None
    hull = polygon = cv2.convexHull(outline)
    tolerance = 1.0
    while len(polygon) > 4:
        tolerance *= 1.1
        polygon = cv2.approxPolyDP(hull, tolerance, True)
    sheet, straight = (cv2.fillPoly(np.zeros_like(small), [shape], 1) for shape in (outline, polygon))
    both = cv2.bitwise_or(sheet, straight)
    if len(polygon) < 4 or cv2.countNonZero(cv2.bitwise_and(sheet, straight)) < STRAIGHT * cv2.countNonZero(both):
        return None
    around = both == 0
    if not around.any() or np.percentile(plain[around], 80) > MAX_SHADE * np.median(plain[sheet > 0]):
        return None
    corners = polygon[:, 0] + 0.5
    corners = corners.mean(0) + (1 + MARGIN) * (corners - corners.mean(0))
    corners = corners[np.argsort(np.arctan2(*(corners - corners.mean(0)).T[::-1]))]  # clockwise, since y points down
    corners = np.roll(corners, -int(np.argmin(corners.sum(1))), axis=0)
    return np.asarray(corners * np.array(image.shape[::-1]) / small.shape[::-1], np.float64)


def _size(corners: Float64[ndarray, "4 2"]) -> tuple[int, int]:
    """Return the (width, height) of a sheet, the longer one of opposite sides."""
    sides = np.hypot(*(np.roll(corners, -1, axis=0) - corners).T)
    return max(1, round(max(sides[0], sides[2]))), max(1, round(max(sides[1], sides[3])))


def _homography(corners: Float64[ndarray, "4 2"], width: int, height: int) -> Float64[ndarray, "3 3"]:
    flat = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    return cv2.getPerspectiveTransform(corners.astype(np.float32), flat)
