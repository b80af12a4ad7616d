"""What a reader gives: samples, and what it skipped."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import UInt8
from numpy import ndarray

Reduce = Callable[[UInt8[ndarray, "H W"]], UInt8[ndarray, "h w"]]  # what a reader does to lines that it keeps


class Sample(NamedTuple):
    """A line, word or digit with its reference."""

    id: str  # "copiste/page_1/line_3": in every error, prediction and table
    image: UInt8[ndarray, "H W"]  # as scanned, dark ink on light paper
    text: str  # the reference
    group: str  # writer, document or page; splits and confidence intervals are drawn over groups


class Skipped(NamedTuple):
    """A line that was skipped as the options of the reader say; nothing is skipped silently."""

    id: str  # of the sample
    kind: str  # "line without text": lines of one kind are counted together
    detail: str = ""  # the offending value
    by: str = ""  # the option that skipped it, "empty" or "faulty"; with "error" the line would have been refused


@runtime_checkable
class Reader(Protocol):
    """A `Sequence[Sample]` that gives its texts, groups and sizes without opening an image."""

    ids: Sequence[str]
    texts: Sequence[str]
    groups: Sequence[str]
    sizes: Sequence[tuple[int, int]]  # (height, width) in pixels before preprocessing; an estimate is enough
    skipped: Sequence[Skipped]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class ConcatReader(Sequence[Sample]):
    """The samples of several readers, concatenated."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self._readers = readers
        self._ends = list(accumulate(map(len, readers)))
        self.ids = [id for reader in readers for id in reader.ids]
        self.texts = [text for reader in readers for text in reader.texts]
        self.groups = [group for reader in readers for group in reader.groups]
        self.sizes = [size for reader in readers for size in reader.sizes]
        self.skipped = [skipped for reader in readers for skipped in reader.skipped]

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        which = bisect_right(self._ends, index)
        return self._readers[which][index - self._ends[which] + len(self._readers[which])]
