"""Distortions of a whole batch of images at once, on whatever device it lies."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class Distort(nn.Module):
    """Affine maps and elastic deformation, drawn anew for every image of a batch (Simard et al., 2003, "Best practices
    for convolutional neural networks applied to visual document analysis").

    For images that fill their frame: what leaves it is lost, and paper comes in. More than ten times as fast, for 28 x
    28 pixels, as `htr_lightning.augment` is image by image.

    Args:
        turn: largest rotation in degrees, either way.
        scale: largest relative change of the width, and of the height.
        slant: largest shear, columns a row.
        shift: largest shift to either side, and up or down, in pixels.
        elastic: standard deviation of the shift of one pixel, along either axis, in pixels. The paper's field of
            strength alpha has alpha / (2 sigma sqrt(3 pi)): its 34 at sigma 4 are 1.4 pixels.
        sigma: of the Gaussian that smooths the elastic field, in pixels.
    """

    def __init__(self, turn: float, scale: float, slant: float, shift: float, elastic: float, sigma: float) -> None:
        super().__init__()
        self.turn, self.scale, self.slant, self.shift = math.radians(turn), scale, slant, shift
        self.elastic, self.sigma = elastic, sigma

    def forward(self, images: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 H W"]:
        """The images, each pulled out of shape in its own way."""
        batch, _, height, width = images.shape
        with torch.autocast(images.device.type, enabled=False):  # places in bfloat16 would be off by visible steps
            y, x = torch.meshgrid(_centred(height, images), _centred(width, images), indexing="ij")
            places = torch.stack([x, y], 2).view(-1, 2) @ self.matrices(batch, images)
            places = places + self.shift * _uniform(batch, 2, images)[:, None]
            places = places.view(batch, height, width, 2) + self.field(images)
            unit = 2 / images.new_tensor([width, height])  # grid_sample's frame reaches from -1 to 1
            return functional.grid_sample(images, places * unit, align_corners=False)

    def matrices(self, batch: int, like: Tensor) -> Float[Tensor, "B 2 2"]:
        """Where a pixel (x, y), as a row from the middle, is taken from: turned, slanted, scaled."""
        turn, slant, wide, high = (_uniform(batch, 4, like) * like.new_tensor(
            [self.turn, self.slant, self.scale, self.scale])).unbind(1)  # fmt: skip
        rotation = torch.stack([turn.cos(), turn.sin(), -turn.sin(), turn.cos()], 1).view(-1, 2, 2)
        rest = torch.stack([1 + wide, torch.zeros_like(wide), slant * (1 + wide), 1 + high], 1).view(-1, 2, 2)
        return rotation @ rest

    def field(self, images: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B H W 2"]:
        """Smooth shifts in pixels, of the same standard deviation everywhere."""
        batch, _, height, width = images.shape
        down, across = (_bumps(size, self.sigma, images) for size in (height, width))
        noise = images.new_empty(batch, 2, down.shape[1], across.shape[1]).normal_(std=self.elastic)
        return (down @ noise @ across.T).permute(0, 2, 3, 1)


def _centred(count: int, like: Tensor) -> Float[Tensor, " N"]:
    """Places one apart around 0."""
    return torch.arange(count, device=like.device, dtype=like.dtype) - (count - 1) / 2


def _uniform(rows: int, columns: int, like: Tensor) -> Float[Tensor, "R C"]:
    return like.new_empty(rows, columns).uniform_(-1, 1)


def _bumps(size: int, sigma: float, like: Tensor) -> Float[Tensor, "N K"]:
    """Gaussians one sigma apart, at every pixel of a side: white noise at their middles becomes a smooth curve of
    variance 1, as if every pixel had its own noise and the Gaussian smoothed it."""
    middles = _centred(math.ceil(size / sigma) + 6, like) * sigma
    bumps = torch.exp(-(((_centred(size, like)[:, None] - middles) / sigma) ** 2) / 2)
    return bumps / bumps.norm(dim=1, keepdim=True)
