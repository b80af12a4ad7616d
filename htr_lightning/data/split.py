"""Which lines are for training, validation and test: by a table, by name, or at random with no group in two splits."""

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import TypeGuard

from htr_lightning.errors import InputError

SPLITS = ("train", "val", "test")
Splits = Mapping[str, str | float | int | None]  # a part of the data set by name, or a fraction of the training part


def group_pattern(group: str) -> re.Pattern[str]:
    """A regular expression that finds the writer in an id.

    Raises:
        InputError: it is not a regular expression, or has no group.
    """
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise InputError(f"data.reader.group={group}: not a regular expression ({error})") from None
    if not pattern.groups:
        raise InputError(f"data.reader.group={group}: put parentheses around the part that names the writer")
    return pattern


def group_of(pattern: re.Pattern[str], id: str, other: str | None = None) -> str:
    """The writer named in an id; `other`, by default the id itself, if there is none."""
    found = pattern.match(id)
    return (found[1] if found else None) or other or id


def read_splits(root: Path, table: str) -> dict[str, str]:
    """A table `page<TAB>split` with a header, as {page: split}.

    Raises:
        InputError: there is no such file, or a row does not have two cells.
    """
    kind, _, name = table.rpartition(":")
    path = resources.files("htr_lightning.data") / "splits" / name if kind == "package" else root / table
    if not path.is_file():
        raise InputError(
            f"{path}: no such split table; set data.reader.splits to a table of page and split, or to fractions, "
            "as in '{train: 0.8, val: 0.1, test: 0.1}'"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: the split table is not UTF-8; save it as UTF-8") from None
    rows = list(csv.reader(text.splitlines(), delimiter="\t"))[1:]
    if bad := next((row for row in rows if len(row) != 2), None):
        raise InputError(f"{table}: row {bad} does not have two cells, page and split; correct it")
    if odd := next((split for _, split in rows if split not in SPLITS), None):
        raise InputError(f"{table}: '{odd}' is not a split; use one of {', '.join(SPLITS)}")
    if twice := next((page for page, count in Counter(page for page, _ in rows).items() if count > 1), None):
        raise InputError(f"{table}: '{twice}' occurs twice; name each page once")
    return dict(rows)


def split_groups(
    groups: Sequence[str], fractions: Mapping[str, float], seed: int = 0, name: str = "the data"
) -> dict[str, str]:
    """A random split for each group: the same for the same groups and seed on any machine.

    Every split first gets one group, the smallest fraction first; then each further group goes to the split that lacks
    most.

    Args:
        groups: of each line or page; groups are not divided.
        fractions: of the lines or pages for train, val and test; they add up to 1.
        seed: of the random order.
        name: of the data, for messages.

    Returns:
        {group: split}.

    Raises:
        InputError: invalid fractions, or fewer groups than splits.
    """
    if not groups:
        raise InputError(f"{name}: no line or page in it; check the path")
    fractions = {split: float(fraction) for split, fraction in fractions.items()}
    valid = all(0 <= fraction <= 1 for fraction in fractions.values()) and abs(sum(fractions.values()) - 1) < 0.01
    if set(fractions) - set(SPLITS) or not valid:
        raise InputError(f"data.reader.splits={fractions}: give fractions of {', '.join(SPLITS)} that add up to 1")
    pages = Counter(groups)
    wanted = {split: part * len(groups) for split, part in sorted(fractions.items(), key=lambda it: it[1]) if part}
    if len(pages) < len(wanted):
        raise InputError(
            f"{name}: {len(pages)} groups are too few for {len(wanted)} splits; give fewer fractions in "
            "data.reader.splits, or smaller groups with data.reader.group"
        )
    order = sorted(pages, key=lambda group: sha256(f"{seed}/{group}".encode()).digest())
    splits: dict[str, str] = {}
    for split in wanted:
        group = next((g for g in order if pages[g] <= wanted[split]), min(order, key=lambda g: pages[g]))
        order.remove(group)
        splits[group] = split
        wanted[split] -= pages[group]
    for group in order:
        split = max(wanted, key=lambda split: wanted[split])
        splits[group] = split
        wanted[split] -= pages[group]
    return splits


def split_lines(
    ids: Sequence[str], counts: Mapping[str, int | float | None], seed: int = 0, name: str = "the data"
) -> dict[str, str]:
    """A random split for each line: the same for the same ids and seed on any machine.

    Test lines are chosen first and training lines last: changing their number changes no other split, and a
    smaller number is a subset of a larger one.

    Args:
        ids: of the lines.
        counts: of the lines for train, val and test; None for one of them: all that are left.
        seed: of the random order.
        name: of the data, for messages.

    Returns:
        {id: split} of the lines that are in a split.

    Raises:
        InputError: invalid counts, or more lines requested than there are.
    """
    given = {split: None if (n := counts[split]) is None else int(n) for split in reversed(SPLITS) if split in counts}
    wanted = sum(1 if count is None else count for count in given.values())
    valid = all(count is None or count == int(count) > 0 for count in counts.values())
    if set(counts) - set(SPLITS) or not valid or list(given.values()).count(None) > 1:
        raise InputError(f"data.reader.splits={dict(counts)}: give counts of lines for {', '.join(SPLITS)}, one of "
                         "which may be null for all that are left")  # fmt: skip
    if wanted > len(ids):
        raise InputError(f"{name}: {len(ids)} lines, but data.reader.splits={dict(counts)} takes {wanted}; take fewer")
    order = sorted(ids, key=lambda id: sha256(f"{seed}/{id}".encode()).digest())
    splits: dict[str, str] = {}
    for split in sorted(given, key=lambda split: given[split] is None):  # all that are left comes last
        count = len(order) if given[split] is None else given[split]
        splits |= dict.fromkeys(order[:count], split)
        order = order[count:]
    return splits


def by_line(splits: str | Mapping[str, int | float | None] | None) -> TypeGuard[Mapping[str, int | float | None]]:
    """Whether splits are counts of lines rather than a table or fractions, which are at most 1."""
    return isinstance(splits, Mapping) and any(count is None or count > 1 for count in splits.values())


def part_of(splits: Splits, split: str, name: str) -> str:
    """The part of the data that holds a split: the one it names, or the training part for a fraction of it.

    Raises:
        InputError: there is no such split, or it names no part.
    """
    if split not in SPLITS:
        raise InputError(f"'{split}' is not a split; use one of {', '.join(SPLITS)}")
    named = splits.get(split)
    part = splits.get("train") if isinstance(named, int | float) else named
    if not isinstance(part, str):
        where = split if named is None else "train"
        raise InputError(
            f"{name}: data.reader.splits.{where} is {splits.get(where)}; name a part of the data"
            + ("" if where == "train" else ", or give a fraction of train such as 0.1")
        )
    return part


def lines_of(splits: Splits, split: str, groups: Sequence[str], name: str, seed: int = 0) -> list[int]:
    """Indices of the lines of a part that belong to a split, in their order.

    A split that is a number is that fraction of the lines of the training part, in whole groups, so that no writer or
    page is in two splits. Which ones depends on the names and sizes of the groups and the seed alone: not on the order
    of the lines, not on the machine.

    Args:
        splits: for each split the name of a part, or a fraction.
        split: the one that is wanted.
        groups: of the lines of the split's part.
        name: of the data, for messages.
        seed: of the random order.

    Raises:
        InputError: the fractions leave nothing to train on, or there are fewer groups than splits.
    """
    fractions = {key: float(value) for key, value in sorted(splits.items()) if isinstance(value, int | float)}
    if not fractions or (split != "train" and split not in fractions):
        return list(range(len(groups)))
    if min(fractions.values()) <= 0 or sum(fractions.values()) >= 1:
        given = ", ".join(f"{key}={value:g}" for key, value in fractions.items())
        raise InputError(f"{name}: data.reader.splits {given}: fractions must be above 0 and leave some lines to train")
    chosen = split_groups(groups, {"train": 1 - sum(fractions.values()), **fractions}, seed, name)
    return [index for index, group in enumerate(groups) if chosen[group] == split]
