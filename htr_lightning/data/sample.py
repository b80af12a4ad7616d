"""What a reader yields: samples, and what it left out. No torch, so that reading alone takes little memory."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import UInt8
from numpy import ndarray


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
    by: str = ""  # the option that let it go, "empty" or "faulty"; with "error" the line would have been refused


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
