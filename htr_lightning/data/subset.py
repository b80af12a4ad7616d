"""A subset of a reader's lines, such as the first 500 of a fixed random order, and the rest."""

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
        about: what the card of a checkpoint says about them.
    """

    def __init__(self, reader: Reader, indices: Sequence[int], about: dict[str, Any]) -> None:
        self.reader, self.indices = reader, sorted(indices)
        self.ids, self.texts, self.groups = (
            [column[index] for index in self.indices] for column in (reader.ids, reader.texts, reader.groups)
        )
        self.skipped: Sequence[Skipped] = reader.skipped  # of all lines: their subset is not known
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


def subset_of(reader: Reader, bounds: Sequence[int | None], by: str) -> Subset:
    """The lines from `bounds[0]` up to, but not including, `bounds[1]` in a fixed random order; None is the end.

    The order is that of the SHA-256 of the ids, or of the groups and then the ids: the same for the same lines in every
    process and on any machine, whatever the seed of the run. So [0, 500] and [500, None] are disjoint and together are
    all lines.

    Args:
        reader: of all lines.
        bounds: start and end, counted in lines.
        by: "line", or "group": groups are kept together, in the subset that holds their first line.

    Raises:
        InputError: invalid bounds, or no lines within them.
    """
    given = f"data.subset={bounds}".replace("None", "null")
    is_pair = isinstance(bounds, list | tuple) and len(bounds) == 2
    is_pair = is_pair and all(bound is None or type(bound) is int for bound in bounds)
    start, end = bounds if is_pair else (None, None)
    if start is None or start < 0 or (end is not None and end <= start):
        raise InputError(f"{given}: give start and end, such as [0, 500], or [500, null] for the rest")
    if by not in BY:
        raise InputError(f"data.subset_by={by}: use one of {', '.join(BY)}")
    names = reader.ids if by == "line" else reader.groups
    keys = [(_key(name), _key(id)) for name, id in zip(names, reader.ids, strict=True)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    stop = len(order) if end is None else end
    if stop > len(order):
        raise InputError(f"{given}: there are {len(order)} training lines; give a lower end, or null")
    chosen: list[int] = []
    first = 0  # position of the unit's first line in the order
    for _, unit in groupby(order, key=lambda index: keys[index][0]):
        lines = list(unit)
        chosen += lines if start <= first < stop else []
        first += len(lines)
    if not chosen:
        raise InputError(f"{given}: no {by} of {len(order)} training lines begins there; give wider bounds")
    return Subset(reader, chosen, {"subset": {"lines": [start, end], "by": by, "of": len(order)}})


def _key(name: str) -> bytes:
    return sha256(name.encode("utf-8", "surrogatepass")).digest()
