"""From a scan to the float array that a network sees: ink 1, paper 0. No torch: exported recognizers use it as well."""

from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8
from numpy import ndarray
from PIL import Image

from htr_lightning.data.handwriting import measure
from htr_lightning.data.image import LEVELS, dark_on_light, histogram, light_on_dark, shrink_to_height, shrunk_size
from htr_lightning.errors import InputError

MIN_SIDE = 3  # pixels; nothing smaller holds a character
MIN_CONTRAST = 32  # grey levels between paper and ink; anything less is noise and is not stretched
MIN_ROWS = 64  # a scan is never reduced to fewer
INK = (255 - np.arange(256)).astype(np.float32) / 255  # of a grey level


def reduce_rows(image: UInt8[ndarray, "H W"], rows: int | None) -> UInt8[ndarray, "h w"]:
    """The image with at most `rows` rows (None: any number); one that would become too narrow to read stays as it is.

    Pixels are averaged by area and the aspect ratio is kept.
    """
    if reduced_size((image.shape[0], image.shape[1]), rows) == image.shape:
        return image
    assert rows is not None
    return shrink_to_height(image, rows)


def reduced_size(size: tuple[int, int], rows: int | None) -> tuple[int, int]:
    """The (height, width) that `reduce_rows` makes of an image of this (height, width)."""
    small = size if rows is None else shrunk_size(size, rows)
    return small if small[1] >= MIN_SIDE else size


@runtime_checkable
class Preprocess(Protocol):
    """Turns an image of any size into an array of the network's height: `to_array(geometry(reduce(image)))`."""

    height: int  # rows of the array
    by_size: bool = True  # whether the width follows from the image's size alone
    framed: bool = False  # whether every array has the same width

    @property
    def max_rows(self) -> int | None:
        """Rows to which `reduce` brings a taller scan: twice the network's, so that augmentation does not blur it."""
        return max(MIN_ROWS, 2 * self.height)

    def __call__(self, image: UInt8[ndarray, "H W"]) -> Float32[ndarray, "h w"]:
        """Raises ValueError if the image cannot be used, see `check`."""
        return self.to_array(self.geometry(self.reduce(image)))

    def reduce(self, image: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "h w"]:
        """A scan with no more rows than are needed; reducing it again changes nothing."""
        return reduce_rows(image, self.max_rows)

    def geometry(self, image: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "h w"]:
        """What comes before augmentation: nothing by default."""
        return image

    def to_array(self, image: UInt8[ndarray, "H W"]) -> Float32[ndarray, "h w"]:
        """What comes after augmentation. Raises ValueError if the image cannot be used."""
        ...

    def width(self, size: tuple[int, int]) -> int:
        """Columns of the array that a scan of (height, width) pixels becomes."""
        ...

    def check(self, size: tuple[int, int]) -> None:
        """Raises ValueError if a scan of (height, width) pixels cannot be used."""
        ...


class FitHeight(Preprocess):
    """Scales an image to one height, keeping its aspect ratio; the network sees lines of any width.

    Paper (the median grey) becomes 0 and the darkest hundredth 1, so that neither exposure nor ink colour matters.

    Args:
        height: rows of the array.
        margin: columns of paper added on both sides: room for the frames that read the first and last character.
        width_scale: factor on the width after scaling; 1 keeps the aspect ratio.
        max_width: columns that a line may have; a wider image is not a line.
        polarity: "auto" detects light ink on dark paper and inverts it; "dark" takes ink to be dark.
    """

    def __init__(
        self, height: int, margin: int = 0, width_scale: float = 1.0, max_width: int = 8192, polarity: str = "auto"
    ) -> None:
        self.height, self.margin, self.width_scale, self.max_width = height, margin, width_scale, max_width
        self.polarity = check_polarity(polarity)

    def width(self, size: tuple[int, int]) -> int:
        return self._columns(reduced_size(size, self.max_rows))

    def check(self, size: tuple[int, int]) -> None:
        """Raises ValueError if a scan of (height, width) pixels is too small or too wide to be a line."""
        check_side(size)
        self._check_width(size, self.width(size))

    def to_array(self, image: UInt8[ndarray, "H W"]) -> Float32[ndarray, "h w"]:
        """Raises ValueError if the image is too small or too wide to be a line."""
        size = (image.shape[0], image.shape[1])
        check_side(size)
        width = self._columns(size)
        self._check_width(size, width)
        array = np.zeros((self.height, width), dtype=np.float32)
        array[:, self.margin : width - self.margin] = _scaled(
            image, (self.height, width - 2 * self.margin), self.polarity
        )
        return array

    def _columns(self, size: tuple[int, int]) -> int:
        return max(1, round(size[1] * self.height * self.width_scale / size[0])) + 2 * self.margin

    def _check_width(self, size: tuple[int, int], width: int) -> None:
        if width > self.max_width:
            raise ValueError(
                f"{size[1]} x {size[0]} pixels are {width} columns at height {self.height}, more than "
                f"max_width={self.max_width}; cut it into lines, or raise model.preprocess.max_width"
            )


class NormalizeHandwriting(Preprocess):
    """Scales an image so that the x-height of the writing has one size and position, removes the slant and evens out
    the width of the letters. See `htr_lightning.data.handwriting`.

    Grey levels are mapped as in `FitHeight`. Strokes that reach beyond the frame are cut off.

    Args:
        height: rows of the array.
        x_height: rows from the base line to the top of the small letters.
        x_height_center: row of the middle between these two, as a fraction of the height.
        stroke_spacing: columns from stroke to stroke, as a fraction of the x-height.
        spacing_strength: how far the width is adjusted to that spacing: 0 keeps the aspect, 1 goes all the way.
        min_scale: smallest scale relative to that of `FitHeight`, and smallest width relative to the kept aspect.
        max_scale: largest of both.
        margin, width_scale, max_width, polarity: as in `FitHeight`.
    """

    by_size = False

    def __init__(
        self,
        height: int,
        x_height: float,
        x_height_center: float = 0.53,
        stroke_spacing: float = 0.9,
        spacing_strength: float = 0.8,
        min_scale: float = 0.6,
        max_scale: float = 1.7,
        margin: int = 0,
        width_scale: float = 1.0,
        max_width: int = 8192,
        polarity: str = "auto",
    ) -> None:
        self.height, self.x_height, self.x_height_center = height, x_height, x_height_center
        self.stroke_spacing, self.spacing_strength = stroke_spacing, spacing_strength
        self.min_scale, self.max_scale = min_scale, max_scale
        self.fit = FitHeight(height, margin, width_scale, max_width, "dark")
        self.polarity = check_polarity(polarity)

    def width(self, size: tuple[int, int]) -> int:
        """An estimate of the columns of the array: the exact number depends on the writing."""
        return self.fit.width(size)

    def check(self, size: tuple[int, int]) -> None:
        """Raises ValueError if a scan of (height, width) pixels is too small or too wide to be a line."""
        self.fit.check(size)

    def geometry(self, image: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "h w"]:
        """The normalised line at twice the height, so that augmentation does not blur it."""
        rows, columns = image.shape
        self.check((rows, columns))
        if self.polarity == "auto":
            image = dark_on_light(image)
        style = measure(stretch(image))
        fit = self.height / rows
        down = fit * self._bounded(self.x_height / self.height / (style.bottom - style.top))
        across = (
            down
            if style.stroke_spacing is None
            else down * self._bounded((self.stroke_spacing / style.stroke_spacing) ** self.spacing_strength)
        )
        down, across = 2 * down, 2 * across
        shrink = min(1.0, max(down, across))  # first by area: a warp looks at four pixels only
        if shrink < 1:
            size = (max(MIN_SIDE, round(columns * shrink)), max(MIN_SIDE, round(rows * shrink)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            across, down = across * columns / size[0], down * rows / size[1]
            rows, columns = size[1], size[0]
        lean = style.slant * rows
        middle = (style.top + style.bottom) / 2 * rows
        warp = np.array(
            [
                [across, across * style.slant, across * (abs(lean) - lean) / 2],
                [0, down, 2 * self.height * self.x_height_center - down * middle],
            ]
        )
        width = max(MIN_SIDE, round(across * (columns + abs(lean))))
        paper = int(np.searchsorted(np.cumsum(histogram(image)), image.size * 0.5))
        return cv2.warpAffine(image, warp, (width, 2 * self.height), flags=cv2.INTER_LINEAR, borderValue=paper)

    def to_array(self, image: UInt8[ndarray, "H W"]) -> Float32[ndarray, "h w"]:
        return self.fit.to_array(image)

    def _bounded(self, scale: float) -> float:
        return min(max(scale, self.min_scale), self.max_scale)


class FitFrame(Preprocess):
    """Scales a word or a line into a frame of fixed size.

    Args:
        height: rows of the array.
        columns: columns of the array.
        keep_aspect: true: the image is at the left of the frame, the rest is paper, and grey levels are mapped as
            in `FitHeight`. False: it fills the frame whatever its aspect, with its grey levels as they are, which is
            how TrOCR was trained (Li et al., 2021, arXiv:2109.10282, section 3.2).
        polarity: "auto" detects light ink on dark paper and inverts it; "dark" takes ink to be dark.
    """

    framed = True

    def __init__(self, height: int, columns: int, keep_aspect: bool = True, polarity: str = "auto") -> None:
        self.height, self.columns, self.keep_aspect = height, columns, keep_aspect
        self.polarity = check_polarity(polarity)

    def width(self, size: tuple[int, int]) -> int:
        return self.columns

    def check(self, size: tuple[int, int]) -> None:
        """Raises ValueError if a scan of (height, width) pixels is too small to hold a character."""
        check_side(size)

    def to_array(self, image: UInt8[ndarray, "H W"]) -> Float32[ndarray, "h w"]:
        """Raises ValueError if the image is too small to hold a character."""
        self.check((image.shape[0], image.shape[1]))
        if not self.keep_aspect:
            if self.polarity == "auto":
                image = dark_on_light(image)
            # Pillow averages over all the pixels that it drops along either axis; OpenCV only where both shrink
            grey = Image.fromarray(image).resize((self.columns, self.height), Image.Resampling.BILINEAR)
            return INK[np.asarray(grey)]
        scale = min(self.height / image.shape[0], self.columns / image.shape[1])
        height, width = max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))
        array, top = np.zeros((self.height, self.columns), dtype=np.float32), (self.height - height) // 2
        array[top : top + height, :width] = _scaled(image, (height, width), self.polarity)
        return array


def stretch(image: UInt8[ndarray, "H W"], counts: Float64[ndarray, "256"] | None = None) -> Float32[ndarray, "H W"]:
    """Ink from 0 to 1: the median grey is paper, the darkest hundredth full ink; `counts`: the histogram if known."""
    cumulative = np.cumsum(histogram(image) if counts is None else counts)
    paper, darkest = np.searchsorted(cumulative, (image.size * 0.5, image.size * 0.01)).tolist()
    scale = max(paper - darkest, MIN_CONTRAST)
    levels = ((paper - LEVELS.astype(np.float32)) / scale).clip(0, 1)
    return cv2.LUT(image, levels)


def _scaled(image: UInt8[ndarray, "H W"], size: tuple[int, int], polarity: str) -> Float32[ndarray, "h w"]:
    """The ink of an image at (height, width) pixels."""
    counts = histogram(image)
    if polarity == "auto" and light_on_dark(counts):
        image, counts = 255 - image, counts[::-1]
    if image.shape != size:
        shrinks = image.shape[0] > size[0]
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        counts = histogram(image)
    return stretch(image, counts)


def check_side(size: tuple[int, int]) -> None:
    """Raises ValueError if an image of (height, width) pixels is too small to hold a character."""
    if min(size) < MIN_SIDE:
        raise ValueError(f"{size[1]} x {size[0]} pixels are too few to hold a character; scan it larger")


def check_polarity(polarity: str) -> str:
    """The polarity; raises InputError if it is neither "auto" nor "dark"."""
    if polarity not in ("auto", "dark"):
        raise InputError(f"model.preprocess.polarity={polarity}: use auto, or dark for dark ink only")
    return polarity
