"""Crop lines from page images and rotate them."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from htr_lightning.data.affine import Affine, shift
from htr_lightning.data.image import read_image
from htr_lightning.data.page.baseline import reading_angle, wrap
from htr_lightning.data.page.page import Line, Page, page_box
from htr_lightning.errors import InputError

ROTATE = ("deskew", "reading")
MAX_SLOPE = 45.0  # degrees; a line with a steeper baseline is vertical or upside down
MIN_SLOPE = 0.3  # degrees; a smaller rotation would only blur the image


def open_page(page: Page, image: Path) -> UInt8[ndarray, "H W"]:
    """Load the image of a page and check its size against the XML file.

    Raises:
        InputError: if the image cannot be read or its size differs from that in the XML file.
    """
    pixels = read_image(image, (page.height, page.width))
    check_page_size(page, image, (pixels.shape[0], pixels.shape[1]))
    return pixels


def check_page_size(page: Page, image: Path, size: tuple[int, int]) -> None:
    """Raise InputError if the size of an image (height, width) differs from that in the page's XML file."""
    if page.height and page.width and size != (page.height, page.width):
        raise InputError(
            f"{page.path}: expected an image of {page.width} x {page.height} pixels, but {image.name} has "
            f"{size[1]} x {size[0]}; use the image on which the lines were drawn"
        )


def crop_line(image: UInt8[ndarray, "H W"], line: Line, rotate: str = "deskew") -> UInt8[ndarray, "h w"]:
    """Crop a line from the image of its page, and rotate it by `line_angle`.

    Raises:
        ValueError: if the polygon has fewer than three points or lies outside the page.
    """
    return crop_polygon(image, line.polygon, line_angle(line, rotate))


def line_angle(line: Line, rotate: str) -> float:
    """Return the angle by which a line is rotated counter-clockwise when it is cropped, in degrees.

    Args:
        line: the line, with its polygon.
        rotate: "reading" rotates each line, including columns of Chinese, so that its text runs horizontally (see
            `reading_angle`); "deskew" turns each region upright by its orientation, removes slopes below 45 degrees,
            and does not rotate other lines any further.
    """
    angle = reading_angle(line)
    if rotate == "deskew" and abs(wrap(angle + line.orientation)) >= MAX_SLOPE:
        angle = -line.orientation
    quarters = 90.0 * round(angle / 90)
    return quarters if abs(angle - quarters) <= MIN_SLOPE else angle


def crop_polygon(
    image: UInt8[ndarray, "H W"], polygon: Sequence[tuple[float, float]], angle: float = 0.0
) -> UInt8[ndarray, "h w"]:
    """Crop the bounding box of a polygon, and fill the area outside the polygon with the median grey level inside it.

    Args:
        image: image of the page.
        polygon: at least three corners (x, y) in pixels.
        angle: angle by which to rotate the crop counter-clockwise, in degrees. Multiples of 90 degrees are lossless.

    Raises:
        ValueError: if the polygon has fewer than three corners or lies outside the page.
    """
    return cut_polygon(image, polygon, angle)[0]


def cut_polygon(
    image: UInt8[ndarray, "H W"], polygon: Sequence[tuple[float, float]], angle: float = 0.0
) -> tuple[UInt8[ndarray, "h w"], Affine]:
    """Return what `crop_polygon` returns, and the map from points of the crop to those of the page."""
    to_page = np.eye(3)
    corners = np.asarray(polygon, dtype=np.float32).reshape(-1, 2)
    if len(corners) < 3:
        raise ValueError(f"expected a polygon with at least 3 points, got {len(corners)}")
    left, top, right, bottom = page_box(corners, image.shape)
    if right - left < 1 or bottom - top < 1:
        raise ValueError("polygon contains no pixels of the page")
    if round(angle / 90):
        image, corners, angle, to_page = _turn_by_quarters(image, corners, angle)
        left, top, right, bottom = page_box(corners, image.shape)
    if angle:
        box = corners.clip((left, top), (right, bottom))
        x, y = (corners.min(0) + corners.max(0)) / 2
        rotation = cv2.getRotationMatrix2D((float(x), float(y)), angle, 1.0)
        corners = corners @ rotation[:, :2].T.astype(np.float32) + rotation[:, 2].astype(np.float32)
        box = box @ rotation[:, :2].T.astype(np.float32) + rotation[:, 2].astype(np.float32)
        left, top = np.floor(box.min(0)).astype(int)
        right, bottom = np.ceil(box.max(0)).astype(int).clip((left + 1, top + 1))
        rotation[:, 2] -= (left, top)
        size = (int(right - left), int(bottom - top))
        crop = cv2.warpAffine(image, rotation, size, borderMode=cv2.BORDER_REPLICATE)
        to_page = to_page @ np.linalg.inv(np.vstack((rotation, (0, 0, 1))))
    else:
        crop = image[top:bottom, left:right].copy()
        to_page = to_page @ shift(left, top)
    inside = np.zeros(crop.shape, dtype=np.uint8)
    cv2.fillPoly(inside, [np.round(corners - (left, top)).astype(np.int32)], 1)
    covered = inside.astype(bool)
    if not covered.any():
        raise ValueError("polygon contains no pixels of the page")
    crop[~covered] = np.median(crop[covered])
    return crop, to_page


def _turn_by_quarters(
    image: UInt8[ndarray, "H W"], corners: Float32[ndarray, "P 2"], angle: float
) -> tuple[UInt8[ndarray, "h w"], Float32[ndarray, "P 2"], float, Affine]:
    """Crop an image around a polygon and rotate both by quarter turns.

    Returns:
        Both, the remaining angle, and the map from points of the crop to those of the page.
    """
    quarters = round(angle / 90)
    angle -= 90 * quarters
    left, top, right, bottom = page_box(corners, image.shape)
    # needed for the remaining rotation
    margin = 2 + int(abs(np.sin(np.radians(2 * angle))) * max(right - left, bottom - top))
    x, y = max(0, left - margin), max(0, top - margin)
    image, corners = image[y : bottom + margin, x : right + margin], corners - np.array((x, y), np.float32)
    to_page = shift(x, y)
    for _ in range(quarters % 4):
        corners = np.stack((corners[:, 1], image.shape[1] - corners[:, 0]), axis=1)
        to_page = to_page @ np.array([[0.0, -1.0, image.shape[1]], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        image = np.rot90(image)
    return np.ascontiguousarray(image), corners, angle, to_page
