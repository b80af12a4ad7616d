"""Vary the ink: stroke thickness, fading, blots and bleed-through."""

from typing import Annotated

import cv2
import numpy as np
from annotated_types import Interval
from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.augment.transform import ink_of, levels
from htr_lightning.parameters import Fraction

FAINT = 48  # minimum contrast between paper and ink in grey levels; fainter writing is lost in noise
Drops = Annotated[int, Interval(ge=1, le=1000)]


class Thickness:
    """A transform that makes strokes thicker or thinner by blending the image with its erosion or dilation.

    Args:
        p: probability of applying the transform.
        max_blend: maximum weight of the eroded or dilated image.
    """

    def __init__(self, p: Fraction, max_blend: Fraction) -> None:
        self.p, self.max_blend = p, max_blend

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "H W"]:
        if rng.random() >= self.p:
            return image
        kernel = np.ones((3, 3), np.uint8) if rng.random() < 0.5 else cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
        changed = cv2.erode(image, kernel) if rng.random() < 0.5 else cv2.dilate(image, kernel)
        blend = rng.uniform(0, self.max_blend)
        return cv2.addWeighted(image, 1 - blend, changed, blend, 0)


class Fade:
    """A transform that makes the ink fade in and out along the line.

    Args:
        p: probability of applying the transform.
        min_contrast: minimum fraction of the original contrast to keep; the contrast never falls below `FAINT` unless
            it was already lower.
    """

    def __init__(self, p: Fraction, min_contrast: Fraction) -> None:
        self.p, self.min_contrast = p, min_contrast

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "H W"]:
        if rng.random() >= self.p:
            return image
        height, width = image.shape
        paper, darkest = levels(image)
        ink = ink_of(image, paper)
        max_loss = min(1 - self.min_contrast, max(0.0, 1 - FAINT / max(1, paper - darkest)))
        nodes = rng.uniform(0, max_loss, (3, width // (2 * height) + 3)).astype(np.float32)
        lost = cv2.resize(nodes, (width, height), interpolation=cv2.INTER_LINEAR)
        return cv2.add(image, cv2.multiply(ink, lost, dtype=cv2.CV_8U))


class BleedThrough:
    """A transform that imitates ink showing through from the back of the page.

    The line is blended with a faint copy of itself, which is mirrored, shifted and blurred.

    Args:
        p: probability of applying the transform.
        max_contrast: maximum contrast of the copy, as a fraction of the contrast of the line.
    """

    def __init__(self, p: Fraction, max_contrast: Fraction) -> None:
        self.p, self.max_contrast = p, max_contrast

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "H W"]:
        if rng.random() >= self.p:
            return image
        height, width = image.shape
        paper, _ = levels(image)
        shift = int(rng.integers(-height // 3, height // 3 + 1)), int(rng.integers(width))
        other = ink_of(cv2.blur(np.roll(image[:, ::-1], shift, (0, 1)), (3, 3)), paper)
        return cv2.addWeighted(image, 1, other, -rng.uniform(0.3, 1) * self.max_contrast, 0)


class Blots:
    """A transform that adds small drops of ink.

    Args:
        p: probability of applying the transform.
        max_count: maximum number of drops.
        max_radius: maximum radius of a drop, as a fraction of the height.
    """

    def __init__(self, p: Fraction, max_count: Drops, max_radius: Fraction) -> None:
        self.p, self.max_count, self.max_radius = p, max_count, max_radius

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "H W"]:
        if rng.random() >= self.p:
            return image
        height, width = image.shape
        _, ink = levels(image)
        blotted = image.copy()
        for x, y, size, shape, angle in rng.random((int(rng.integers(1, self.max_count + 1)), 5)).tolist():
            radius = max(0.5, size**2 * self.max_radius * height)  # favours small drops
            axes = (round(16 * radius), round(16 * radius * (0.6 + 0.4 * shape)))
            center = (round(16 * x * width), round(16 * y * height))
            arc = np.asarray(cv2.ellipse2Poly(center, axes, round(180 * angle), 0, 360, 20))
            cv2.fillPoly(blotted, [arc], ink, cv2.LINE_AA, 4)
        return blotted
