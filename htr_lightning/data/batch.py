"""Collate lines into a batch of tensors."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from htr_lightning.data.padding import padded


class Batch(NamedTuple):
    """A batch of lines, padded to a common width."""

    ids: list[str]
    images: Float[Tensor, "B 1 H W"]  # ink is 1 and paper is 0; padded with paper on the right
    widths: Int[Tensor, " B"]  # width of each line before padding, in columns; on the CPU
    texts: list[str]
    groups: list[str]


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; the copy to an NVIDIA GPU is queued, so that nothing waits for the GPU."""
    return tensor.to(device, non_blocking=device.type == "cuda")


def collate(
    ids: list[str], arrays: Sequence[Float[ndarray, "H _"]], texts: list[str], groups: list[str], multiple: int = 1
) -> Batch:
    """Batch arrays of equal height, padding them with paper to a common width that is a multiple of `multiple`."""
    images, columns = padded(arrays, multiple)
    return Batch(ids, torch.from_numpy(images), torch.from_numpy(columns), texts, groups)
