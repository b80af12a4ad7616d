"""Fractional splits consist of whole groups and are disjoint, complete and reproducible."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_lightning.data.split import SPLITS, lines_of, part_of
from htr_lightning.errors import InputError

SHARES = {"train": "all", "val": 0.2, "test": 0.1}
WRITERS = st.lists(st.integers(0, 30).map(str), min_size=60, max_size=200).filter(lambda g: len(set(g)) > 8)


@given(WRITERS, st.integers(0, 5))
def test_fractions_are_whole_groups_that_together_are_the_part(groups: list[str], seed: int) -> None:
    chosen = {split: lines_of(SHARES, split, groups, "set", seed) for split in SPLITS}
    assert sorted(line for lines in chosen.values() for line in lines) == list(range(len(groups)))
    assert all(chosen.values())
    for one in SPLITS:
        for other in SPLITS:
            assert one == other or not {groups[i] for i in chosen[one]} & {groups[i] for i in chosen[other]}


@given(WRITERS, st.randoms(use_true_random=False))
def test_the_choice_does_not_depend_on_the_order_of_lines_or_of_the_options(
    groups: list[str], dice: random.Random
) -> None:
    order = list(range(len(groups)))
    dice.shuffle(order)
    shuffled = [groups[index] for index in order]
    other = {"test": 0.1, "val": 0.2, "train": "all"}
    for split in SPLITS:
        first = {groups[index] for index in lines_of(SHARES, split, groups, "set")}
        assert first == {shuffled[index] for index in lines_of(other, split, shuffled, "set")}


@pytest.mark.parametrize("seed", range(5))
def test_with_small_groups_fractions_are_met_to_the_line(seed: int) -> None:
    groups = [str(line) for line in range(1000)]
    assert [len(lines_of(SHARES, split, groups, "set", seed)) for split in SPLITS] == [700, 200, 100]


def test_another_seed_gives_another_choice() -> None:
    groups = [str(line) for line in range(1000)]
    assert lines_of(SHARES, "val", groups, "set", 0) != lines_of(SHARES, "val", groups, "set", 1)


def test_the_choice_is_the_same_on_every_machine() -> None:
    groups = [f"writer_{line % 10}" for line in range(30)]
    assert {groups[i] for i in lines_of(SHARES, "val", groups, "set")} == {"writer_4", "writer_6"}


def test_groups_too_large_for_their_fraction_still_give_every_split_one() -> None:
    groups = ["a"] * 10 + ["b"] * 9 + ["c"] * 8
    chosen = {split: lines_of(SHARES, split, groups, "set") for split in SPLITS}
    assert all(chosen.values())
    assert sum(map(len, chosen.values())) == 27


def test_splits_by_name_take_their_whole_part() -> None:
    named = {"train": "a", "val": 0.5, "test": "c"}
    assert part_of(named, "test", "set") == "c"
    assert lines_of(named, "test", ["x", "y"], "set") == [0, 1]
    assert part_of(named, "val", "set") == "a"
    assert len(lines_of(named, "train", list("abcd"), "set")) == 2
    assert lines_of({"train": "a", "val": "b", "test": "c"}, "train", ["x", "x"], "set") == [0, 1]


@pytest.mark.parametrize("shares", [{"val": 0.5, "test": 0.5}, {"val": 0}, {"val": 1.5}, {"val": -0.1, "test": 0.2}])
def test_impossible_fractions_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"set: data\.reader\.splits={.*val: "):
        lines_of({"train": "all", **shares}, "val", list("abcdef"), "set")


@pytest.mark.parametrize("groups", [["a"], ["a", "b"], ["a"] * 50])
def test_fewer_groups_than_splits_are_refused(groups: list[str]) -> None:
    with pytest.raises(InputError, match=r"at least 3 groups.*data\.reader\.group"):
        lines_of(SHARES, "train", groups, "set")


def test_a_split_that_is_not_given_is_refused() -> None:
    with pytest.raises(InputError, match=r"splits\.test=null.*fraction of the training split"):
        part_of({"train": "a", "val": "b", "test": None}, "test", "set")
    with pytest.raises(InputError, match=r"splits\.train=0\.5"):
        part_of({"train": 0.5, "val": 0.2}, "val", "set")
    with pytest.raises(InputError, match="'dev' is not a split"):
        part_of({"train": "a"}, "dev", "set")
