"""What the pen did: thick and thin strokes, ink that fades, drops, and ink of the other side."""

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.augment.transform import ink_of, levels

FAINT = 48  # grey levels between paper and ink; less drowns in noise


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


class Fade:
    """Ink that runs out and comes back along the line.

    Args:
        p: probability.
        least: smallest share of the contrast that is left anywhere; of faint ink, no less than `FAINT` grey levels.
    """

    def __init__(self, p: float, least: float) -> None:
        self.p, self.least = p, least

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "H W"]:
        if rng.random() >= self.p:
            return image
        height, width = image.shape
        paper, darkest = levels(image)
        ink = ink_of(image, paper)
        most = min(1 - self.least, max(0.0, 1 - FAINT / max(1, paper - darkest)))
        nodes = rng.uniform(0, most, (3, width // (2 * height) + 3)).astype(np.float32)
        lost = cv2.resize(nodes, (width, height), interpolation=cv2.INTER_LINEAR)
        return cv2.add(image, cv2.multiply(ink, lost, dtype=cv2.CV_8U))


class BleedThrough:
    """Writing of the other side that shows through: the line itself, mirrored, shifted, soft and faint.

    Args:
        p: probability.
        most: largest contrast of it, as a share of the line's own.
    """

    def __init__(self, p: float, most: float) -> None:
        self.p, self.most = p, most

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "H W"]:
        if rng.random() >= self.p:
            return image
        height, width = image.shape
        paper, _ = levels(image)
        shift = int(rng.integers(-height // 3, height // 3 + 1)), int(rng.integers(width))
        other = ink_of(cv2.blur(np.roll(image[:, ::-1], shift, (0, 1)), (3, 3)), paper)
        return cv2.addWeighted(image, 1, other, -rng.uniform(0.3, 1) * self.most, 0)


class Blots:
    """Small drops of ink.

    Args:
        p: probability.
        most: largest count of them.
        size: largest radius, as a share of the height.
    """

    def __init__(self, p: float, most: int, size: float) -> None:
        self.p, self.most, self.size = p, most, size

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "H W"]:
        if rng.random() >= self.p:
            return image
        height, width = image.shape
        _, ink = levels(image)
        blotted = image.copy()
        for x, y, size, shape, turn in rng.random((int(rng.integers(1, self.most + 1)), 5)).tolist():
            radius = max(0.5, size**2 * self.size * height)  # small ones are more frequent
            axes = (round(16 * radius), round(16 * radius * (0.6 + 0.4 * shape)))
            centre = (round(16 * x * width), round(16 * y * height))
            arc = np.asarray(cv2.ellipse2Poly(centre, axes, round(180 * turn), 0, 360, 20))
            cv2.fillPoly(blotted, [arc], ink, cv2.LINE_AA, 4)
        return blotted
