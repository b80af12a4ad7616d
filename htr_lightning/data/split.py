"""Which lines of a set are training, validation and test, where its makers or its user did not say it line by line."""

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256

from htr_lightning.errors import InputError

SPLITS = ("train", "val", "test")
Splits = Mapping[str, str | float | int | None]  # a part of the set by name, or a share of the training part


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
    sizes = Counter(groups)
    order = sorted(sizes, key=lambda group: sha256(f"{seed}\t{group}".encode()).digest())
    drawn: dict[str, str] = {}
    room = {name: share * len(groups) for name, share in shares.items()}
    for group in order:
        if name := next((name for name in shares if sizes[group] / 2 <= room[name]), None):
            drawn[group] = name
            room[name] -= sizes[group]
    missing = [name for name in shares if name not in drawn.values()]  # every group was too large for these shares
    rest = sorted((group for group in order if group not in drawn), key=lambda group: sizes[group])
    if len(rest) <= len(missing):
        raise InputError(
            f"{set_name}: {len(sizes)} groups cannot be shared among {len(shares) + 1} splits; tell writers or pages "
            "apart by data.reader.group, or name the splits in data.reader.splits"
        )
    drawn |= dict(zip(rest, missing, strict=False))  # the smallest come nearest
    return [index for index, group in enumerate(groups) if drawn.get(group, "train") == split]
