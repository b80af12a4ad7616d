"""Preprocess single characters in photos, scans and MNIST images."""

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8
from numpy import ndarray

from htr_lightning.data.image import MIN_SIDE
from htr_lightning.data.paper import clean, dark_on_light
from htr_lightning.data.preprocess import INK, MIN_CONTRAST, Preprocess, check_polarity, check_side
from htr_lightning.data.writing import is_blank
from htr_lightning.parameters import Fraction, Side

MAX_SIDE = 512  # pixels to which the longer side of a photo is reduced
UNEVEN = 0.1  # see `clean`; the threshold between paper and ink is the same in the whole image
MIN_RULES = 6  # number of places where ruled or squared paper crosses the edge of an image, at least


class FixedSize(Preprocess):
    """Preprocessing that centres one character in an array of fixed size, as in MNIST.

    An image of exactly this size whose character is in place (see `is_framed`) is neither cropped nor scaled. Any other
    image is processed like the MNIST digits: the paper is removed, the bounding box of the ink is scaled to `box`
    pixels, and the centre of mass of the ink is moved to the middle of the array (LeCun et al., 1998, "Gradient-based
    learning applied to document recognition", section III.A).

    Args:
        height: height of the array in rows.
        columns: width of the array in columns.
        box: length of the longer side of the ink's bounding box, in pixels.
        min_blob: minimum area of a blob, as a fraction of the area of the largest one; smaller blobs are removed as
            dust. Use 0 for scripts with small dots.
        polarity: "auto" for photos: remove what surrounds the paper and the lines on it, correct uneven lighting and
            invert light ink on dark paper; "dark" to assume dark ink on evenly lit paper. Use "dark" for tight crops,
            which contain little paper.
        deslant: whether to shear the character until the row and column coordinates of its ink are uncorrelated, as in
            the "deslanted" images of LeCun et al.
    """

    framed = True
    max_rows: int | None = None  # a character may cover only a small part of a photo

    def __init__(
        self,
        height: Side,
        columns: Side,
        box: Side,
        min_blob: Fraction = 0.05,
        polarity: str = "auto",
        deslant: bool = False,
    ) -> None:
        self.height, self.columns, self.box, self.min_blob, self.deslant = height, columns, box, min_blob, deslant
        self.polarity = check_polarity(polarity)

    def width(self, size: tuple[int, int]) -> int:
        return self.columns

    def check(self, size: tuple[int, int]) -> None:
        """Raise ValueError if a scan of the given (height, width) is too small to contain a character."""
        check_side(size)

    def geometry(self, image: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "h w"]:
        """Deslant the character if requested, before augmentation slants it at random."""
        if not self.deslant:
            return image
        return (255 - 255 * deslant(self.to_array(image))).round().astype(np.uint8)

    def to_array(self, image: UInt8[ndarray, "H W"]) -> Float32[ndarray, "h w"]:
        """Convert an image to an array; raise ValueError if it is too small to contain a character."""
        self.check((image.shape[0], image.shape[1]))
        auto = self.polarity == "auto"
        if image.shape == (self.height, self.columns):
            upright = dark_on_light(image) if auto else image
            if is_framed(255 - upright, self.box):
                return cv2.LUT(upright, INK)
        image = limit_side(image, MAX_SIDE, MIN_SIDE)
        if is_blank(image):
            return np.zeros((self.height, self.columns), dtype=np.float32)
        if auto:
            image = clean(image, UNEVEN, crop=True)
        ink = find_character(image.max() - image, self.min_blob, MIN_CONTRAST // 2, ruled=auto)
        scale = self.box / max(ink.shape)
        size = (max(1, round(ink.shape[1] * scale)), max(1, round(ink.shape[0] * scale)))
        ink = cv2.resize(ink, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        peak = float(np.percentile(ink[ink > 0], 80)) if (ink > 0).any() else 1.0
        ink = (ink / max(peak, 1e-6)).clip(0, 1)  # shrinking fades thin strokes
        rows, columns = np.indices(ink.shape)
        mass = max(float(ink.sum()), 1e-6)
        row, column = float((rows * ink).sum()) / mass, float((columns * ink).sum()) / mass
        shift = np.array([[1, 0, (self.columns - 1) / 2 - column], [0, 1, (self.height - 1) / 2 - row]], np.float32)
        return cv2.warpAffine(ink.astype(np.float32), shift, (self.columns, self.height))


def is_framed(ink: UInt8[ndarray, "H W"], box: int) -> bool:
    """Return whether the ink on white paper already has the size and the position of a character in its data set.

    In MNIST, the longer side of the ink is `box` pixels and its centre of mass is in the middle. In EMNIST and KMNIST,
    characters are larger, and centred by their bounding box or extend to the edges.
    """
    if np.median(ink) or not ink.any():
        return False
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    size = max(np.ptp(rows), np.ptp(columns)) + 1
    middle = (ink.shape[0] - 1) / 2, (ink.shape[1] - 1) / 2
    if size > box:
        ends = np.array([(rows[0], columns[0]), (rows[-1], columns[-1])])
        at_edge = ends[0] == 0, ends[1] == np.subtract(ink.shape, 1)
        return bool(np.any(at_edge) or (abs(ends.mean(0) - middle) <= 1).all())
    moments = cv2.moments(ink)
    row, column = moments["m01"] / moments["m00"], moments["m10"] / moments["m00"]
    return bool(size >= 0.9 * box and max(abs(row - middle[0]), abs(column - middle[1])) <= 1.1)


def deslant(ink: Float32[ndarray, "H W"]) -> Float32[ndarray, "H W"]:
    """Shear ink about the row of its centre of mass until the covariance of its row and column coordinates is 0."""
    moments = cv2.moments(ink)
    if moments["mu02"] < 1e-6:  # blank, or a single row
        return ink
    # columns per row; a larger shear indicates a diagonal stroke rather than slanted writing
    shear = min(max(moments["mu11"] / moments["mu02"], -1.0), 1.0)
    matrix = np.array([[1, shear, -shear * moments["m01"] / moments["m00"]], [0, 1, 0]], np.float32)
    return cv2.warpAffine(ink, matrix, ink.shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def limit_side(image: UInt8[ndarray, "H W"], side: int, min_side: int) -> UInt8[ndarray, "h w"]:
    """Scale an image down so that its longer side has at most `side` pixels and each side at least `min_side`."""
    scale = side / max(image.shape)
    if scale >= 1:
        return image
    size = (max(min_side, round(image.shape[1] * scale)), max(min_side, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def find_character(ink: UInt8[ndarray, "H W"], min_blob: float, min_level: int, ruled: bool) -> Float32[ndarray, "h w"]:
    """Crop an image to the bounding box of its character and remove dust; return one zero pixel for a blank image.

    Args:
        ink: ink levels, 0 for paper.
        min_blob: minimum area of a blob, as a fraction of the area of the largest one; smaller blobs are dust.
        min_level: minimum value of the highest ink level; an image with a lower maximum is blank.
        ruled: whether to remove the lines of ruled or squared paper if they are lighter than the ink.
    """
    if ink.max(initial=0) < min_level:
        return np.zeros((1, 1), dtype=np.float32)
    threshold, mask = cv2.threshold(ink, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    kept = _large_blobs(mask, min_blob)
    level, darker = threshold, kept
    while ruled and _edge_crossings(darker) >= MIN_RULES:
        last, (level, _) = level, cv2.threshold(ink[darker], 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        if level <= last:
            break
        darker = _large_blobs((ink > level).astype(np.uint8), min_blob)
    else:
        threshold, kept = level, darker
    # include the soft edges of strokes
    around = cv2.dilate(kept.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    rows, columns = np.flatnonzero(kept.any(1)), np.flatnonzero(kept.any(0))
    ink = np.where(around & (ink > threshold / 3), ink, 0).astype(np.float32)
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _large_blobs(mask: UInt8[ndarray, "H W"], min_blob: float) -> Bool[ndarray, "H W"]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return np.isin(labels, 1 + np.flatnonzero(areas >= min_blob * areas.max())) if count > 1 else mask > 0


def _edge_crossings(mask: Bool[ndarray, "H W"]) -> int:
    """Return the number of blobs along the edge of an image: large for ruled or squared paper."""
    edge = np.concatenate((mask[0], mask[1:, -1], mask[-1, -2::-1], mask[-2:0:-1, 0]))
    return int(np.count_nonzero(edge & ~np.roll(edge, 1)))
