"""What a network eats: samples stacked into a batch."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Batch(NamedTuple):
    """Lines of like width, padded to the widest."""

    ids: list[str]
    images: Float[Tensor, "B 1 H W"]  # ink 1, paper 0, padded with paper on the right
    widths: Int[Tensor, " B"]  # columns before padding
    texts: list[str]
    groups: list[str]


def collate(
    ids: list[str], images: Sequence[Float[Tensor, "1 H _"]], texts: list[str], groups: list[str], multiple: int = 1
) -> Batch:
    """Stack images of one height, padded with paper to a common width that is a multiple of `multiple`."""
    columns = [image.shape[-1] for image in images]
    width = -(-max(columns) // multiple) * multiple
    if width == min(columns):  # as those of characters are: nothing to pad
        stacked = torch.stack(list(images))
    else:
        stacked = images[0].new_zeros(len(images), 1, images[0].shape[-2], width)
        for row, image in zip(stacked, images, strict=True):
            row[..., : image.shape[-1]] = image
    return Batch(ids, stacked, torch.tensor(columns), texts, groups)
