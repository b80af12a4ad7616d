"""Replay of older training lines together with new ones."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from conftest import drawn_lines

from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.preprocess import FitHeight
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.data.sample import ConcatReader
from htr_lightning.data.sampler import BucketBatchSampler
from htr_lightning.text.normalize import Normalizer


def mixed(share: float = 0.5, old: int = 10, **others: Any) -> LineDataModule:
    settings: dict[str, Any] = {"workers": 0, "max_lines": 4} | others
    parts = (FitHeight(32, margin=4), Normalizer())
    replay = LineDataModule(partial(tagged, lines=old), *parts)
    return LineDataModule(drawn_lines, *parts, replay=replay, replay_fraction=share, **settings)


def tagged(split: str, lines: int) -> Synthetic:
    reader = drawn_lines(split, lines)
    reader.__class__ = type("Tagged", (Synthetic,), {"__getitem__": _tagged})
    return reader


def _tagged(self: Synthetic, index: int) -> Any:
    sample = Synthetic.__getitem__(self, index)
    return sample._replace(id=f"old/{index}")


def epoch(data: LineDataModule, number: int, rank: int = 0, world: int = 1) -> list[list[str]]:
    loader = data.loader("train", rank, world, training=True)
    loader.sampler.set_epoch(number)
    return [batch.ids for batch in loader]


@pytest.mark.parametrize(("share", "old"), [(0.5, 24), (0.25, 8), (0.75, 72), (0.0, 0)])
def test_an_epoch_has_every_new_line_once_and_the_fraction_of_old_lines(share: float, old: int) -> None:
    for number in range(3):
        ids = [id for batch in epoch(mixed(share), number) for id in batch]
        new = [id for id in ids if not id.startswith("old/")]
        assert sorted(new) == sorted(drawn_lines("train").ids)
        assert len(ids) - len(new) == old == mixed(share).replayed


def test_old_lines_repeat_only_after_all_have_been_used() -> None:
    data = mixed(0.25, old=20)  # 8 per epoch
    counts: dict[str, int] = {}
    for number in range(7):
        for id in (id for batch in epoch(data, number) for id in batch if id.startswith("old/")):
            counts[id] = counts.get(id, 0) + 1
        values = [counts.get(f"old/{index}", 0) for index in range(20)]
        assert sum(values) == 8 * (number + 1)
        assert max(values) - min(values) <= 1


def test_the_replayed_fraction_decays_and_old_lines_continue_in_order() -> None:
    data = mixed(0.75, old=50, replay_decay=0.5)  # with 24 new lines: 72, 14 (3/8), 6 (3/16), 2 (3/32)
    counts: dict[str, int] = {}
    for number, dealt in enumerate((72, 14, 6, 2)):
        ids = [id for batch in epoch(data, number) for id in batch if id.startswith("old/")]
        assert len(ids) == dealt
        for id in ids:
            counts[id] = counts.get(id, 0) + 1
        values = [counts.get(f"old/{index}", 0) for index in range(50)]
        assert max(values) - min(values) <= 1


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_batches_of_a_single_process(world: int) -> None:
    one = epoch(mixed(), 2)
    shares = [epoch(mixed(), 2, rank, world) for rank in range(world)]
    dealt = [tuple(batch) for batches in zip(*shares, strict=True) for batch in batches]
    assert set(dealt) == {tuple(batch) for batch in one}
    assert 0 <= len(dealt) - len(one) < world  # the last round is padded


def test_workers_and_cached_lines_change_nothing() -> None:
    plain, kept = epoch(mixed(), 1), mixed(cache_mb=64, workers=1)
    assert epoch(kept, 1) == plain == epoch(kept, 1)


def test_validation_and_test_use_only_the_new_data() -> None:
    data = mixed()
    for split in ("val", "test"):
        assert sorted(id for batch in data.loader(split) for id in batch.ids) == sorted(drawn_lines(split).ids)


def test_the_alphabet_includes_characters_in_old_lines() -> None:
    assert set(mixed().alphabet) == set("".join(drawn_lines("train").texts) + "".join(drawn_lines("train", 10).texts))


def test_joined_readers_are_concatenated() -> None:
    one, two = drawn_lines("train", 3), drawn_lines("val")
    both = ConcatReader([one, two])
    assert len(both) == 14
    assert both.texts == [sample.text for sample in both] == one.texts + two.texts
    assert np.array_equal(both[3].image, two[0].image)


def test_batches_without_old_lines_are_unchanged() -> None:
    widths = list(range(100, 150))
    plain, none = (BucketBatchSampler(widths, 4, 9999, shuffle=True, seed=3, **old) for old in ({}, {"old": 0}))
    assert list(plain) == list(none)
