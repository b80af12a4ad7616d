"""From the scanned image to the float ink that a network eats: ink 1, paper 0."""

from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from numpy import ndarray
from torch import Tensor

from htr_lightning.data.handwriting import measure
from htr_lightning.data.image import LEVELS, dark_on_light, histogram, light_on_dark, shrink_to_height
from htr_lightning.errors import InputError

MIN_SIDE = 3  # pixels; nothing smaller holds a character
INK = (255 - np.arange(256)).astype(np.float32) / 255  # of a grey level
MIN_CONTRAST = 32  # grey levels between paper and ink; less is noise and is not stretched


def reduced(image: UInt8[ndarray, "H W"], height: int | None) -> UInt8[ndarray, "h w"]:
    """The image at most so many rows high, None: as it is; one that would become too narrow to be read stays, too."""
    small = image if height is None else shrink_to_height(image, height)
    return small if small.shape[1] >= MIN_SIDE else image


@runtime_checkable
class Preprocess(Protocol):
    """Turns one image of any size into ink of the network's height: `to_array(geometry(image))`."""

    by_size: bool = True  # whether the width follows from the image's size alone
    framed: bool = False  # whether every image gets the same width

    def __call__(self, image: UInt8[ndarray, "H W"]) -> Float[Tensor, "1 h w"]:
        """Raises ValueError where the image cannot be used, see `check`."""
        return self.to_array(self.geometry(image))

    def geometry(self, image: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "h w"]:
        """What is done to a scan before it is augmented for training: for most, nothing."""
        return image

    def to_array(self, image: UInt8[ndarray, "H W"]) -> Float[Tensor, "1 h w"]:
        """What is done after that."""
        ...

    def width(self, size: tuple[int, int]) -> int:
        """Columns that an image of (height, width) pixels will have."""
        ...

    def check(self, size: tuple[int, int]) -> None:
        """Raises ValueError where an image of (height, width) pixels cannot be used."""
        ...


class FitHeight(Preprocess):
    """Scale to one height, aspect kept; the network sees every width as it is.

    Paper (the median grey) becomes 0 and the darkest hundredth 1, so exposure and ink colour do not matter.

    Args:
        height: rows of the result.
        margin: columns of paper added on both sides, room for frames that read the first and last character.
        width_scale: factor on the width after scaling; 1 keeps the aspect.
        max_width: columns a line may have; a wider image is no line.
        polarity: "auto" finds light ink on dark paper and inverts it, "dark" takes ink as dark.
    """

    def __init__(
        self, height: int, margin: int = 0, width_scale: float = 1.0, max_width: int = 8192, polarity: str = "auto"
    ) -> None:
        self.height, self.margin, self.width_scale, self.max_width = height, margin, width_scale, max_width
        self.polarity = _checked(polarity)

    def width(self, size: tuple[int, int]) -> int:
        return max(1, round(size[1] * self.height * self.width_scale / size[0])) + 2 * self.margin

    def check(self, size: tuple[int, int]) -> None:
        """Raises ValueError where an image of (height, width) pixels is too small or too wide to be a line."""
        _check_side(size)
        if self.width(size) > self.max_width:
            raise ValueError(
                f"{size[1]} x {size[0]} pixels are {self.width(size)} columns at height {self.height}, more than "
                f"max_width={self.max_width}; cut it into lines, or raise model.preprocess.max_width"
            )

    def to_array(self, image: UInt8[ndarray, "H W"]) -> Float[Tensor, "1 h w"]:
        """Raises ValueError where the image is too small or too wide to be a line."""
        size = (image.shape[0], image.shape[1])
        self.check(size)
        width = self.width(size)
        ink = np.zeros((1, self.height, width), dtype=np.float32)
        ink[0, :, self.margin : width - self.margin] = _scaled(
            image, (self.height, width - 2 * self.margin), self.polarity
        )
        return torch.from_numpy(ink)


class NormalizeHandwriting(Preprocess):
    """Scale so that the core of the writing, the band of its small letters, has one height and place; letters are set
    upright and their width made even. See `htr_lightning.data.handwriting`.

    Ink is as in `FitHeight`. A stroke that reaches farther from the core than the frame is cut off.

    Args:
        height: rows of the result.
        x_height: rows of the core.
        x_height_center: row of the core's middle, as a share of the height.
        stroke_spacing: columns from stroke to stroke, as a share of the core's height.
        spacing_strength: how far the width is brought to that pace; 0 keeps the aspect, 1 goes all the way.
        min_scale: smallest scale, where that of `FitHeight` is 1; so is it of the width, where aspect kept is 1.
        max_scale: largest scale.
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
        self.height, self.x_height, self.x_height_center, self.stroke_spacing, self.spacing_strength = (
            height,
            x_height,
            x_height_center,
            stroke_spacing,
            spacing_strength,
        )
        self.min_scale, self.max_scale = min_scale, max_scale
        self.fit = FitHeight(height, margin, width_scale, max_width, "dark")
        self.polarity = _checked(polarity)

    def width(self, size: tuple[int, int]) -> int:
        """About how many columns an image of (height, width) pixels will have; that depends on its writing."""
        return self.fit.width(size)

    def check(self, size: tuple[int, int]) -> None:
        """Raises ValueError where an image of (height, width) pixels is too small or too wide to be a line."""
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

    def to_array(self, image: UInt8[ndarray, "H W"]) -> Float[Tensor, "1 h w"]:
        return self.fit(image)

    def _bounded(self, scale: float) -> float:
        return min(max(scale, self.min_scale), self.max_scale)


class FitFrame(Preprocess):
    """A word or a line scaled into a frame of fixed size, aspect kept, at its left; what it does not fill is paper.

    Args:
        height: rows of the result.
        columns: columns of the result.
        polarity: "auto" finds light ink on dark paper and inverts it, "dark" takes ink as dark.
    """

    framed = True

    def __init__(self, height: int, columns: int, polarity: str = "auto") -> None:
        self.height, self.columns = height, columns
        self.polarity = _checked(polarity)

    def width(self, size: tuple[int, int]) -> int:
        return self.columns

    def check(self, size: tuple[int, int]) -> None:
        """Raises ValueError where an image of (height, width) pixels is too small to hold a character."""
        _check_side(size)

    def to_array(self, image: UInt8[ndarray, "H W"]) -> Float[Tensor, "1 h w"]:
        """Raises ValueError where the image is too small to hold a character."""
        self.check((image.shape[0], image.shape[1]))
        scale = min(self.height / image.shape[0], self.columns / image.shape[1])
        height, width = max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))
        ink, top = np.zeros((1, self.height, self.columns), dtype=np.float32), (self.height - height) // 2
        ink[0, top : top + height, :width] = _scaled(image, (height, width), self.polarity)
        return torch.from_numpy(ink)


class FixedSize(Preprocess):
    """One character centred in a frame of fixed size, as the MNIST digits are.

    An image of exactly this size is taken as it is. Any other is brought to the form of MNIST: the paper is taken
    off, the ink's box is scaled into `box` pixels and its centre of mass put into the middle (LeCun et al., 1998,
    "Gradient-based learning applied to document recognition", section III.A).

    Args:
        height: rows of the result.
        columns: columns of the result.
        box: longest side of the ink in pixels.
        speck: a blot of less than this share of the largest one is dust; 0 keeps all, for scripts with small dots.
        polarity: "auto" finds light ink on dark paper, inverts it and takes uneven light off; "dark" takes ink as dark
            and paper as even, which holds even for a character cut so close that little paper is left.
        upright: shear the character until its rows and columns of ink are uncorrelated (the same paper's "deslanted").
    """

    framed = True

    def __init__(
        self, height: int, columns: int, box: int, speck: float = 0.05, polarity: str = "auto", upright: bool = False
    ) -> None:
        self.height, self.columns, self.box, self.speck, self.upright = height, columns, box, speck, upright
        self.polarity = _checked(polarity)

    def width(self, size: tuple[int, int]) -> int:
        return self.columns

    def check(self, size: tuple[int, int]) -> None:
        """Raises ValueError where an image of (height, width) pixels is too small to hold a character."""
        _check_side(size)

    def geometry(self, image: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "h w"]:
        """The character upright in its frame where that is asked for, so that augmentation slants it anew."""
        if not self.upright:
            return image
        return (255 - 255 * _deslanted(self._in_frame(image))).round().astype(np.uint8)

    def to_array(self, image: UInt8[ndarray, "H W"]) -> Float[Tensor, "1 h w"]:
        """Raises ValueError where the image is too small to hold a character."""
        return torch.from_numpy(self._in_frame(image)[None])

    def _in_frame(self, image: UInt8[ndarray, "H W"]) -> Float[ndarray, "h w"]:
        self.check((image.shape[0], image.shape[1]))
        if image.shape == (self.height, self.columns):
            return cv2.LUT(dark_on_light(image) if self.polarity == "auto" else image, INK)
        image = _limit_side(image, 512)
        paper_off = _unlit(dark_on_light(image)) if self.polarity == "auto" else image.max() - image
        ink = _cut_character(paper_off, self.speck)
        scale = self.box / max(ink.shape)
        size = (max(1, round(ink.shape[1] * scale)), max(1, round(ink.shape[0] * scale)))
        ink = cv2.resize(ink, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        peak = float(np.percentile(ink[ink > 0], 80)) if (ink > 0).any() else 1.0
        ink = (ink / max(peak, 1e-6)).clip(0, 1)  # shrinking makes thin strokes pale
        rows, columns = np.indices(ink.shape)
        mass = max(float(ink.sum()), 1e-6)
        row, column = float((rows * ink).sum()) / mass, float((columns * ink).sum()) / mass
        shift = np.array([[1, 0, (self.columns - 1) / 2 - column], [0, 1, (self.height - 1) / 2 - row]], np.float32)
        return cv2.warpAffine(ink.astype(np.float32), shift, (self.columns, self.height))


def _deslanted(ink: Float[ndarray, "H W"]) -> Float[ndarray, "H W"]:
    """Sheared around the row of its centre of mass so that the second moment of its rows and columns is 0."""
    moments = cv2.moments(ink)
    if moments["mu02"] < 1e-6:  # blank paper, or a single row
        return ink
    shear = min(max(moments["mu11"] / moments["mu02"], -1.0), 1.0)  # columns a row; more is no slant, but a line
    places = np.array([[1, shear, -shear * moments["m01"] / moments["m00"]], [0, 1, 0]], np.float32)
    return cv2.warpAffine(ink, places, ink.shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def stretch(image: UInt8[ndarray, "H W"], counts: Float64[ndarray, "256"] | None = None) -> Float[ndarray, "H W"]:
    """Ink in [0, 1]: the median grey is paper, the darkest hundredth is full ink; `counts`: the histogram if known."""
    cumulative = np.cumsum(histogram(image) if counts is None else counts)
    paper, darkest = np.searchsorted(cumulative, (image.size * 0.5, image.size * 0.01)).tolist()
    scale = max(paper - darkest, MIN_CONTRAST)
    levels = ((paper - LEVELS.astype(np.float32)) / scale).clip(0, 1)
    return cv2.LUT(image, levels)


def _scaled(image: UInt8[ndarray, "H W"], size: tuple[int, int], polarity: str) -> Float[ndarray, "h w"]:
    """The ink of an image at (height, width) pixels."""
    counts = histogram(image)
    if polarity == "auto" and light_on_dark(counts):
        image, counts = 255 - image, counts[::-1]
    if image.shape != size:
        shrinks = image.shape[0] > size[0]
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        counts = histogram(image)
    return stretch(image, counts)


def _check_side(size: tuple[int, int]) -> None:
    if min(size) < MIN_SIDE:
        raise ValueError(f"{size[1]} x {size[0]} pixels are too few to hold a character; scan it larger")


def _limit_side(image: UInt8[ndarray, "H W"], side: int) -> UInt8[ndarray, "h w"]:
    scale = side / max(image.shape)
    if scale >= 1:
        return image
    size = (max(MIN_SIDE, round(image.shape[1] * scale)), max(MIN_SIDE, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _checked(polarity: str) -> str:
    if polarity not in ("auto", "dark"):
        raise InputError(f"preprocess.polarity={polarity}: use auto, or dark for dark ink only")
    return polarity


def _unlit(image: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "H W"]:
    """The ink of a dark character on light, unevenly lit paper."""
    window = max(3, min(image.shape) // 2) | 1
    paper = cv2.morphologyEx(image, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (window, window)))
    return cv2.subtract(cv2.GaussianBlur(paper, (0, 0), window / 4), image)


def _cut_character(ink: UInt8[ndarray, "H W"], speck: float) -> Float[ndarray, "h w"]:
    """A character's ink cut to its box; specks of dust are left out."""
    if ink.max(initial=0) < MIN_CONTRAST // 2:
        return np.zeros((1, 1), dtype=np.float32)  # blank paper
    threshold, mask = cv2.threshold(ink, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    areas = stats[1:, cv2.CC_STAT_AREA]
    kept = np.isin(labels, 1 + np.flatnonzero(areas >= speck * areas.max())) if count > 1 else mask > 0
    around = cv2.dilate(kept.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)  # the soft edge of strokes
    rows, columns = np.flatnonzero(kept.any(1)), np.flatnonzero(kept.any(0))
    ink = np.where(around & (ink > threshold / 3), ink, 0).astype(np.float32)
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
