"""Lines cropped out of the image of their page and rotated."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from htr_lightning.data.image import read_image
from htr_lightning.data.page.baseline import reading_angle
from htr_lightning.data.page.page import Line, Page, baseline_angle, page_box
from htr_lightning.errors import InputError

ROTATE = ("deskew", "reading")
MAX_SLOPE = 45.0  # degrees; a line with a steeper baseline is vertical or upside down
MIN_SLOPE = 0.3  # degrees; rotating by less only blurs


def open_page(page: Page, image: Path) -> UInt8[ndarray, "H W"]:
    """The image of a page, checked against the size that its XML file states.

    Raises:
        InputError: the image cannot be read, or has another size.
    """
    pixels = read_image(image, (page.height, page.width))
    check_page_size(page, image, (pixels.shape[0], pixels.shape[1]))
    return pixels


def check_page_size(page: Page, image: Path, size: tuple[int, int]) -> None:
    """Raises InputError if an image of (height, width) pixels is not the one that the lines were drawn on."""
    if page.height and page.width and size != (page.height, page.width):
        raise InputError(
            f"{page.path}: drawn on {page.width} x {page.height} pixels, but {image.name} has "
            f"{size[1]} x {size[0]}; use the image that the lines were drawn on"
        )


def crop_line(image: UInt8[ndarray, "H W"], line: Line, rotate: str = "deskew") -> UInt8[ndarray, "h w"]:
    """One line out of the image of its page, rotated by `line_angle`.

    Raises:
        ValueError: the line's polygon has fewer than three points or lies off the page.
    """
    return crop_polygon(image, line.polygon, line_angle(line, rotate))


def line_angle(line: Line, rotate: str) -> float:
    """Degrees downhill by which a line is rotated when it is cropped.

    Args:
        line: with its polygon.
        rotate: "reading" rotates every line so that it reads from left to right (see `reading_angle`; a column of
            Chinese is rotated counter-clockwise); "deskew" removes slopes below 45 degrees and leaves other lines.
    """
    angle = reading_angle(line) if rotate == "reading" else baseline_angle(line.baseline)
    quarters = 90.0 * round(angle / 90)
    if abs(angle - quarters) <= MIN_SLOPE:
        angle = quarters
    return angle if rotate == "reading" or abs(angle) < MAX_SLOPE else 0.0


def crop_polygon(
    image: UInt8[ndarray, "H W"], polygon: Sequence[tuple[float, float]], angle: float = 0.0
) -> UInt8[ndarray, "h w"]:
    """The bounding box of a polygon, everything outside the polygon painted in the grey of the paper.

    Args:
        image: of the page.
        polygon: at least three corners (x, y) in pixels; a box is the polygon of its corners.
        angle: degrees by which the line runs downhill; the crop is rotated back by that angle. Quarter turns only move
            pixels.

    Raises:
        ValueError: fewer than three corners, or nothing of the polygon lies on the page.
    """
    corners = np.asarray(polygon, dtype=np.float32).reshape(-1, 2)
    if len(corners) < 3:
        raise ValueError(f"polygon of {len(corners)} points; a line needs at least 3")
    left, top, right, bottom = page_box(corners, image.shape)
    if right - left < 1 or bottom - top < 1:
        raise ValueError("polygon encloses no pixel of the page")
    if round(angle / 90):
        image, corners, angle = _turn_by_quarters(image, corners, angle)
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
    else:
        crop = image[top:bottom, left:right].copy()
    inside = np.zeros(crop.shape, dtype=np.uint8)
    cv2.fillPoly(inside, [np.round(corners - (left, top)).astype(np.int32)], 1)
    covered = inside.astype(bool)
    if not covered.any():
        raise ValueError("polygon encloses no pixel of the page")
    crop[~covered] = np.median(crop[covered])
    return crop


def _turn_by_quarters(
    image: UInt8[ndarray, "H W"], corners: Float32[ndarray, "P 2"], angle: float
) -> tuple[UInt8[ndarray, "h w"], Float32[ndarray, "P 2"], float]:
    """The surroundings of a polygon and the polygon, turned counter-clockwise by quarters; and the remaining angle."""
    quarters = round(angle / 90)
    angle -= 90 * quarters
    left, top, right, bottom = page_box(corners, image.shape)
    margin = 2 + int(abs(np.sin(np.radians(2 * angle))) * max(right - left, bottom - top))  # the rotation needs it
    x, y = max(0, left - margin), max(0, top - margin)
    image, corners = image[y : bottom + margin, x : right + margin], corners - np.array((x, y), np.float32)
    for _ in range(quarters % 4):
        corners = np.stack((corners[:, 1], image.shape[1] - corners[:, 0]), axis=1)
        image = np.rot90(image)
    return np.ascontiguousarray(image), corners, angle
