"""The assignment of lines to batches, ranks and epochs."""

import random
from collections.abc import Sequence
from itertools import chain
from typing import Any
from unittest import mock

from hypothesis import assume, given
from hypothesis import strategies as st

from htr_lightning.data import sampler as sampler_module
from htr_lightning.data.sampler import BucketBatchSampler

widths = st.lists(st.integers(1, 900), min_size=1, max_size=120)
budgets = st.tuples(st.integers(1, 9), st.sampled_from([1, 500, 2000, 10**6]))


def batches(widths: list[int], budget: tuple[int, int], epoch: int = 0, **others) -> list[list[int]]:
    sampler = BucketBatchSampler(widths, *budget, **others)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert len(drawn) == len(sampler)
    assert all(draw.epoch == epoch for draw in drawn)
    return [draw.indices for draw in drawn]


@given(widths, budgets, st.integers(1, 9))
def test_outside_training_every_line_comes_once_over_any_number_of_ranks(
    widths: list[int], budget: tuple[int, int], world: int
) -> None:
    assume(len(widths) >= world)
    ranks = [batches(widths, budget, rank=rank, world_size=world) for rank in range(world)]
    assert all(ranks)  # a rank without a batch would block the others
    lines = sorted(chain.from_iterable(chain.from_iterable(ranks)))
    assert lines == list(range(len(widths)))


@given(widths, budgets, st.integers(1, 9), st.booleans())
def test_the_batches_of_all_ranks_are_those_of_one(
    widths: list[int], budget: tuple[int, int], world: int, shuffle: bool
) -> None:
    one = batches(widths, budget, shuffle=shuffle)
    assume(shuffle or len(one) >= world)
    ranks = [batches(widths, budget, shuffle=shuffle, rank=rank, world_size=world) for rank in range(world)]
    together = {tuple(batch) for rank in ranks for batch in rank}
    assert together == {tuple(batch) for batch in one}
    if not shuffle:
        assert sum(map(len, ranks)) == len(one)


@given(widths, budgets, st.booleans(), st.integers(0, 3))
def test_no_batch_is_over_its_budget(widths: list[int], budget: tuple[int, int], shuffle: bool, epoch: int) -> None:
    lines, columns = budget
    for batch in batches(widths, budget, epoch, shuffle=shuffle):
        assert 1 <= len(batch) <= lines
        assert len(batch) == 1 or len(batch) * max(widths[index] for index in batch) <= columns


@given(widths, budgets, st.integers(0, 3))
def test_an_epoch_of_training_sees_every_line_once(widths: list[int], budget: tuple[int, int], epoch: int) -> None:
    lines = sorted(chain.from_iterable(batches(widths, budget, epoch, shuffle=True)))
    assert lines == list(range(len(widths)))


@given(widths, budgets, st.integers(1, 9))
def test_in_training_every_rank_has_the_same_number_of_batches(
    widths: list[int], budget: tuple[int, int], world: int
) -> None:
    counts = [len(batches(widths, budget, shuffle=True, rank=rank, world_size=world)) for rank in range(world)]
    one = len(batches(widths, budget, shuffle=True))
    assert counts == [-(-one // world)] * world  # and as few as possible


def test_training_order_is_new_in_every_epoch_and_the_same_for_the_same_seed() -> None:
    dice = random.Random(0)
    lines = [dice.randrange(50, 900) for _ in range(1000)]  # more than one window
    first, second = (batches(lines, (8, 4000), epoch, shuffle=True) for epoch in (0, 1))
    assert first != second
    assert {frozenset(batch) for batch in first} != {
        frozenset(batch) for batch in second
    }  # the batches also contain different lines
    assert first == batches(lines, (8, 4000), 0, shuffle=True)
    assert first != batches(lines, (8, 4000), 0, shuffle=True, seed=1)


def test_one_sampler_over_several_epochs_gives_the_batches_of_new_ones() -> None:
    lines = list(range(50, 250))
    sampler = BucketBatchSampler(lines, 8, 4000, shuffle=True)
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        assert [draw.indices for draw in sampler] == batches(lines, (8, 4000), epoch, shuffle=True)


@given(widths, budgets, st.integers(0, 3), st.sampled_from([1, 7, 1000]))
def test_batches_are_planned_on_the_widths_of_the_epoch(
    widths: list[int], budget: tuple[int, int], epoch: int, planned: int
) -> None:
    asked: dict[int, int] = {}

    def drawn(epoch: int, indices: Sequence[int]) -> list[int]:
        asked.update({index: 1 + random.Random(1000 * epoch + index).randrange(900) for index in indices})
        return [asked[index] for index in indices]

    with mock.patch.object(sampler_module, "MAX_PLANNED", planned):
        found = batches(widths, budget, epoch, shuffle=True, augmented_widths=drawn)
        given: dict[str, Any] = {"shuffle": True, "augmented_widths": drawn}
        ranks = [batches(widths, budget, epoch, rank=rank, world_size=2, **given) for rank in range(2)]
        resumed = BucketBatchSampler(widths, *budget, **given)
        resumed.start_at(epoch, len(found) // 2)
        assert [draw.indices for draw in resumed] == found[len(found) // 2 :]
    assert {tuple(batch) for rank in ranks for batch in rank} == {tuple(batch) for batch in found}
    assert sorted(chain.from_iterable(found)) == list(range(len(widths)))
    assert len(asked) == min(planned, len(widths))
    for batch in found:
        widest = max(asked.get(index, widths[index]) for index in batch)
        assert len(batch) == 1 or len(batch) * widest <= budget[1]


def test_lines_of_a_batch_are_of_like_width() -> None:
    dice = random.Random(0)
    lines = [dice.randrange(50, 2000) for _ in range(3000)]
    for shuffle in (False, True):
        drawn = batches(lines, (16, 10**6), shuffle=shuffle)
        padded = sum(len(batch) * max(lines[index] for index in batch) for batch in drawn)
        assert padded < 1.1 * sum(lines)
