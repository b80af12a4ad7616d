"""Random distortions of a whole batch of images, computed on the device that holds them."""

import math
from typing import Annotated

import torch
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from htr_lightning.parameters import Angle, BelowOne

Slope = Annotated[float, Interval(ge=0, le=10)]
Shift = Annotated[float, Interval(ge=0, le=1000)]
Deviation = Annotated[float, Interval(gt=0, le=1000)]


class Distort(nn.Module):
    """Random affine and elastic distortions of each image in a batch (Simard et al., 2003, "Best practices for
    convolutional neural networks applied to visual document analysis").

    The images should not be padded, since pixels moved out of an image are lost and areas left empty become paper. For
    images of 28 x 28 pixels, this layer is more than ten times as fast as `htr_lightning.augment`, which processes one
    image at a time.

    Args:
        rotation: maximum angle, in degrees.
        scale: maximum relative change in width and height.
        slant: maximum shear, in columns per row.
        shift: maximum horizontal and vertical shift, in pixels.
        elastic: standard deviation of a pixel's displacement along either axis, in pixels. A field of strength alpha
            in the paper has a standard deviation of alpha / (2 sigma sqrt(3 pi)), e.g. 1.4 pixels for the paper's
            alpha = 34 and sigma = 4.
        sigma: standard deviation of the Gaussian that smooths the elastic field, in pixels.
    """

    def __init__(
        self, rotation: Angle, scale: BelowOne, slant: Slope, shift: Shift, elastic: Shift, sigma: Deviation
    ) -> None:
        super().__init__()
        self.rotation, self.scale, self.slant, self.shift = math.radians(rotation), scale, slant, shift
        self.elastic, self.sigma = elastic, sigma

    def forward(self, images: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 H W"]:
        """Distort each image differently."""
        batch, _, height, width = images.shape
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 coordinates would be visibly inaccurate
            y, x = torch.meshgrid(_centred(height, images), _centred(width, images), indexing="ij")
            points = torch.stack([x, y], 2).view(-1, 2) @ self.matrices(batch, images)
            points = points + self.shift * _uniform(batch, 2, images)[:, None]
            points = points.view(batch, height, width, 2) + self.field(images)
            unit = 2 / images.new_tensor([width, height])  # grid_sample expects coordinates from -1 to 1
            return functional.grid_sample(images, points * unit, align_corners=False)

    def matrices(self, batch: int, like: Tensor) -> Float[Tensor, "B 2 2"]:
        """Return a random matrix per image that maps each pixel (x, y) to its source, both relative to the centre.

        Each matrix combines a rotation, a shear and a scaling.
        """
        rotation, shear, wide, high = (_uniform(batch, 4, like) * like.new_tensor(
            [self.rotation, self.slant, self.scale, self.scale])).unbind(1)  # fmt: skip
        turned = torch.stack([rotation.cos(), rotation.sin(), -rotation.sin(), rotation.cos()], 1).view(-1, 2, 2)
        rest = torch.stack([1 + wide, torch.zeros_like(wide), shear * (1 + wide), 1 + high], 1).view(-1, 2, 2)
        return turned @ rest

    def field(self, images: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B H W 2"]:
        """Return smooth random displacements in pixels, with the same standard deviation at every pixel."""
        batch, _, height, width = images.shape
        down, across = (_bumps(size, self.sigma, images) for size in (height, width))
        noise = images.new_empty(batch, 2, down.shape[1], across.shape[1]).normal_(std=self.elastic)
        return (down @ noise @ across.T).permute(0, 2, 3, 1)


def _centred(count: int, like: Tensor) -> Float[Tensor, " N"]:
    """Return unit-spaced coordinates centred on 0."""
    return torch.arange(count, device=like.device, dtype=like.dtype) - (count - 1) / 2


def _uniform(rows: int, columns: int, like: Tensor) -> Float[Tensor, "R C"]:
    return like.new_empty(rows, columns).uniform_(-1, 1)


def _bumps(size: int, sigma: float, like: Tensor) -> Float[Tensor, "N K"]:
    """Return Gaussians spaced one sigma apart, evaluated at every pixel along a side.

    Weighted with white noise, they add up to a smooth curve with variance 1, like noise that is drawn at every pixel
    and then smoothed.
    """
    centres = _centred(math.ceil(size / sigma) + 6, like) * sigma
    bumps = torch.exp(-(((_centred(size, like)[:, None] - centres) / sigma) ** 2) / 2)
    return bumps / bumps.norm(dim=1, keepdim=True)
