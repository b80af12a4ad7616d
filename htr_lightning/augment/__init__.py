"""Augment line images for training, applying each transform with its own probability.

A transform takes an image and a random generator, which is its only source of randomness, and returns an image without
modifying its input. Lines stay legible: only `Affine`, `Margins` and `Scale` crop the image, within configurable
limits. A transform that changes the size should also be `Resizing`, so that batches can be planned with little padding.
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
from htr_lightning.augment.transform import Compose, Resizing, Transform

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
    "Resizing",
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
