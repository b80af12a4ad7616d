"""Preprocess a scan into the float array that a network sees, with 1 for ink and 0 for paper.

The array of a blank image contains only zeros (see `is_blank`). This module does not import torch, so that exported
recognizers can use it.
"""

from typing import Annotated, Protocol, runtime_checkable

import cv2
import numpy as np
from annotated_types import Interval
from jaxtyping import Float32, UInt8
from numpy import ndarray
from PIL import Image

from htr_lightning.data.affine import Affine, scaling, shift
from htr_lightning.data.handwriting import measure
from htr_lightning.data.image import LEVELS, MIN_SIDE, histogram, reduce_rows, reduced_size
from htr_lightning.data.paper import clean, cleaned
from htr_lightning.data.writing import is_blank
from htr_lightning.errors import InputError
from htr_lightning.parameters import Fraction, Scaling, Side, check_order

MIN_CONTRAST = 32  # grey levels between paper and ink; a lower contrast may be noise and is not stretched fully
HEIGHT, X_HEIGHT = 32, 0.3  # rows for Latin handwriting, and its x-height as a fraction of them
SQUARE_HEIGHT, SQUARE_X_HEIGHT = 48, 0.46  # the same for scripts whose characters fill a square, such as Chinese
MIN_ROWS = 64  # minimum height of a reduced scan
INK = (255 - np.arange(256)).astype(np.float32) / 255  # ink at each grey level
Margin = Annotated[int, Interval(ge=0, le=1 << 12)]
Columns = Annotated[int, Interval(ge=1, le=1 << 20)]
Rows = Annotated[float, Interval(gt=0, le=1 << 12)]


@runtime_checkable
class Preprocess(Protocol):
    """A transform from an image of any size to an array of fixed height: `to_array(geometry(reduce(image)))`."""

    height: int  # height of the array in rows
    margin: int = 0  # blank columns on either side
    by_size: bool = True  # whether the width of the array depends only on the size of the image
    framed: bool = False  # whether all arrays have the same width

    @property
    def max_rows(self) -> int | None:
        """The maximum height after `reduce`: twice the array's height, so that augmentation does not blur the image."""
        return max(MIN_ROWS, 2 * self.height)

    def __call__(self, image: UInt8[ndarray, "H W"]) -> Float32[ndarray, "h w"]:
        """Preprocess an image; raise ValueError if it cannot be used (see `check`)."""
        return self.to_array(self.geometry(self.reduce(image)))

    def reduce(self, image: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "h w"]:
        """Scale a scan down to at most `max_rows` rows; a second application has no effect."""
        return reduce_rows(image, self.max_rows)

    def geometry(self, image: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "h w"]:
        """Apply the steps that precede augmentation; none by default."""
        return image

    def to_array(self, image: UInt8[ndarray, "H W"]) -> Float32[ndarray, "h w"]:
        """Apply the steps that follow augmentation; raise ValueError if the image cannot be used."""
        ...

    def placed(self, image: UInt8[ndarray, "H W"]) -> tuple[Float32[ndarray, "h w"], Affine]:
        """Return the array of an image, and the map from points of the array to those of the image."""
        array = self(image)
        return array, scaling(image.shape[1] / array.shape[1], image.shape[0] / array.shape[0])

    def width(self, size: tuple[int, int]) -> int:
        """Return the number of columns of the array for a scan of the given (height, width)."""
        ...

    def check(self, size: tuple[int, int]) -> None:
        """Raise ValueError if a scan of the given (height, width) cannot be used."""
        ...


class FitHeight(Preprocess):
    """Preprocessing that scales an image to a fixed height; the width varies.

    Paper (the median grey level) is mapped to 0 and the darkest 1% of pixels to 1, so that the result depends neither
    on exposure nor on ink colour.

    Args:
        height: height of the array in rows.
        margin: number of blank columns added on either side, which leave room for the frames of the first and last
            characters.
        width_scale: additional factor by which the width is multiplied; 1 keeps the aspect ratio, and so does None.
        max_width: maximum number of columns; a wider image is rejected.
        polarity: "auto" to detect and invert light ink on dark paper; "dark" to assume dark ink.
    """

    def __init__(
        self,
        height: Side,
        margin: Margin = 0,
        width_scale: Scaling | None = 1.0,
        max_width: Columns = 8192,
        polarity: str = "auto",
    ) -> None:
        self.height, self.margin, self.max_width = height, margin, max_width
        self.width_scale = 1.0 if width_scale is None else width_scale
        self.polarity = check_polarity(polarity)

    def width(self, size: tuple[int, int]) -> int:
        return self._columns(reduced_size(size, self.max_rows))

    def check(self, size: tuple[int, int]) -> None:
        """Raise ValueError if a scan of the given (height, width) is too small or too wide to be a line."""
        check_side(size)
        self._check_width(size, self.width(size))

    def to_array(self, image: UInt8[ndarray, "H W"]) -> Float32[ndarray, "h w"]:
        """Convert an image to an array; raise ValueError if it is too small or too wide to be a line."""
        size = (image.shape[0], image.shape[1])
        check_side(size)
        width = self._columns(size)
        self._check_width(size, width)
        array = np.zeros((self.height, width), dtype=np.float32)
        array[:, self.margin : width - self.margin] = _scaled(
            image, (self.height, width - 2 * self.margin), self.polarity
        )
        return array

    def placed(self, image: UInt8[ndarray, "H W"]) -> tuple[Float32[ndarray, "h w"], Affine]:
        array = self(image)
        inner = array.shape[1] - 2 * self.margin
        return array, scaling(image.shape[1] / inner, image.shape[0] / self.height) @ shift(-self.margin, 0)

    def _columns(self, size: tuple[int, int]) -> int:
        return max(1, round(size[1] * self.height * self.width_scale / size[0])) + 2 * self.margin

    def _check_width(self, size: tuple[int, int], width: int) -> None:
        if width > self.max_width:
            raise ValueError(
                f"the image ({size[1]} x {size[0]} pixels) would be {width} columns wide at height {self.height}, more "
                f"than max_width={self.max_width}; cut it into lines, or increase model.preprocess.max_width"
            )


class NormalizeHandwriting(Preprocess):
    """Preprocessing that normalises the slope, x-height, vertical position, slant and letter width of handwriting.

    Measurements are made by `htr_lightning.data.handwriting`; the fewer strokes they are based on, the weaker the
    correction. Grey levels are mapped as in `FitHeight`. Strokes that extend beyond the array are cut off.

    Args:
        height: height of the array in rows; None for that of Latin handwriting, 32.
        x_height: distance from the baseline to the top of the letter x, in rows; None for that of Latin handwriting,
            0.3 of the height. `htr_lightning.resolution` replaces None in a config before training.
        x_height_center: vertical position of the middle of the x-height band, as a fraction of `height`.
        stroke_spacing: distance between neighbouring strokes, as a fraction of the x-height.
        spacing_strength: strength of the adjustment to `stroke_spacing`; 0 keeps the aspect ratio, 1 adjusts fully.
        min_scale: minimum vertical scale relative to `FitHeight`, and minimum ratio of horizontal to vertical scale.
        max_scale: maximum of the same two ratios.
        margin, width_scale, max_width, polarity: see `FitHeight`.
    """

    by_size = False

    def __init__(
        self,
        height: Side | None,
        x_height: Rows | None,
        x_height_center: Fraction = 0.53,
        stroke_spacing: Scaling = 0.9,
        spacing_strength: Fraction = 0.8,
        min_scale: Scaling = 0.6,
        max_scale: Scaling = 3.0,
        margin: Margin = 0,
        width_scale: Scaling | None = 1.0,
        max_width: Columns = 8192,
        polarity: str = "auto",
    ) -> None:
        height = height or HEIGHT
        x_height = x_height or X_HEIGHT * height
        check_order("model.preprocess", min_scale=min_scale, max_scale=max_scale)
        check_order("model.preprocess", x_height=x_height, height=height)
        self.height, self.margin = height, margin
        self.x_height, self.x_height_center = x_height, x_height_center
        self.stroke_spacing, self.spacing_strength = stroke_spacing, spacing_strength
        self.min_scale, self.max_scale = min_scale, max_scale
        self.fit = FitHeight(height, margin, width_scale, max_width, "dark")
        self.polarity = check_polarity(polarity)

    @property
    def max_rows(self) -> int | None:
        """The maximum height after `reduce`; the same for all heights that may be chosen after lines have been read."""
        return MIN_ROWS if self.height <= SQUARE_HEIGHT else 2 * self.height

    def width(self, size: tuple[int, int]) -> int:
        """Estimate the number of columns of the array; the exact number depends on the handwriting."""
        return self.fit.width(size)

    def check(self, size: tuple[int, int]) -> None:
        """Raise ValueError if a scan of the given (height, width) is too small or too wide to be a line."""
        self.fit.check(size)

    def geometry(self, image: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "h w"]:
        """Return the normalised line at twice the array's height, so that augmentation does not blur it."""
        return self._normalized(image)[0]

    def placed(self, image: UInt8[ndarray, "H W"]) -> tuple[Float32[ndarray, "h w"], Affine]:
        reduced = self.reduce(image)
        line, placement = self._normalized(reduced)
        array, fitted = self.fit.placed(line)
        scale = scaling(image.shape[1] / reduced.shape[1], image.shape[0] / reduced.shape[0])
        return array, scale @ placement @ fitted

    def _normalized(self, image: UInt8[ndarray, "H W"]) -> tuple[UInt8[ndarray, "h w"], Affine]:
        """Return what `geometry` returns, and the map from its points to those of the image."""
        rows, columns = image.shape
        self.check((rows, columns))
        if is_blank(image):
            size = (2 * self.height, max(MIN_SIDE, 2 * self.width((rows, columns))))
            return np.full(size, 255, np.uint8), scaling(columns / size[1], rows / size[0])
        corner = (0, 0)
        if self.polarity == "auto":
            image, corner = cleaned(image, crop=True)
            rows, columns = image.shape
        shrunk = np.eye(3)
        style = measure(stretch(image))
        fit = self.height / rows
        down = fit * self._bounded(self.x_height / self.height / (style.bottom - style.top))
        across = down
        if style.stroke_spacing is not None:
            strength = self.spacing_strength * style.confidence
            across *= self._bounded((self.stroke_spacing / style.stroke_spacing) ** strength)
        down, across = 2 * down, 2 * across
        shrink = min(1.0, max(down, across))  # scale by area first, since a warp interpolates between only four pixels
        if shrink < 1:
            size = (max(MIN_SIDE, round(columns * shrink)), max(MIN_SIDE, round(rows * shrink)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            shrunk = scaling(columns / size[0], rows / size[1])
            across, down = across * columns / size[0], down * rows / size[1]
            rows, columns = size[1], size[0]
        slope, slant = style.slope, style.slant * style.confidence
        lean = slant * rows
        level = slope * columns / 2  # rows by which the left edge moves down
        middle = (style.top + style.bottom) / 2 * rows
        warp = np.array(
            [
                [across * (1 - slant * slope), across * slant, across * (slant * level + (abs(lean) - lean) / 2)],
                [-down * slope, down, 2 * self.height * self.x_height_center + down * (level - middle)],
            ]
        )
        width = max(MIN_SIDE, round(across * (columns + abs(lean))))
        paper = int(np.searchsorted(np.cumsum(histogram(image)), image.size * 0.5))
        line = cv2.warpAffine(image, warp, (width, 2 * self.height), flags=cv2.INTER_LINEAR, borderValue=paper)
        return line, shift(*corner) @ shrunk @ np.linalg.inv(np.vstack((warp, (0, 0, 1))))

    def to_array(self, image: UInt8[ndarray, "H W"]) -> Float32[ndarray, "h w"]:
        return self.fit.to_array(image)

    def _bounded(self, scale: float) -> float:
        return min(max(scale, self.min_scale), self.max_scale)


class FitFrame(Preprocess):
    """Preprocessing that scales a word or a line to a fixed size.

    Args:
        height: height of the array in rows.
        columns: width of the array in columns.
        keep_aspect: if true, the image keeps its aspect ratio and is padded with paper on the right or above and below,
            and grey levels are mapped as in `FitHeight`; if false, the image is stretched to fill the array and keeps
            its grey levels, as in the training of TrOCR (Li et al., 2021, arXiv:2109.10282, section 3.2).
        polarity: "auto" to detect and invert light ink on dark paper; "dark" to assume dark ink.
    """

    framed = True

    def __init__(self, height: Side, columns: Columns, keep_aspect: bool = True, polarity: str = "auto") -> None:
        self.height, self.columns, self.keep_aspect = height, columns, keep_aspect
        self.polarity = check_polarity(polarity)

    def width(self, size: tuple[int, int]) -> int:
        return self.columns

    def check(self, size: tuple[int, int]) -> None:
        """Raise ValueError if a scan of the given (height, width) is too small to contain a character."""
        check_side(size)

    def to_array(self, image: UInt8[ndarray, "H W"]) -> Float32[ndarray, "h w"]:
        """Convert an image to an array; raise ValueError if it is too small to contain a character."""
        self.check((image.shape[0], image.shape[1]))
        if is_blank(image):
            return np.zeros((self.height, self.columns), dtype=np.float32)
        if not self.keep_aspect:
            if self.polarity == "auto":
                image = clean(image)
            # Pillow averages along each axis that shrinks; OpenCV averages only if both axes shrink
            grey = Image.fromarray(image).resize((self.columns, self.height), Image.Resampling.BILINEAR)
            return INK[np.asarray(grey)]
        height, width, top = self._fitted(image)
        array = np.zeros((self.height, self.columns), dtype=np.float32)
        array[top : top + height, :width] = _scaled(image, (height, width), self.polarity)
        return array

    def placed(self, image: UInt8[ndarray, "H W"]) -> tuple[Float32[ndarray, "h w"], Affine]:
        height, width, top = self._fitted(image) if self.keep_aspect else (self.height, self.columns, 0)
        return self(image), scaling(image.shape[1] / width, image.shape[0] / height) @ shift(0, -top)

    def _fitted(self, image: UInt8[ndarray, "H W"]) -> tuple[int, int, int]:
        """Return the height and width of an image in the array, and the row at which it begins."""
        scale = min(self.height / image.shape[0], self.columns / image.shape[1])
        height, width = max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))
        return height, width, (self.height - height) // 2


def stretch(image: UInt8[ndarray, "H W"]) -> Float32[ndarray, "H W"]:
    """Map the grey levels of dark ink on light paper to ink: the median to 0 and the darkest 1% of pixels to 1."""
    cumulative = np.cumsum(histogram(image))
    paper, darkest = np.searchsorted(cumulative, (image.size * 0.5, image.size * 0.01)).tolist()
    scale = max(paper - darkest, MIN_CONTRAST)
    levels = ((paper - LEVELS.astype(np.float32)) / scale).clip(0, 1)
    return cv2.LUT(image, levels)


def _scaled(image: UInt8[ndarray, "H W"], size: tuple[int, int], polarity: str) -> Float32[ndarray, "h w"]:
    """Scale an image to the given (height, width) and map its grey levels to ink."""
    if is_blank(image):
        return np.zeros(size, dtype=np.float32)
    if polarity == "auto":
        image = clean(image)
    if image.shape != size:
        shrinks = image.shape[0] > size[0]
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return stretch(image)


def check_side(size: tuple[int, int]) -> None:
    """Raise ValueError if an image of the given (height, width) is too small to contain a character."""
    if min(size) < MIN_SIDE:
        raise ValueError(
            f"the image ({size[1]} x {size[0]} pixels) is too small to contain a character; use a larger scan"
        )


def check_polarity(polarity: str) -> str:
    """Return the polarity; raise InputError if it is neither "auto" nor "dark"."""
    if polarity not in ("auto", "dark"):
        raise InputError(f"model.preprocess.polarity={polarity}: expected auto or dark")
    return polarity
