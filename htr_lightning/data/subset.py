"""Select a reproducible random subset of a reader's lines."""

from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from itertools import groupby
from typing import Any

from htr_lightning.data.sample import Reader, Sample, Skipped
from htr_lightning.errors import InputError

BY = ("line", "group")


class Subset(Sequence[Sample]):
    """A reader for a subset of the lines of another reader, in their original order.

    Args:
        reader: the full reader.
        indices: indices of the lines.
        about: description of the subset for the checkpoint card.
    """

    def __init__(self, reader: Reader, indices: Sequence[int], about: dict[str, Any]) -> None:
        self.reader, self.indices = reader, sorted(indices)
        self.ids, self.texts, self.groups = (
            [column[index] for index in self.indices] for column in (reader.ids, reader.texts, reader.groups)
        )
        self.skipped: Sequence[Skipped] = reader.skipped  # lines skipped by the full reader, which belong to no subset
        self.repaired: dict[str, str] = getattr(reader, "repaired", {})
        self.about = {**getattr(reader, "about", {}), **about}
        self.note: str | None = getattr(reader, "note", None)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        return self.reader[self.indices[index]]

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """The height and width of each image in pixels."""
        sizes = self.reader.sizes
        return [sizes[index] for index in self.indices]


def subset_of(reader: Reader, bounds: Sequence[int | None], by: str) -> Subset:
    """Return the lines from `bounds[0]` up to, but not including, `bounds[1]` in a fixed random order.

    Lines are ordered by the SHA-256 hashes of their ids, or of their groups and then their ids. The order is identical
    in all processes, on all machines and for all seeds, so [0, 500] and [500, None] are complementary.

    Args:
        reader: the full reader.
        bounds: start and end, counted in lines; an end of None includes all remaining lines.
        by: "line", or "group" to keep each group together in the subset that contains its first line.

    Raises:
        InputError: if the bounds are invalid or contain no lines.
    """
    return Subset(reader, in_range(reader, bounds, by, "subset"), {"subset": _about(reader, bounds, by)})


def held_out_of(reader: Reader, bounds: Sequence[int | None], by: str) -> Subset:
    """Return the lines outside a range in the order of `subset_of`, whose arguments and errors are the same."""
    left_out = set(in_range(reader, bounds, by, "held_out"))
    if len(left_out) == len(reader):
        raise InputError(f"data.held_out={list(bounds)}: leaves no training lines; use a narrower range")
    kept = [index for index in range(len(reader)) if index not in left_out]
    return Subset(reader, kept, {"held_out": _about(reader, bounds, by)})


def _about(reader: Reader, bounds: Sequence[int | None], by: str) -> dict[str, Any]:
    return {"lines": list(bounds), "by": by, "of": len(reader)}


def in_range(reader: Reader, bounds: Sequence[int | None], by: str, option: str) -> list[int]:
    """Return the indices of the lines in a range; see `subset_of`."""
    given = f"data.{option}={bounds}".replace("None", "null")
    is_pair = isinstance(bounds, list | tuple) and len(bounds) == 2
    is_pair = is_pair and all(bound is None or type(bound) is int for bound in bounds)
    start, end = bounds if is_pair else (None, None)
    if start is None or start < 0 or (end is not None and end <= start):
        raise InputError(
            f"{given}: expected a start and a later end, such as [0, 500], or [500, null] for the remaining lines"
        )
    if by not in BY:
        raise InputError(f"data.subset_by={by}: use one of {', '.join(BY)}")
    names = reader.ids if by == "line" else reader.groups
    keys = [(_key(name), _key(id)) for name, id in zip(names, reader.ids, strict=True)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    stop = len(order) if end is None else end
    if stop > len(order):
        raise InputError(
            f"{given}: the end exceeds the number of training lines ({len(order)}); use a smaller end, or null"
        )
    chosen: list[int] = []
    first = 0  # position of the current unit's first line in the order
    for _, unit in groupby(order, key=lambda index: keys[index][0]):
        lines = list(unit)
        chosen += lines if start <= first < stop else []
        first += len(lines)
    if not chosen:
        raise InputError(f"{given}: no {by} starts in this range; use a wider range")
    return chosen


def _key(name: str) -> bytes:
    return sha256(name.encode("utf-8", "surrogatepass")).digest()
