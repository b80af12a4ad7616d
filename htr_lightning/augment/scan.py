"""Imitate the effects of paper and scanners: ruled lines, stains, exposure, noise and compression."""

from functools import lru_cache
from typing import Annotated

import cv2
import numpy as np
from annotated_types import Interval
from jaxtyping import Float, UInt8
from numpy import ndarray

from htr_lightning.augment.transform import levels
from htr_lightning.parameters import Fraction, check_order

Quality = Annotated[int, Interval(ge=1, le=100)]


class RuledLines:
    """A transform that adds the lines of ruled or squared paper.

    Args:
        p: probability of applying the transform.
        max_darkness: maximum darkness of the lines, as a fraction of the contrast between paper and ink.
    """

    def __init__(self, p: Fraction, max_darkness: Fraction) -> None:
        self.p, self.max_darkness = p, max_darkness

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "H W"]:
        if rng.random() >= self.p:
            return image
        height, width = image.shape
        paper, ink = levels(image)
        first, rise = height * rng.uniform(0.55, 0.95), width * rng.normal(0, 0.004)
        squared = rng.random() < 0.25
        pitch = height * (rng.uniform(0.3, 0.5) if squared else rng.uniform(0.7, 1.4))
        rows = np.arange(first % pitch, height, pitch)
        rules = np.stack([np.zeros_like(rows), rows - rise, np.full_like(rows, width), rows + rise], 1)
        if squared:
            columns = np.arange(rng.uniform(0, pitch), width, pitch)
            vertical = np.stack([columns, np.zeros_like(columns), columns - rise * height / width,
                                np.full_like(columns, height)], 1)  # fmt: skip
            rules = np.concatenate([rules, vertical])
        darkness = (paper - ink) * self.max_darkness * (rng.uniform(0.1, 0.5) if squared else rng.uniform(0.1, 1))
        drawn = np.zeros_like(image)
        points = np.round(rules * 16).astype(np.int32).reshape(-1, 2, 2)
        thickness = 1 if height < 48 or squared else int(rng.integers(1, 3))
        cv2.polylines(drawn, list(points), False, max(0, round(darkness)), thickness, cv2.LINE_AA, 4)
        return cv2.subtract(image, drawn)


class Stains:
    """A transform that adds large, soft stains such as those left by damp, coffee or dirt.

    Args:
        p: probability of applying the transform.
        max_darkness: maximum darkness of the stains, as a fraction of the contrast between paper and ink.
    """

    def __init__(self, p: Fraction, max_darkness: Fraction) -> None:
        self.p, self.max_darkness = p, max_darkness

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "H W"]:
        if rng.random() >= self.p:
            return image
        height, width = image.shape
        paper, ink = levels(image)
        cell = max(1, height // 16)
        small = np.zeros((height // cell + 2, width // cell + 2), np.uint8)
        for _ in range(int(rng.integers(1, 3))):
            center = (int(rng.integers(small.shape[1])), int(rng.integers(small.shape[0])))
            axes = (int(rng.integers(4, 25)), int(rng.integers(4, 17)))
            darkness = max(0, round((paper - ink) * self.max_darkness * rng.uniform(0.2, 1)))
            cv2.ellipse(small, center, axes, float(rng.uniform(0, 180)), 0, 360, darkness, -1)
        soft = cv2.GaussianBlur(small, (0, 0), rng.uniform(0.8, 3))
        return cv2.subtract(image, cv2.resize(soft, (width, height), interpolation=cv2.INTER_CUBIC))


class BrightnessContrast:
    """A transform that changes brightness and contrast; clipping removes at most half of the contrast.

    Args:
        p: probability of applying the transform.
        brightness: maximum change in brightness, as a fraction of the grey-level range.
        contrast: maximum relative change in contrast.
    """

    def __init__(self, p: Fraction, brightness: Fraction, contrast: Fraction) -> None:
        self.p, self.brightness, self.contrast = p, brightness, contrast

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "H W"]:
        if rng.random() >= self.p:
            return image
        paper, ink = levels(image)
        middle = (paper + ink) / 2
        shift = 255 * rng.uniform(-self.brightness, self.brightness)
        shift = float(np.clip(shift, -middle, 255 - middle))  # keeps the midpoint from being clipped
        gain = 1 + rng.uniform(-self.contrast, self.contrast)
        table = ((np.arange(256) - middle) * gain + middle + shift).clip(0, 255)
        return cv2.LUT(image, table.astype(np.uint8))


class Noise:
    """A transform that adds Gaussian sensor noise.

    Args:
        p: probability of applying the transform.
        min_sd: minimum standard deviation, as a fraction of the grey-level range.
        max_sd: maximum standard deviation, as a fraction of the grey-level range.
    """

    def __init__(self, p: Fraction, min_sd: Fraction, max_sd: Fraction) -> None:
        check_order("augment.Noise", min_sd=min_sd, max_sd=max_sd)
        self.p, self.min_sd, self.max_sd = p, min_sd, max_sd

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "H W"]:
        if rng.random() >= self.p:
            return image
        bank = _normals()
        start = int(rng.integers(len(bank) // 2))
        tile = bank[start : start + image.size]
        if tile.size < image.size:
            tile = np.resize(tile, image.size)
        noise = tile.reshape(image.shape) * np.float32(255 * rng.uniform(self.min_sd, self.max_sd))
        return cv2.add(image, noise, dtype=cv2.CV_8U)


class Jpeg:
    """A transform that adds JPEG compression artefacts.

    Args:
        p: probability of applying the transform.
        min_quality: minimum JPEG quality.
        max_quality: maximum JPEG quality.
    """

    def __init__(self, p: Fraction, min_quality: Quality, max_quality: Quality) -> None:
        check_order("augment.Jpeg", min_quality=min_quality, max_quality=max_quality)
        self.p, self.min_quality, self.max_quality = p, min_quality, max_quality

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "H W"]:
        if rng.random() >= self.p:
            return image
        quality = int(rng.integers(self.min_quality, self.max_quality + 1))
        _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE)
        assert decoded is not None
        return decoded


@lru_cache(maxsize=1)
def _normals() -> Float[ndarray, " N"]:
    """Return a fixed bank of a million standard normal values, because drawing new ones would dominate the run time."""
    return np.random.default_rng(0).standard_normal(1 << 20, dtype=np.float32)
