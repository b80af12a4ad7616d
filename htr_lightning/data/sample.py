"""What flows: a sample as a reader yields it, a batch as a network eats it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from torch import Tensor


class Sample(NamedTuple):
    """A line, word or digit with its reference."""

    id: str  # "copiste/page_1/line_3": in every error, prediction and table
    image: UInt8[ndarray, "H W"]  # as scanned, dark ink on light paper
    text: str  # reference
    group: str  # writer, document or page: splits and intervals are drawn over groups


class Skipped(NamedTuple):
    """A line that was left out on request; nothing is left out without one."""

    id: str  # of the sample
    kind: str  # "line without text": what is counted together
    detail: str = ""  # the value that was at fault


@runtime_checkable
class Reader(Protocol):
    """A `Sequence[Sample]` that also knows its texts, groups and sizes without opening an image."""

    ids: Sequence[str]
    texts: Sequence[str]
    groups: Sequence[str]
    sizes: Sequence[tuple[int, int]]  # (height, width) in pixels before preprocessing; an estimate is enough
    skipped: Sequence[Skipped]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


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
    widths = torch.tensor([image.shape[-1] for image in images])
    width = -(-int(widths.max()) // multiple) * multiple
    stacked = images[0].new_zeros(len(images), 1, images[0].shape[-2], width)
    for row, image in zip(stacked, images, strict=True):
        row[..., : image.shape[-1]] = image
    return Batch(ids, stacked, widths, texts, groups)
