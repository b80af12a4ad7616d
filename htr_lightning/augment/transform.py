"""Define and compose image transforms."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

Transform = Callable[[UInt8[ndarray, "H W"], np.random.Generator], UInt8[ndarray, "h w"]]


@runtime_checkable
class Resizing(Protocol):
    """A transform that changes the size of images, and tells the size of the result without computing it."""

    def size_after(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        """Return the (height, width) of the result for an image of this (height, width).

        Draws the same random numbers from `rng`, in the same order, as a call.
        """
        ...


class Compose:
    """A sequence of transforms, of which some may be sequences; an empty one returns the image unchanged."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms: list[Transform] = []
        for transform in transforms:
            self.transforms += transform.transforms if isinstance(transform, Compose) else [transform]

    def __len__(self) -> int:
        return len(self.transforms)

    def __call__(self, image: UInt8[ndarray, "H W"], rng: np.random.Generator) -> UInt8[ndarray, "h w"]:
        for transform in self.transforms:
            image = transform(image, rng)
        return image

    def size_after(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        """Return the (height, width) of an image of this size after the transforms, so that batches can be planned.

        Exact if the transforms that change the size come first, as in all configs of the package; those after one that
        is not `Resizing` are left out, since the random numbers that it draws are not known.
        """
        for transform in self.transforms:
            if not isinstance(transform, Resizing):
                break
            size = transform.size_after(size, rng)
        return size


def levels(image: UInt8[ndarray, "H W"]) -> tuple[int, int]:
    """Return the grey levels of paper and ink, estimated as the median and the 2nd percentile of sampled pixels."""
    sample = image[:: max(1, image.shape[0] // 16), :: 1 if image.shape[1] < 64 else 4].ravel()
    ink, paper = sample.size // 50, sample.size // 2
    ordered = np.partition(sample, (ink, paper))
    return int(ordered[paper]), int(ordered[ink])


def ink_of(image: UInt8[ndarray, "H W"], paper: int) -> UInt8[ndarray, "H W"]:
    """Return, for each pixel, how much darker than the paper it is."""
    return cv2.LUT(image, (paper - np.arange(256)).clip(0, 255).astype(np.uint8))
