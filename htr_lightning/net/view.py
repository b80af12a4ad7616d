"""A line seen a little otherwise, for reading it more than once."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class View(nn.Module):
    """Ink slanted about its middle row and made less high, each column where it was; so frames stay comparable.

    View 0 is the line itself. The others spread evenly and without dice over slants of -`slant` to `slant` and heights
    of 1 - `shrink` to 1 (Roberts, 2018, "The unreasonable effectiveness of quasirandom sequences"), so the first n are
    the same for any count of views. A line is seen alike alone and in a batch.

    Args:
        number: of the view.
        slant: columns a row.
        shrink: of the height.
    """

    def __init__(self, number: int, slant: float = 0.1, shrink: float = 0.08) -> None:
        super().__init__()
        self.number = number
        self.slant = slant * (2 * _share(number, 1) - 1) if number else 0.0
        self.scale = 1 - shrink * _share(number, 2) if number else 1.0

    def forward(self, images: Float[Tensor, "B 1 H W"], widths: Int[Tensor, " B"]) -> Float[Tensor, "B 1 H W"]:
        if not self.number:
            return images
        height, columns = images.shape[2:]
        rows = torch.arange(height, device=images.device)
        middle = (height - 1) / 2
        source = (rows - middle) / self.scale + middle
        weights = (1 - (source[:, None] - rows).abs()).clamp(min=0).to(images.dtype)  # linear between two rows
        shift = (rows - middle) * self.slant
        whole = shift.floor()
        place = torch.arange(columns, device=images.device) + whole.long()[:, None]
        part = (shift - whole).to(images.dtype)[:, None]
        ink = torch.einsum("hr,bcrw->bchw", weights, images)
        ink = (1 - part) * _columns(ink, place) + part * _columns(ink, place + 1)
        inside = torch.arange(columns, device=images.device) < widths[:, None]
        return ink * inside[:, None, None, :]  # what leaves a line is not its neighbour's padding


def _columns(ink: Float[Tensor, "B 1 H W"], place: Int[Tensor, "H W"]) -> Float[Tensor, "B 1 H W"]:
    """Of every row the ink at some columns; none outside."""
    found = ink.gather(3, place.clamp(0, ink.shape[3] - 1).expand_as(ink))
    return found * ((place >= 0) & (place < ink.shape[3]))


def _share(number: int, axis: int) -> float:
    plastic = 1.32471795724474602596  # the real root of x ** 3 = x + 1
    return math.fmod(0.5 + number / plastic**axis, 1)
