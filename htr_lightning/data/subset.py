"""A part of a reader's lines, such as the first 500 of a drawn order, and its rest."""

from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from itertools import groupby
from typing import Any

from htr_lightning.data.sample import Reader, Sample, Skipped
from htr_lightning.errors import InputError

BY = ("line", "group")


class Subset(Sequence[Sample]):
    """Some lines of a reader, in its order.

    Args:
        reader: the whole.
        indices: of the lines.
        about: what the checkpoint's card says of them.
    """

    def __init__(self, reader: Reader, indices: Sequence[int], about: dict[str, Any]) -> None:
        self.reader, self.indices = reader, sorted(indices)
        self.ids, self.texts, self.groups = (
            [column[index] for index in self.indices] for column in (reader.ids, reader.texts, reader.groups)
        )
        self.skipped: Sequence[Skipped] = reader.skipped  # of the whole: whose part they would be is not known
        self.repaired: dict[str, str] = getattr(reader, "repaired", {})
        self.about = {**getattr(reader, "about", {}), **about}

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        return self.reader[self.indices[index]]

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of every image."""
        sizes = self.reader.sizes
        return [sizes[index] for index in self.indices]


def subset_of(reader: Reader, part: Sequence[int | None], by: str) -> Subset:
    """The lines from `part[0]` up to `part[1]` in a drawn order; None is the end.

    The order is that of the SHA-256 of the lines' ids, or of their groups and then their ids: the same for the same
    lines in every process and on any machine, whatever the seed of the run. So [0, 500] and [500, None] are disjoint
    and make up the whole.

    Args:
        reader: of all lines.
        part: where it begins and ends, counted in lines.
        by: "line", or "group": what is one group stays together, in the part where the order has its first line.

    Raises:
        InputError: no such part, or no line in it.
    """
    given = f"data.subset={part}".replace("None", "null")
    is_pair = isinstance(part, list | tuple) and len(part) == 2 and all(one is None or type(one) is int for one in part)
    start, end = part if is_pair else (None, None)
    if start is None or start < 0 or (end is not None and end <= start):
        raise InputError(f"{given}: give where it begins and ends, such as [0, 500] and [500, null] for the rest")
    if by not in BY:
        raise InputError(f"data.subset_by={by}: use one of {', '.join(BY)}")
    names = reader.ids if by == "line" else reader.groups
    keys = [(_lot(name), _lot(id)) for name, id in zip(names, reader.ids, strict=True)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    stop = len(order) if end is None else end
    if stop > len(order):
        raise InputError(f"{given}: there are {len(order)} training lines; end it at null, or sooner")
    chosen: list[int] = []
    first = 0  # place of the unit's first line in the order
    for _, unit in groupby(order, key=lambda index: keys[index][0]):
        lines = list(unit)
        chosen += lines if start <= first < stop else []
        first += len(lines)
    if not chosen:
        raise InputError(f"{given}: no {by} of {len(order)} training lines begins there; give a wider part")
    return Subset(reader, chosen, {"part": {"lines": [start, end], "by": by, "of": len(order)}})


def _lot(name: str) -> bytes:
    return sha256(name.encode("utf-8", "surrogatepass")).digest()
