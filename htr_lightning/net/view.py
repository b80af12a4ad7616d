"""Slightly modified views of a line for test-time augmentation."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class View(nn.Module):
    """A view of a line, sheared about its middle row and reduced in height; its width does not change.

    View 0 is the unmodified line. The other views use a quasirandom sequence of shears in [-`slant`, `slant`] and
    heights in [1 - `shrink`, 1] (Roberts, 2018, "The unreasonable effectiveness of quasirandom sequences"), so that the
    first n views do not depend on the number of views. A view does not depend on the other lines in the batch.

    Args:
        number: index of the view, starting at 0.
        slant: maximum shear, in columns per row.
        shrink: maximum reduction in height, as a fraction.
    """

    def __init__(self, number: int, slant: float = 0.1, shrink: float = 0.08) -> None:
        super().__init__()
        self.number = number
        self.slant = slant * (2 * _quasirandom(number, 1) - 1) if number else 0.0
        self.scale = 1 - shrink * _quasirandom(number, 2) if number else 1.0

    def forward(self, images: Float[Tensor, "B 1 H W"], widths: Int[Tensor, " B"]) -> Float[Tensor, "B 1 H W"]:
        if not self.number:
            return images
        height, columns = images.shape[2:]
        rows = torch.arange(height, device=images.device)
        middle = (height - 1) / 2
        source = (rows - middle) / self.scale + middle
        # linear interpolation between two rows
        weights = (1 - (source[:, None] - rows).abs()).clamp(min=0).to(images.dtype)
        shift = (rows - middle) * self.slant
        floor = shift.floor()
        column = torch.arange(columns, device=images.device) + floor.long()[:, None]
        fraction = (shift - floor).to(images.dtype)[:, None]
        ink = torch.einsum("hr,bcrw->bchw", weights, images)
        ink = (1 - fraction) * _columns(ink, column) + fraction * _columns(ink, column + 1)
        inside = torch.arange(columns, device=images.device) < widths[:, None]
        return ink * inside[:, None, None, :]  # ink sheared beyond the ends of a line is cut off


def _columns(ink: Float[Tensor, "B 1 H W"], column: Int[Tensor, "H W"]) -> Float[Tensor, "B 1 H W"]:
    """Return the ink of each row at the given columns; zero outside the image."""
    found = ink.gather(3, column.clamp(0, ink.shape[3] - 1).expand_as(ink))
    return found * ((column >= 0) & (column < ink.shape[3]))


def _quasirandom(number: int, axis: int) -> float:
    plastic = 1.32471795724474602596  # the real root of x ** 3 = x + 1
    return math.fmod(0.5 + number / plastic**axis, 1)
