"""Assign lines to training, validation and test splits: from a table, by name, or at random by group or line."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib import resources
from io import StringIO
from pathlib import Path
from typing import TypeGuard

from htr_lightning.data.files import nfc, read_utf8
from htr_lightning.errors import InputError

SPLITS = ("train", "val", "test")
Splits = Mapping[str, str | float | int | None]  # name of a source split, or a fraction of the source training split


def group_pattern(group: str) -> re.Pattern[str]:
    """Compile the regular expression that extracts the writer from an id.

    Raises:
        InputError: if the expression is invalid or has no capturing group.
    """
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise InputError(f"data.reader.group={group}: invalid regular expression ({error}); fix it") from None
    if not pattern.groups:
        raise InputError(
            f"data.reader.group={group}: no capturing group; put parentheses around the writer's name, "
            "and quote it twice: 'data.reader.group=\"(.+?)_\"'"
        )
    return pattern


def group_of(pattern: re.Pattern[str], id: str, other: str | None = None) -> str:
    """Return the writer in an id; if the pattern does not match, return `other`, or the id if `other` is not set."""
    found = pattern.match(id)
    return (found[1] if found else None) or other or id


def read_splits(root: Path, table: str) -> dict[str, str]:
    """Read a tab-separated table of pages and splits, and return it as {page: split}, with composed characters.

    The columns are called page and split. Without a header, the table has only these columns, in this order.

    Raises:
        InputError: if the file is missing or malformed, or a page is listed twice.
    """
    kind, _, name = table.rpartition(":")
    included = Path(str(resources.files("htr_lightning.data"))) / "splits" / name
    path = included if kind == "package" else root / table
    if not path.is_file():
        raise InputError(
            f"{path}: split table not found; set data.reader.splits to a table with the columns page and split, or to "
            "fractions such as '{train: 0.8, val: 0.1, test: 0.1}'"
        )
    header: list[str] = []
    found: dict[str, str] = {}
    for number, line in enumerate(StringIO(read_utf8(path), newline=None), start=1):
        row = [cell.strip() for cell in line.split("\t")]
        where, first = f"{table}:{number}", not header
        if not any(row):
            continue
        if first:
            names = [cell.casefold() for cell in row]
            is_header = "split" in names and not set(names) & set(SPLITS)
            header = names if is_header else ["page", "split"]
            if is_header and len(names) == 2:  # the pages may have another name, such as id
                header = [name if name == "split" else "page" for name in names]
            if sorted(name for name in header if name in ("page", "split")) != ["page", "split"]:
                raise InputError(
                    f"{where}: expected the columns page and split, got {', '.join(row)[:200]}; fix the header"
                )
            if is_header:
                continue
        if len(row) != len(header):
            columns = ", ".join(header)
            raise InputError(
                f"{where}: expected {columns}, separated by tabs, got {' | '.join(row)[:200]}; fix this row"
            )
        page, split = (row[header.index(name)] for name in ("page", "split"))
        if split not in SPLITS:
            remedy = f"use one of {', '.join(SPLITS)}" + (", or begin with the header: page, split" if first else "")
            raise InputError(f"{where}: '{split[:200]}' is not a split; {remedy}")
        if not page:
            raise InputError(f"{where}: no page in this row; add its name or remove the row")
        if nfc(page) in found:
            raise InputError(f"{where}: duplicate page '{page}' ({found[nfc(page)]} and {split}); list each page once")
        found[nfc(page)] = split
    return found


def split_groups(
    groups: Sequence[str], fractions: Mapping[str, float], seed: int = 0, name: str = "the data"
) -> dict[str, str]:
    """Assign each group to a random split, reproducibly across machines.

    Each split first receives one group, starting with the split with the smallest fraction. Each remaining group goes
    to the split that is furthest below its target size.

    Args:
        groups: group of each line or page; groups are never divided.
        fractions: fractions of the lines or pages in train, val and test, which sum to 1.
        seed: random seed.
        name: name of the data set, used in error messages.

    Returns:
        The split of each group.

    Raises:
        InputError: if the fractions are invalid, or there are fewer groups than splits.
    """
    if not groups:
        raise InputError(f"{name}: no lines or pages found; check the path")
    fractions = {split: float(fraction) for split, fraction in fractions.items()}
    valid = all(0 <= fraction <= 1 for fraction in fractions.values()) and abs(sum(fractions.values()) - 1) < 0.01
    if set(fractions) - set(SPLITS) or not valid:
        raise InputError(f"data.reader.splits={fractions}: the fractions for {', '.join(SPLITS)} must sum to 1")
    pages = Counter(groups)
    wanted = {split: part * len(groups) for split, part in sorted(fractions.items(), key=lambda it: it[1]) if part}
    if len(pages) < len(wanted):
        raise InputError(
            f"{name}: expected at least {len(wanted)} groups, one per split, got {len(pages)}; use fewer splits in "
            "data.reader.splits, or define smaller groups with data.reader.group"
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
    """Assign lines to random splits, reproducibly across machines.

    Test lines are chosen first and training lines last, so changing the number of training lines does not affect the
    other splits, and a smaller training split is a subset of a larger one.

    Args:
        ids: line ids.
        counts: numbers of lines in train, val and test; None for one split means all remaining lines.
        seed: random seed.
        name: name of the data set, used in error messages.

    Returns:
        The split of each line, omitting lines that are not in any split.

    Raises:
        InputError: if the counts are invalid or exceed the number of lines.
    """
    given = {split: None if (n := counts[split]) is None else int(n) for split in reversed(SPLITS) if split in counts}
    wanted = sum(1 if count is None else count for count in given.values())
    valid = all(count is None or count == int(count) > 0 for count in counts.values())
    if set(counts) - set(SPLITS) or not valid or list(given.values()).count(None) > 1:
        raise InputError(f"data.reader.splits={dict(counts)}: numbers of lines in {', '.join(SPLITS)} must be positive "
                         "integers; one of them may be null, which means all remaining lines")  # fmt: skip
    if wanted > len(ids):
        raise InputError(f"{name}: data.reader.splits={dict(counts)} requires {wanted} lines (available: {len(ids)}); "
                         "use smaller numbers")  # fmt: skip
    order = sorted(ids, key=lambda id: sha256(f"{seed}/{id}".encode()).digest())
    splits: dict[str, str] = {}
    for split in sorted(given, key=lambda split: given[split] is None):  # the remaining lines are assigned last
        count = len(order) if given[split] is None else given[split]
        splits |= dict.fromkeys(order[:count], split)
        order = order[count:]
    return splits


def by_line(splits: str | Mapping[str, int | float | None] | None) -> TypeGuard[Mapping[str, int | float | None]]:
    """Return whether splits are given as numbers of lines rather than as a table or fractions."""
    return isinstance(splits, Mapping) and any(count is None or count > 1 for count in splits.values())


def part_of(splits: Splits, split: str, name: str) -> str:
    """Return the source split that contains a split.

    This is the source split named in `splits`, or the source training split if `splits` gives a fraction.

    Raises:
        InputError: if the split is invalid or has no source split.
    """
    if split not in SPLITS:
        raise InputError(f"'{split}' is not a split; use one of {', '.join(SPLITS)}")
    named = splits.get(split)
    part = splits.get("train") if isinstance(named, int | float) else named
    if not isinstance(part, str):
        where = split if named is None else "train"
        given = "null" if (value := splits.get(where)) is None else value
        raise InputError(
            f"{name}: data.reader.splits.{where}={given}: set it to a split of this data set"
            + ("" if where == "train" else ", or to a fraction of the training split, such as 0.1")
        )
    return part


def lines_of(splits: Splits, split: str, groups: Sequence[str], name: str, seed: int = 0) -> list[int]:
    """Return the indices of the lines in a source split that belong to a split, in ascending order.

    A split given as a fraction consists of whole groups of the source training split, so that no writer or page is in
    two splits. The choice depends only on the names and sizes of the groups and on the seed, not on the order of the
    lines or the machine.

    Args:
        splits: for each split, its source split, or a fraction of the source training split.
        split: the requested split.
        groups: group of each line in the source split.
        name: name of the data set, used in error messages.
        seed: random seed.

    Raises:
        InputError: if the fractions leave no training lines, or there are fewer groups than splits.
    """
    fractions = {key: float(value) for key, value in sorted(splits.items()) if isinstance(value, int | float)}
    if not fractions or (split != "train" and split not in fractions):
        return list(range(len(groups)))
    if min(fractions.values()) <= 0 or sum(fractions.values()) >= 1:
        given = ", ".join(f"{key}: {value:g}" for key, value in fractions.items())
        raise InputError(f"{name}: data.reader.splits={{{given}}}: fractions must be positive and sum to less than 1")
    chosen = split_groups(groups, {"train": 1 - sum(fractions.values()), **fractions}, seed, name)
    return [index for index, group in enumerate(groups) if chosen[group] == split]
