"""Random splits of groups and of lines."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.data.split import split_groups, split_lines
from htr_lightning.errors import InputError

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


@given(st.lists(st.integers(0, 40), min_size=1, max_size=200), st.integers(0, 3))
def test_every_group_is_in_one_split_and_every_split_has_one(numbers: list[int], seed: int) -> None:
    groups = [f"g{number}" for number in numbers]
    if len(set(groups)) < 3:
        with pytest.raises(InputError, match="at least 3 groups"):
            split_groups(groups, SHARES, seed)
        return
    drawn = split_groups(groups, SHARES, seed)
    assert set(drawn) == set(groups)
    assert set(drawn.values()) == set(SHARES)
    assert split_groups(groups[::-1], SHARES, seed) == drawn  # the split does not depend on the file order


@pytest.mark.parametrize("pages", [10, 13, 100, 333])
def test_fractions_are_met_to_the_page_if_groups_are_pages(pages: int) -> None:
    counts = Counter(split_groups([f"page_{n}" for n in range(pages)], SHARES).values())
    for split, share in SHARES.items():
        assert abs(counts[split] - share * pages) <= 1


def test_fractions_are_met_to_a_group() -> None:
    groups = [f"g{n}" for n in range(30) for _ in range(1 + n % 5)]
    drawn = split_groups(groups, SHARES)
    counts = Counter(drawn[group] for group in groups)
    for split, share in SHARES.items():
        assert abs(counts[split] - share * len(groups)) <= 5


def test_another_seed_gives_other_splits() -> None:
    groups = [f"g{n}" for n in range(50)]
    assert len({tuple(sorted(split_groups(groups, SHARES, seed).items())) for seed in range(5)}) == 5


def test_the_splits_are_the_same_on_every_machine() -> None:
    drawn = split_groups([f"page_{n}" for n in range(10)], SHARES)
    assert [page for page, split in drawn.items() if split != "train"] == ["page_5", "page_6"]


def test_a_fraction_of_zero_gets_nothing() -> None:
    drawn = split_groups(["a", "b"], {"train": 0.5, "val": 0.5, "test": 0})
    assert sorted(drawn.values()) == ["train", "val"]


@pytest.mark.parametrize(
    "shares", [{"train": 0.8}, {"train": 0.8, "dev": 0.2}, {"train": 1.5, "val": -0.5}, {"train": float("nan")}]
)
def test_invalid_fractions_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"data\.reader\.splits="):
        split_groups(["a", "b", "c"], shares)


def test_a_smaller_number_of_training_lines_is_a_subset_of_a_larger_one() -> None:
    ids = [f"p/{number}" for number in range(98)]
    few, all_left = ({"train": train, "val": 10, "test": 40} for train in (16, None))
    one, other = split_lines(ids, few), split_lines(list(reversed(ids)), all_left)
    assert {split: list(one.values()).count(split) for split in few} == few
    assert len(other) == 98
    assert one.items() <= other.items()
    assert split_lines(ids, few, seed=1) != one


def test_pages_are_split_by_line_and_what_is_left_over_is_counted(tmp_path: Path, write_page: Callable) -> None:
    for stem in ("a", "b"):
        write_page(tmp_path, [f"{stem}{number}" for number in range(6)], stem)
    parts = {split: PageXml(tmp_path, splits={"train": 3, "val": 2, "test": 4}, split=split) for split in
             ("train", "val", "test")}  # fmt: skip
    ids = [id for part in parts.values() for id in part.ids]
    assert [len(part) for part in parts.values()] == [3, 2, 4]
    assert len(set(ids)) == 9
    for part in parts.values():
        assert [skipped.kind for skipped in part.skipped] == ["line not in any split"] * 3
    assert len(PageXml(tmp_path, splits={"train": None, "val": 2, "test": 4}, split="train")) == 6
    with pytest.raises(InputError, match=r"requires 16 lines \(available: 12\)"):
        PageXml(tmp_path, splits={"train": 10, "val": 2, "test": 4}, split="train")
    with pytest.raises(InputError, match="must be positive integers"):
        PageXml(tmp_path, splits={"train": None, "val": None, "test": 4}, split="train")
