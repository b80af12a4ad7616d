"""Augmentations of scanned lines for training: NumPy in, NumPy out, each with its own probability.

Every transform takes a line and the generator that is its only source of randomness, and returns a new line; its input
is left unchanged. Lines stay legible: only `Margins` and `Scale` cut anything off, within their bounds.
"""

from htr_lightning.augment.geometry import (
    Affine,
    Elastic,
    GridDistortion,
    Margins,
    Rotate,
    Scale,
    Slant,
    Stretch,
    Warp,
    Wave,
)
from htr_lightning.augment.ink import BleedThrough, Blots, Fade, Thickness
from htr_lightning.augment.scan import BrightnessContrast, Jpeg, Noise, RuledLines, Stains
from htr_lightning.augment.transform import Compose, Transform

__all__ = [
    "Affine",
    "BleedThrough",
    "Blots",
    "BrightnessContrast",
    "Compose",
    "Elastic",
    "Fade",
    "GridDistortion",
    "Jpeg",
    "Margins",
    "Noise",
    "Rotate",
    "RuledLines",
    "Scale",
    "Slant",
    "Stains",
    "Stretch",
    "Thickness",
    "Transform",
    "Warp",
    "Wave",
]
