"""The `Reader` interface and what readers return: samples and skipped lines."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import UInt8
from numpy import ndarray

Reduce = Callable[[UInt8[ndarray, "H W"]], UInt8[ndarray, "h w"]]  # shrinks the lines that a reader keeps in memory


class Sample(NamedTuple):
    """A line, word or digit with its reference text."""

    id: str  # for example "copiste/page_1/line_3"; shown in errors, predictions and tables
    image: UInt8[ndarray, "H W"]  # the scan, with dark ink on light paper
    text: str  # the reference
    group: str  # writer, document or page; the unit of random splits and confidence intervals


class Skipped(NamedTuple):
    """A line that the reader skipped, recorded so that nothing is skipped silently."""

    id: str  # sample id
    kind: str  # for example "line without text"; skipped lines are counted by kind
    detail: str = ""  # the offending value
    by: str = ""  # the option that caused the skip, "empty" or "faulty"


@runtime_checkable
class Reader(Protocol):
    """A `Sequence[Sample]` that provides its texts, groups and sizes without loading any images."""

    ids: Sequence[str]
    texts: Sequence[str]
    groups: Sequence[str]
    sizes: Sequence[tuple[int, int]]  # (height, width) in pixels before preprocessing; may be estimates
    skipped: Sequence[Skipped]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class ConcatReader(Sequence[Sample]):
    """A reader that concatenates several readers."""

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
