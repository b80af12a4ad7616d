"""Distortions of scanned lines for training: numpy in, numpy out, each with its own probability."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

Transform = Callable[[UInt8[ndarray, "H W"], np.random.Generator], UInt8[ndarray, "h w"]]


class Compose:
    """One transform after the other; none of them is no augmentation."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "h w"]:
        for transform in self.transforms:
            image = transform(image, rng)
        return image


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
        rows = max(4, round(height + upper + lower))
        reach = abs(slant) * height / 2
        columns = max(4, round(width * stretch + 2 * reach))
        matrix = np.array([[stretch, -slant, 0], [np.tan(turn), 1, 0]], dtype=np.float32)
        middle = matrix[:, :2] @ (width / 2, height / 2)
        matrix[:, 2] = (columns / 2 - middle[0], upper + height / 2 - middle[1])
        paper = int(np.median(image[:: max(1, height // 16), ::4]))
        return cv2.warpAffine(image, matrix, (columns, rows), borderValue=paper, borderMode=cv2.BORDER_CONSTANT)


class Thickness:
    """Makes strokes thicker or thinner by erosion or dilation, mixed with the original.

    Args:
        p: probability.
        most: largest share of the changed image in the mixture.
    """

    def __init__(self, p: float, most: float) -> None:
        self.p, self.most = p, most

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "H W"]:
        if rng.random() >= self.p:
            return image
        kernel = np.ones((3, 3), np.uint8) if rng.random() < 0.5 else cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
        changed = cv2.erode(image, kernel) if rng.random() < 0.5 else cv2.dilate(image, kernel)
        share = rng.uniform(0, self.most)
        return cv2.addWeighted(image, 1 - share, changed, share, 0)
