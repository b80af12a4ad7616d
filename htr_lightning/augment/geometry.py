"""Stretch, slant, rotate, bend and crop lines."""

from collections.abc import Sequence
from typing import Annotated, Protocol, runtime_checkable

import cv2
import numpy as np
from annotated_types import Interval
from jaxtyping import Float, UInt8
from numpy import ndarray

from htr_lightning.augment.transform import levels
from htr_lightning.parameters import Angle, BelowOne, Fraction, Scaling, check_order

MIN_SIDE = 4  # minimum height and width of a transformed image in pixels
Slope = Annotated[float, Interval(ge=0, le=10)]  # columns per row
Crop = Annotated[float, Interval(ge=0, lt=0.5)]  # of the height, at each of two edges


class Affine:
    """A transform that stretches, slants and rotates a line, and moves its upper and lower edges.

    New areas are filled with the grey level of the paper.

    Args:
        p: probability of applying the transform.
        stretch: maximum relative change in width.
        slant: standard deviation of the shear, in columns per row.
        rotation: standard deviation of the rotation angle, in degrees.
        margin: maximum shift of the upper and lower edges, as a fraction of the height.
    """

    def __init__(self, p: Fraction, stretch: BelowOne, slant: Slope, rotation: Angle, margin: Crop) -> None:
        self.p, self.stretch, self.slant, self.rotation, self.margin = p, stretch, slant, rotation, margin

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "h w"]:
        drawn = self._draw(image.shape, rng)
        if drawn is None:
            return image
        matrix, (rows, columns) = drawn
        paper = int(np.median(image[:: max(1, len(image) // 16), ::4]))
        return cv2.warpAffine(image, matrix, (columns, rows), borderValue=paper, borderMode=cv2.BORDER_CONSTANT)

    def size_after(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        """See `Resizing`."""
        drawn = self._draw(size, rng)
        return size if drawn is None else drawn[1]

    def _draw(
        self, size: tuple[int, ...], rng: np.random.Generator
    ) -> tuple[Float[ndarray, "2 3"], tuple[int, int]] | None:
        """Return a random map and the (height, width) of its result; None to leave the image as it is."""
        if rng.random() >= self.p:
            return None
        height, width = size
        stretch = 1 + rng.uniform(-self.stretch, self.stretch)
        slant = rng.normal(0, self.slant)
        flatter = min(1.0, 8 * height / width)  # otherwise, long lines would leave the frame
        angle = np.radians(rng.normal(0, self.rotation)) * flatter
        upper, lower = rng.uniform(-self.margin, self.margin, 2) * height
        rows = max(MIN_SIDE, round(height + upper + lower))
        reach = abs(slant) * height / 2
        columns = max(MIN_SIDE, round(width * stretch + 2 * reach))
        matrix = np.array([[stretch, -slant, 0], [np.tan(angle), 1, 0]], dtype=np.float32)
        middle = matrix[:, :2] @ (width / 2, height / 2)
        matrix[:, 2] = (columns / 2 - middle[0], upper + height / 2 - middle[1])
        return matrix, (rows, columns)


@runtime_checkable
class Linear(Protocol):
    """A random linear map for `Warp`, which returns a matrix acting on (x, y), given the image size (height, width)."""

    p: float

    def __call__(self, size: tuple[int, int], rng: np.random.Generator) -> Float[ndarray, "2 2"]: ...


@runtime_checkable
class Bend(Protocol):
    """A random distortion for `Warp`, which adds displacements in pixels to the nodes of a grid of square cells."""

    p: float
    reach: float  # maximum outward displacement of the edges, as a fraction of the height

    def __call__(
        self, nodes: Float[ndarray, "2 R C"], height: int, cell: int, rng: np.random.Generator
    ) -> Float[ndarray, "2 R C"]: ...


class Warp:
    """A transform that combines linear maps and distortions in a single resampling step and keeps the whole line
    in the frame.

    Args:
        linear: linear maps such as `Stretch`, `Slant` and `Rotate`, applied in the given order.
        bends: distortions such as `Elastic`, `GridDistortion` and `Wave`, whose displacements are added.
    """

    def __init__(self, linear: Sequence[Linear], bends: Sequence[Bend]) -> None:
        self.linear, self.bends = list(linear), list(bends)

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "h w"]:
        drawn = self._draw(image.shape, rng)
        if drawn is None:
            return image
        matrix, nodes, (rows, columns) = drawn
        height, width = image.shape
        middle, center = np.array([width - 1, height - 1]) / 2, np.array([columns - 1, rows - 1]) / 2
        paper, _ = levels(image)
        if nodes is None:
            affine = np.column_stack([matrix, center - matrix @ middle])
            return cv2.warpAffine(image, affine, (columns, rows), borderMode=cv2.BORDER_CONSTANT, borderValue=paper)
        back = np.linalg.inv(matrix).astype(np.float32)
        nodes = np.tensordot(back, nodes, 1)
        x = np.arange(columns, dtype=np.float32) - np.float32(center[0])
        y = np.arange(rows, dtype=np.float32)[:, None] - np.float32(center[1])
        maps = []
        for axis in range(2):
            from_ = cv2.resize(nodes[axis], (columns, rows), interpolation=cv2.INTER_CUBIC)
            from_ += back[axis, 0] * x + np.float32(middle[axis])
            from_ += back[axis, 1] * y
            maps.append(from_)
        columns_from, rows_from = maps
        return cv2.remap(
            image, columns_from, rows_from, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=paper
        )

    def size_after(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        """See `Resizing`."""
        drawn = self._draw(size, rng)
        return size if drawn is None else drawn[2]

    def _draw(
        self, size: tuple[int, ...], rng: np.random.Generator
    ) -> tuple[Float[ndarray, "2 2"], Float[ndarray, "2 R C"] | None, tuple[int, int]] | None:
        """Return a random linear map, displacements if there are any, and the (height, width) of the result.

        None to leave the image as it is.
        """
        height, width = size
        matrix = np.eye(2)
        for part in self.linear:
            if rng.random() < part.p:
                matrix = part((height, width), rng) @ matrix
        bends = [bend for bend in self.bends if rng.random() < bend.p]
        if not bends and (matrix == np.eye(2)).all():
            return None
        reach = int(np.ceil(height * sum(bend.reach for bend in bends)))
        box = np.abs(matrix) @ (width, height) + 2 * reach
        columns, rows = (max(MIN_SIDE, int(np.ceil(side - 1e-6))) for side in box)
        if not bends:
            return matrix, None, (rows, columns)
        cell = max(2, height // 4)
        nodes = np.zeros((2, rows // cell + 2, columns // cell + 2), dtype=np.float32)
        for bend in bends:
            nodes = bend(nodes, height, cell, rng)
        return matrix, nodes, (rows, columns)


class Stretch:
    """A linear map that stretches or compresses the width and the height.

    Args:
        p: probability of applying the map.
        width: maximum relative change in width.
        height: maximum relative change in height.
    """

    def __init__(self, p: Fraction, width: BelowOne, height: BelowOne) -> None:
        self.p, self.width, self.height = p, width, height

    def __call__(self, size: tuple[int, int], rng: np.random.Generator) -> Float[ndarray, "2 2"]:
        return np.diag(1 + rng.uniform(-1, 1, 2) * (self.width, self.height))


class Slant:
    """A linear map that slants letters to the right or to the left.

    Args:
        p: probability of applying the map.
        sd: standard deviation of the shear, in columns per row.
        max_shear: maximum shear, in columns per row.
    """

    def __init__(self, p: Fraction, sd: Slope, max_shear: Slope) -> None:
        self.p, self.sd, self.max_shear = p, sd, max_shear

    def __call__(self, size: tuple[int, int], rng: np.random.Generator) -> Float[ndarray, "2 2"]:
        return np.array([[1.0, -np.clip(rng.normal(0, self.sd), -self.max_shear, self.max_shear)], [0.0, 1.0]])


class Rotate:
    """A linear map that rotates the line in either direction.

    Args:
        p: probability of applying the map.
        max_angle: maximum rotation angle, in degrees.
        max_rise: maximum rise of the line from one end to the other, as a fraction of the height. This limits the
            rotation of long lines, whose letters would otherwise become tiny when the image is scaled to a fixed
            height.
    """

    def __init__(self, p: Fraction, max_angle: Angle, max_rise: Slope) -> None:
        self.p, self.max_angle, self.max_rise = p, max_angle, max_rise

    def __call__(self, size: tuple[int, int], rng: np.random.Generator) -> Float[ndarray, "2 2"]:
        height, width = size
        angle = rng.uniform(-1, 1) * min(np.radians(self.max_angle), np.arctan(self.max_rise * height / width))
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


class Elastic:
    """An elastic distortion with a smooth random displacement field (Simard et al., 2003).

    Args:
        p: probability of applying the distortion.
        max_shift: maximum displacement, as a fraction of the height.
    """

    def __init__(self, p: Fraction, max_shift: Fraction) -> None:
        self.p, self.max_shift, self.reach = p, max_shift, max_shift

    def __call__(
        self, nodes: Float[ndarray, "2 R C"], height: int, cell: int, rng: np.random.Generator
    ) -> Float[ndarray, "2 R C"]:
        field = rng.random(nodes.shape, dtype=np.float32)
        field -= 0.5
        return nodes + field * np.float32(2 * height * self.max_shift * rng.random())


class GridDistortion:
    """A distortion that varies the widths of columns and the heights of rows in a grid, keeping the edges in place.

    Args:
        p: probability of applying the distortion.
        max_change: maximum relative change in the width or height of a cell.
    """

    def __init__(self, p: Fraction, max_change: BelowOne) -> None:
        self.p, self.max_change, self.reach = p, max_change, 0.0

    def __call__(
        self, nodes: Float[ndarray, "2 R C"], height: int, cell: int, rng: np.random.Generator
    ) -> Float[ndarray, "2 R C"]:
        across = self._shift(nodes.shape[2] - 1, rng) * cell
        down = self._shift(nodes.shape[1] - 1, rng) * cell
        return nodes + np.stack(np.broadcast_arrays(across, down[:, None]))

    def _shift(self, cells: int, rng: np.random.Generator) -> Float[ndarray, " N"]:
        """Return the displacements of the cell borders as multiples of the cell size; they are 0 at both ends."""
        ends = np.zeros(cells + 1)
        ends[1:] = np.cumsum(1 + rng.uniform(-self.max_change, self.max_change, cells))
        return (ends * (cells / ends[-1]) - np.arange(cells + 1)).astype(np.float32)


class Wave:
    """A distortion that bends the baseline up and down.

    Args:
        p: probability of applying the distortion.
        max_shift: maximum displacement, as a fraction of the height.
    """

    def __init__(self, p: Fraction, max_shift: Fraction) -> None:
        self.p, self.max_shift, self.reach = p, max_shift, max_shift

    def __call__(
        self, nodes: Float[ndarray, "2 R C"], height: int, cell: int, rng: np.random.Generator
    ) -> Float[ndarray, "2 R C"]:
        columns = nodes.shape[2]
        knots = rng.uniform(-1, 1, columns // 8 + 2) * (height * self.max_shift * rng.random())
        positions = np.linspace(0, 1, columns) * (len(knots) - 1)
        left = np.minimum(positions.astype(int), len(knots) - 2)
        between = (1 - np.cos(np.pi * (positions - left))) / 2  # no corners at the knots
        shifted = nodes.copy()
        shifted[1] += (knots[left] * (1 - between) + knots[left + 1] * between).astype(np.float32)
        return shifted


class Margins:
    """A transform that crops or pads the line at the top and bottom, imitating variation in line segmentation.

    Args:
        p: probability of applying the transform.
        max_crop: maximum fraction of the height to crop at each of the two edges.
        max_pad: maximum fraction of the height to add at each of the two edges.
    """

    def __init__(self, p: Fraction, max_crop: Crop, max_pad: Fraction) -> None:
        self.p, self.max_crop, self.max_pad = p, max_crop, max_pad

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "h W"]:
        return frame(image, *self._draw(len(image), rng), 0)

    def size_after(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        """See `Resizing`."""
        return size[0] + sum(self._draw(size[0], rng)), size[1]

    def _draw(self, height: int, rng: np.random.Generator) -> tuple[int, int]:
        """Return how many rows to add above and below; negative numbers remove rows."""
        if rng.random() >= self.p:
            return 0, 0
        above, below = rng.uniform(-self.max_crop, self.max_pad, 2) * height
        return int(above), int(below)  # rounds towards 0, which respects the limits


class Scale:
    """A transform that changes the size of the writing relative to the frame by padding or cropping the image.

    Args:
        p: probability of applying the transform.
        min_scale: minimum scale; values below 1 add paper on all sides.
        max_scale: maximum scale; values above 1 crop up to (1 - 1 / max_scale) / 2 of the height at the top and bottom.
    """

    def __init__(self, p: Fraction, min_scale: Scaling, max_scale: Scaling) -> None:
        check_order("augment.Scale", min_scale=min_scale, max_scale=max_scale)
        self.p, self.min_scale, self.max_scale = p, min_scale, max_scale

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "h w"]:
        rows, columns = self._draw(image.shape, rng)
        return frame(image, rows, rows, columns)

    def size_after(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        """See `Resizing`."""
        rows, columns = self._draw(size, rng)
        return size[0] + 2 * rows, size[1] + 2 * columns

    def _draw(self, size: tuple[int, ...], rng: np.random.Generator) -> tuple[int, int]:
        """Return how many rows to add above and below, negative to remove them, and how many columns on each side."""
        if rng.random() >= self.p:
            return 0, 0
        growth = (1 / rng.uniform(self.min_scale, self.max_scale) - 1) / 2
        return int(growth * size[0]), max(0, int(growth * size[1]))


def frame(image: UInt8[ndarray, "H W"], above: int, below: int, beside: int) -> UInt8[ndarray, "h w"]:
    """Add rows of paper above and below (negative numbers remove rows) and columns of paper on both sides."""
    if above == below == beside == 0:
        return image
    kept = image[max(0, -above) : image.shape[0] - max(0, -below)]
    border = (max(0, above), max(0, below), beside, beside)
    paper, _ = levels(image)
    return cv2.copyMakeBorder(kept, *border, cv2.BORDER_CONSTANT, value=paper)
