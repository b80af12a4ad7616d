"""Where the ink lies: stretched, slanted, turned, bent, and cut out of its page a little otherwise."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from htr_lightning.augment.transform import levels

MIN_SIDE = 4  # pixels of a result


class Affine:
    """Stretches, slants and turns a line, and moves its edges, with paper where nothing was.

    Args:
        p: probability.
        stretch: largest relative change of the width.
        slant: standard deviation of the shear, columns a row.
        turn: standard deviation of the rotation in degrees.
        margin: largest change of the upper and lower edge, as a share of the height.
    """

    def __init__(self, p: float, stretch: float, slant: float, turn: float, margin: float) -> None:
        self.p, self.stretch, self.slant, self.turn, self.margin = p, stretch, slant, turn, margin

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "h w"]:
        if rng.random() >= self.p:
            return image
        height, width = image.shape
        stretch = 1 + rng.uniform(-self.stretch, self.stretch)
        slant = rng.normal(0, self.slant)
        turn = np.radians(rng.normal(0, self.turn)) * min(1.0, 8 * height / width)  # long lines would leave the frame
        upper, lower = rng.uniform(-self.margin, self.margin, 2) * height
        rows = max(MIN_SIDE, round(height + upper + lower))
        reach = abs(slant) * height / 2
        columns = max(MIN_SIDE, round(width * stretch + 2 * reach))
        matrix = np.array([[stretch, -slant, 0], [np.tan(turn), 1, 0]], dtype=np.float32)
        middle = matrix[:, :2] @ (width / 2, height / 2)
        matrix[:, 2] = (columns / 2 - middle[0], upper + height / 2 - middle[1])
        paper = int(np.median(image[:: max(1, height // 16), ::4]))
        return cv2.warpAffine(image, matrix, (columns, rows), borderValue=paper, borderMode=cv2.BORDER_CONSTANT)


@runtime_checkable
class Linear(Protocol):
    """A part of a `Warp` that keeps straight lines straight: (height, width) and dice to a matrix on (x, y)."""

    p: float

    def __call__(self, size: tuple[int, int], rng: np.random.Generator) -> Float[ndarray, "2 2"]: ...


@runtime_checkable
class Bend(Protocol):
    """A part of a `Warp` that adds shifts, in pixels, at the nodes of a grid of square cells over the line."""

    p: float
    reach: float  # how far it may push the edges out, as a share of the height

    def __call__(
        self, nodes: Float[ndarray, "2 R C"], height: int, cell: int, rng: np.random.Generator
    ) -> Float[ndarray, "2 R C"]: ...


class Warp:
    """Linear maps and bends, each with its own probability, in one resampling that keeps all of the line.

    Args:
        linear: `Stretch`, `Slant`, `Turn`; multiplied in this order.
        bends: `Elastic`, `Grid`, `Wave`; their shifts add up.
    """

    def __init__(self, linear: Sequence[Linear], bends: Sequence[Bend]) -> None:
        self.linear, self.bends = list(linear), list(bends)

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "h w"]:
        height, width = image.shape
        matrix = np.eye(2)
        for part in self.linear:
            if rng.random() < part.p:
                matrix = part((height, width), rng) @ matrix
        bends = [bend for bend in self.bends if rng.random() < bend.p]
        if not bends and (matrix == np.eye(2)).all():
            return image
        reach = int(np.ceil(height * sum(bend.reach for bend in bends)))
        box = np.abs(matrix) @ (width, height) + 2 * reach
        columns, rows = (max(MIN_SIDE, int(np.ceil(side - 1e-6))) for side in box)
        middle, centre = np.array([width - 1, height - 1]) / 2, np.array([columns - 1, rows - 1]) / 2
        paper, _ = levels(image)
        if not bends:
            affine = np.column_stack([matrix, centre - matrix @ middle])
            return cv2.warpAffine(image, affine, (columns, rows), borderMode=cv2.BORDER_CONSTANT, borderValue=paper)
        cell = max(2, height // 4)
        nodes = np.zeros((2, rows // cell + 2, columns // cell + 2), dtype=np.float32)
        for bend in bends:
            nodes = bend(nodes, height, cell, rng)
        back = np.linalg.inv(matrix).astype(np.float32)
        nodes = np.tensordot(back, nodes, 1)
        x = np.arange(columns, dtype=np.float32) - np.float32(centre[0])
        y = np.arange(rows, dtype=np.float32)[:, None] - np.float32(centre[1])
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


class Stretch:
    """Wider or narrower, higher or lower.

    Args:
        p: probability.
        width: largest relative change of the width.
        height: largest relative change of the height.
    """

    def __init__(self, p: float, width: float, height: float) -> None:
        self.p, self.width, self.height = p, width, height

    def __call__(self, size: tuple[int, int], rng: np.random.Generator) -> Float[ndarray, "2 2"]:
        return np.diag(1 + rng.uniform(-1, 1, 2) * (self.width, self.height))


class Slant:
    """Letters that lean to the right or to the left.

    Args:
        p: probability.
        sd: standard deviation of the shear, columns a row.
        most: largest shear.
    """

    def __init__(self, p: float, sd: float, most: float) -> None:
        self.p, self.sd, self.most = p, sd, most

    def __call__(self, size: tuple[int, int], rng: np.random.Generator) -> Float[ndarray, "2 2"]:
        return np.array([[1.0, -np.clip(rng.normal(0, self.sd), -self.most, self.most)], [0.0, 1.0]])


class Turn:
    """A line that runs uphill or downhill.

    Args:
        p: probability.
        most: largest angle in degrees, either way.
        rise: how far one end may rise above the other at most, as a share of the height; a long line is turned less,
            since its frame grows with the rise and its letters would vanish once it is brought to a fixed height.
    """

    def __init__(self, p: float, most: float, rise: float) -> None:
        self.p, self.most, self.rise = p, most, rise

    def __call__(self, size: tuple[int, int], rng: np.random.Generator) -> Float[ndarray, "2 2"]:
        height, width = size
        angle = rng.uniform(-1, 1) * min(np.radians(self.most), np.arctan(self.rise * height / width))
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


class Elastic:
    """Every place pulled a little to another side (Simard et al., 2003): a smooth random field.

    Args:
        p: probability.
        most: largest shift, as a share of the height.
    """

    def __init__(self, p: float, most: float) -> None:
        self.p, self.most, self.reach = p, most, most

    def __call__(
        self, nodes: Float[ndarray, "2 R C"], height: int, cell: int, rng: np.random.Generator
    ) -> Float[ndarray, "2 R C"]:
        field = rng.random(nodes.shape, dtype=np.float32)
        field -= 0.5
        return nodes + field * np.float32(2 * height * self.most * rng.random())


class Grid:
    """Columns and rows of cells of uneven width and height, the edges where they were.

    Args:
        p: probability.
        most: largest relative change of a cell.
    """

    def __init__(self, p: float, most: float) -> None:
        self.p, self.most, self.reach = p, most, 0.0

    def __call__(
        self, nodes: Float[ndarray, "2 R C"], height: int, cell: int, rng: np.random.Generator
    ) -> Float[ndarray, "2 R C"]:
        across = self._shift(nodes.shape[2] - 1, rng) * cell
        down = self._shift(nodes.shape[1] - 1, rng) * cell
        return nodes + np.stack(np.broadcast_arrays(across, down[:, None]))

    def _shift(self, cells: int, rng: np.random.Generator) -> Float[ndarray, " N"]:
        """Of the borders of `cells` cells in cells, 0 at both ends."""
        ends = np.zeros(cells + 1)
        ends[1:] = np.cumsum(1 + rng.uniform(-self.most, self.most, cells))
        return (ends * (cells / ends[-1]) - np.arange(cells + 1)).astype(np.float32)


class Wave:
    """A baseline that wanders up and down along the line.

    Args:
        p: probability.
        most: largest shift, as a share of the height.
    """

    def __init__(self, p: float, most: float) -> None:
        self.p, self.most, self.reach = p, most, most

    def __call__(
        self, nodes: Float[ndarray, "2 R C"], height: int, cell: int, rng: np.random.Generator
    ) -> Float[ndarray, "2 R C"]:
        columns = nodes.shape[2]
        knots = rng.uniform(-1, 1, columns // 8 + 2) * (height * self.most * rng.random())
        places = np.linspace(0, 1, columns) * (len(knots) - 1)
        left = np.minimum(places.astype(int), len(knots) - 2)
        between = (1 - np.cos(np.pi * (places - left))) / 2  # no corners at the knots
        shifted = nodes.copy()
        shifted[1] += (knots[left] * (1 - between) + knots[left + 1] * between).astype(np.float32)
        return shifted


class Edges:
    """The line cut out of its page a little higher, lower, tighter or wider.

    Args:
        p: probability.
        cut: largest share of the height that is cut off above, and the same below.
        add: largest share of the height that is added as paper above, and the same below.
    """

    def __init__(self, p: float, cut: float, add: float) -> None:
        self.p, self.cut, self.add = p, cut, add

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "h W"]:
        if rng.random() >= self.p:
            return image
        above, below = rng.uniform(-self.cut, self.add, 2) * image.shape[0]
        return frame(image, int(above), int(below), 0)  # rounded towards 0: never more than was allowed


class Scale:
    """Smaller or larger writing in its frame: paper is added all round, or rows are cut off above and below.

    Args:
        p: probability.
        least: smallest size of the writing beside its frame.
        most: largest size; above 1 a share of (1 - 1 / most) / 2 of the height is cut off on either side.
    """

    def __init__(self, p: float, least: float, most: float) -> None:
        self.p, self.least, self.most = p, least, most

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "h w"]:
        if rng.random() >= self.p:
            return image
        growth = (1 / rng.uniform(self.least, self.most) - 1) / 2
        rows, columns = int(growth * image.shape[0]), int(growth * image.shape[1])
        return frame(image, rows, rows, max(0, columns))


def frame(image: UInt8[ndarray, "H W"], above: int, below: int, beside: int) -> UInt8[ndarray, "h w"]:
    """Rows of paper added above and below, or cut off where negative; columns of paper added on either side."""
    if above == below == beside == 0:
        return image
    kept = image[max(0, -above) : image.shape[0] - max(0, -below)]
    border = (max(0, above), max(0, below), beside, beside)
    paper, _ = levels(image)
    return cv2.copyMakeBorder(kept, *border, cv2.BORDER_CONSTANT, value=paper)
