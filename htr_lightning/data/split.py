"""Which page is for training, validation and test: from a table, or drawn so that no group is in two splits."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib import resources
from pathlib import Path

from htr_lightning.errors import InputError

SPLITS = ("train", "val", "test")


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
    return dict(rows)


def draw_splits(groups: Sequence[str], shares: Mapping[str, float], seed: int = 0) -> dict[str, str]:
    """A split for each group, by lot: the same for the same groups and seed on any machine.

    Every split first gets one group, the smallest share first, then each further group goes where most is lacking.

    Args:
        groups: of each page; what is one group stays together.
        shares: of the pages for train, val and test; they add up to 1.
        seed: of the lot.

    Returns:
        {group: split}.

    Raises:
        InputError: shares that are none, or fewer groups than splits.
    """
    shares = {split: float(share) for split, share in shares.items()}
    whole = all(0 <= share <= 1 for share in shares.values()) and abs(sum(shares.values()) - 1) < 0.01
    if set(shares) - set(SPLITS) or not whole:
        raise InputError(f"data.reader.splits={shares}: give shares of {', '.join(SPLITS)} that add up to 1")
    pages = Counter(groups)
    wanted = {split: share * len(groups) for split, share in sorted(shares.items(), key=lambda it: it[1]) if share}
    if len(pages) < len(wanted):
        raise InputError(
            f"{len(pages)} groups of pages cannot fill {len(wanted)} splits without sharing one; give fewer shares in "
            "data.reader.splits, or smaller groups by data.reader.group"
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
