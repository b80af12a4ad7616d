"""Distortions of scanned lines for training: numpy in, numpy out, each with its own probability.

Every transform takes a line and the generator that is its only dice, and gives a new line; the one handed in is left
as it is. Legibility holds: nothing but `Edges` and `Scale` cuts anything off, and these no more than they are told.
"""

from htr_lightning.augment.geometry import Affine, Edges, Elastic, Grid, Scale, Slant, Stretch, Turn, Warp, Wave
from htr_lightning.augment.ink import BleedThrough, Blots, Fade, Thickness
from htr_lightning.augment.scan import Jpeg, Light, Noise, Rules, Stains
from htr_lightning.augment.transform import Compose, Transform

__all__ = [
    "Affine",
    "BleedThrough",
    "Blots",
    "Compose",
    "Edges",
    "Elastic",
    "Fade",
    "Grid",
    "Jpeg",
    "Light",
    "Noise",
    "Rules",
    "Scale",
    "Slant",
    "Stains",
    "Stretch",
    "Thickness",
    "Transform",
    "Turn",
    "Warp",
    "Wave",
]
