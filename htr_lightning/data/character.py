"""One character in a photo or a scan: even light, the blob of its ink, no slant."""

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray


def deslant(ink: Float32[ndarray, "H W"]) -> Float32[ndarray, "H W"]:
    """Sheared around the row of its centre of mass until the second moment of its rows and columns is 0."""
    moments = cv2.moments(ink)
    if moments["mu02"] < 1e-6:  # blank paper, or a single row
        return ink
    shear = min(max(moments["mu11"] / moments["mu02"], -1.0), 1.0)  # columns a row; more is a diagonal, not a slant
    matrix = np.array([[1, shear, -shear * moments["m01"] / moments["m00"]], [0, 1, 0]], np.float32)
    return cv2.warpAffine(ink, matrix, ink.shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def limit_side(image: UInt8[ndarray, "H W"], side: int, min_side: int) -> UInt8[ndarray, "h w"]:
    """The image with no side longer than `side` pixels, nor shorter than `min_side` by that."""
    scale = side / max(image.shape)
    if scale >= 1:
        return image
    size = (max(min_side, round(image.shape[1] * scale)), max(min_side, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def even_light(image: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "H W"]:
    """The ink of a dark character on light, unevenly lit paper."""
    window = max(3, min(image.shape) // 2) | 1
    paper = cv2.morphologyEx(image, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (window, window)))
    return cv2.subtract(cv2.GaussianBlur(paper, (0, 0), window / 4), image)


def find_character(ink: UInt8[ndarray, "H W"], min_blob: float, min_level: int) -> Float32[ndarray, "h w"]:
    """The bounding box of a character's ink, with dust removed; a single 0 for blank paper.

    Args:
        ink: 0 is paper.
        min_blob: a blob smaller than this fraction of the largest one is dust.
        min_level: an image without a higher level is blank.
    """
    if ink.max(initial=0) < min_level:
        return np.zeros((1, 1), dtype=np.float32)
    threshold, mask = cv2.threshold(ink, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    areas = stats[1:, cv2.CC_STAT_AREA]
    kept = np.isin(labels, 1 + np.flatnonzero(areas >= min_blob * areas.max())) if count > 1 else mask > 0
    around = cv2.dilate(kept.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)  # the soft edge of strokes
    rows, columns = np.flatnonzero(kept.any(1)), np.flatnonzero(kept.any(0))
    ink = np.where(around & (ink > threshold / 3), ink, 0).astype(np.float32)
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
