"""Which lines are for training, validation and test: by a table, by name, or drawn by lot, no group in two splits."""

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
Splits = Mapping[str, str | float | int | None]  # a part of the set by name, or a share of the training part


def group_pattern(group: str) -> re.Pattern[str]:
    """The expression that names writers.

    Raises:
        InputError: it is none, or marks no part.
    """
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise InputError(f"data.reader.group={group}: not a regular expression ({error})") from None
    if not pattern.groups:
        raise InputError(f"data.reader.group={group}: put the part that names the writer in parentheses")
    return pattern


def group_of(pattern: re.Pattern[str], id: str, other: str | None = None) -> str:
    """The writer that an id names; `other`, by default the id itself, where it names none."""
    found = pattern.match(id)
    return (found[1] if found else None) or other or id


def read_splits(root: Path, table: str) -> dict[str, str]:
    """A table `page<TAB>split` with a header, as {page: split}.

    Raises:
        InputError: there is no such file, or a row has not two cells.
    """
    kind, _, name = table.rpartition(":")
    path = resources.files("htr_lightning.data") / "splits" / name if kind == "package" else root / table
    if not path.is_file():
        raise InputError(
            f"{path}: no such split table; set data.reader.splits to a table of page and split, or to shares such as "
            "'{train: 0.8, val: 0.1, test: 0.1}'"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: the split table is not UTF-8; save it as UTF-8") from None
    rows = list(csv.reader(text.splitlines(), delimiter="\t"))[1:]
    if bad := next((row for row in rows if len(row) != 2), None):
        raise InputError(f"{table}: row {bad} has not the two cells page and split; mend it")
    if odd := next((split for _, split in rows if split not in SPLITS), None):
        raise InputError(f"{table}: '{odd}' is no split; use one of {', '.join(SPLITS)}")
    if twice := next((page for page, count in Counter(page for page, _ in rows).items() if count > 1), None):
        raise InputError(f"{table}: '{twice}' stands there twice; name each page once")
    return dict(rows)


def draw_splits(
    groups: Sequence[str], shares: Mapping[str, float], seed: int = 0, set_name: str = "the set"
) -> dict[str, str]:
    """A split for each group, by lot: the same for the same groups and seed on any machine.

    Every split first gets one group, the smallest share first, then each further group goes where most is lacking.

    Args:
        groups: of each line or page; what is one group stays together.
        shares: of the lines or pages for train, val and test; they add up to 1.
        seed: of the lot.
        set_name: for messages.

    Returns:
        {group: split}.

    Raises:
        InputError: shares that are none, or fewer groups than splits.
    """
    if not groups:
        raise InputError(f"{set_name}: no line or page in it; check the path")
    shares = {split: float(share) for split, share in shares.items()}
    whole = all(0 <= share <= 1 for share in shares.values()) and abs(sum(shares.values()) - 1) < 0.01
    if set(shares) - set(SPLITS) or not whole:
        raise InputError(f"data.reader.splits={shares}: give shares of {', '.join(SPLITS)} that add up to 1")
    pages = Counter(groups)
    wanted = {split: share * len(groups) for split, share in sorted(shares.items(), key=lambda it: it[1]) if share}
    if len(pages) < len(wanted):
        raise InputError(
            f"{set_name}: {len(pages)} groups cannot fill {len(wanted)} splits without sharing one; give fewer shares "
            "in data.reader.splits, or smaller groups by data.reader.group"
        )
    lot = sorted(pages, key=lambda group: sha256(f"{seed}/{group}".encode()).digest())
    drawn: dict[str, str] = {}
    for split in wanted:
        group = next((g for g in lot if pages[g] <= wanted[split]), min(lot, key=lambda g: pages[g]))
        lot.remove(group)
        drawn[group] = split
        wanted[split] -= pages[group]
    for group in lot:
        split = max(wanted, key=lambda split: wanted[split])
        drawn[group] = split
        wanted[split] -= pages[group]
    return drawn


def draw_lines(
    ids: Sequence[str], counts: Mapping[str, int | float | None], seed: int = 0, set_name: str = "the set"
) -> dict[str, str]:
    """A split for single lines, by lot: the same for the same ids and seed on any machine.

    Test lines are drawn first and training lines last, so that another count of the latter changes no other split, and
    fewer of them are some of the more.

    Args:
        ids: of the lines.
        counts: of the lines for train, val and test; None for one: all that the others leave.
        seed: of the lot.
        set_name: for messages.

    Returns:
        {id: split} of the lines that a split has.

    Raises:
        InputError: counts that are none, or more lines than there are.
    """
    given = {split: None if (n := counts[split]) is None else int(n) for split in reversed(SPLITS) if split in counts}
    wanted = sum(1 if count is None else count for count in given.values())
    whole = all(count is None or count == int(count) > 0 for count in counts.values())
    if set(counts) - set(SPLITS) or not whole or list(given.values()).count(None) > 1:
        raise InputError(f"data.reader.splits={dict(counts)}: give counts of lines for {', '.join(SPLITS)}, one of "
                         "which may be null for all the others leave")  # fmt: skip
    if wanted > len(ids):
        raise InputError(
            f"{set_name}: {len(ids)} lines, but data.reader.splits={dict(counts)} takes {wanted}; take fewer"
        )
    lot = sorted(ids, key=lambda id: sha256(f"{seed}/{id}".encode()).digest())
    drawn: dict[str, str] = {}
    for split in sorted(given, key=lambda split: given[split] is None):  # what is left over comes last
        count = len(lot) if given[split] is None else given[split]
        drawn |= dict.fromkeys(lot[:count], split)
        lot = lot[count:]
    return drawn


def by_line(splits: str | Mapping[str, int | float | None] | None) -> TypeGuard[Mapping[str, int | float | None]]:
    """Whether splits are counts of lines rather than a table or shares, which are 1 at most."""
    return isinstance(splits, Mapping) and any(count is None or count > 1 for count in splits.values())


def part_of(splits: Splits, split: str, set_name: str) -> str:
    """The part of the set that holds a split: the one it names, or for a share the training part.

    Raises:
        InputError: there is no such split, or the set has none.
    """
    if split not in SPLITS:
        raise InputError(f"'{split}' is no split; use one of {', '.join(SPLITS)}")
    named = splits.get(split)
    part = splits.get("train") if isinstance(named, int | float) else named
    if not isinstance(part, str):
        where = split if named is None else "train"
        raise InputError(
            f"{set_name}: data.reader.splits.{where} is {splits.get(where)}; name a part of the set"
            + ("" if where == "train" else ", or give a share of train such as 0.1")
        )
    return part


def lines_of(splits: Splits, split: str, groups: Sequence[str], set_name: str, seed: int = 0) -> list[int]:
    """Indices of the lines of a part that belong to a split, in their order.

    A split that is a number is that share of the training part's lines, drawn in whole groups, so that no writer or
    page is in two splits. The draw depends on the groups' names, their sizes and the seed alone: not on the order of
    the lines, not on the machine.

    Args:
        splits: by split the name of a part, or a share.
        split: the one that is wanted.
        groups: of the lines of the split's part.
        set_name: for messages.
        seed: of the draw.

    Raises:
        InputError: shares that leave nothing to train on, or fewer groups than splits.
    """
    shares = {name: float(share) for name, share in sorted(splits.items()) if isinstance(share, int | float)}
    if not shares or (split != "train" and split not in shares):
        return list(range(len(groups)))
    if min(shares.values()) <= 0 or sum(shares.values()) >= 1:
        given = ", ".join(f"{name}={share:g}" for name, share in shares.items())
        raise InputError(f"{set_name}: data.reader.splits {given}: shares are above 0 and leave some of 1 to train")
    drawn = draw_splits(groups, {"train": 1 - sum(shares.values()), **shares}, seed, set_name)
    return [index for index, group in enumerate(groups) if drawn[group] == split]
