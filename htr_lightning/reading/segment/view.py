"""Views of a page: a sheet of paper cut out of a photo, straightened, turned upright and reduced."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray

from htr_lightning.data.paper import dark_on_light, find_paper, thumbnail
from htr_lightning.data.page.page import Points

MULTIPLE = 32  # the sides of a view are multiples of this, as the detector needs
FILLED = 0.93  # minimum area of the paper relative to its four corners
MIN_CORNER, MAX_CORNER = 50, 130  # angles of a sheet in a photo, in degrees


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
    small = dark_on_light(small)
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
    return View(drawn, np.linalg.inv(to_view))


def find_sheet(image: UInt8[ndarray, "H W"]) -> Float64[ndarray, "4 2"] | None:
    """Return the corners of a sheet of paper on a darker surface, clockwise from the upper left one, if there is one."""
    paper = find_paper(image, thumbnail(image))
    if paper is None:
        return None
    (outline, *_), _ = cv2.findContours(paper, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = polygon = cv2.convexHull(outline)
    tolerance = 1.0
    while len(polygon) > 4:
        tolerance *= 1.1
        polygon = cv2.approxPolyDP(hull, tolerance, True)
    if len(polygon) < 4 or cv2.contourArea(polygon) * FILLED > cv2.contourArea(outline):
        return None
    corners = polygon[:, 0].astype(np.float64)
    corners = corners[np.argsort(np.arctan2(*(corners - corners.mean(0)).T[::-1]))]  # clockwise, since y points down
    corners = np.roll(corners, -int(np.argmin(corners.sum(1))), axis=0)
    sides = np.roll(corners, -1, axis=0) - corners
    ahead = np.degrees(np.arctan2(*sides.T[::-1]))
    inner = 180 - (np.roll(ahead, -1) - ahead) % 360
    if inner.min() < MIN_CORNER or inner.max() > MAX_CORNER:
        return None
    scale = np.array(image.shape[::-1]) / paper.shape[::-1]
    return (corners + 0.5) * scale


def _size(corners: Float64[ndarray, "4 2"]) -> tuple[int, int]:
    """Return the (width, height) of a sheet, the longer one of opposite sides."""
    sides = np.hypot(*(np.roll(corners, -1, axis=0) - corners).T)
    return max(1, round(max(sides[0], sides[2]))), max(1, round(max(sides[1], sides[3])))


def _homography(corners: Float64[ndarray, "4 2"], width: int, height: int) -> Float64[ndarray, "3 3"]:
    flat = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    return cv2.getPerspectiveTransform(corners.astype(np.float32), flat)
