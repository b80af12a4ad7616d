"""Subsets of the training lines are disjoint, complete and identical on every machine."""

import numpy as np
import pytest

from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.preprocess import FitHeight
from htr_lightning.data.sample import Reader, Sample, Skipped
from htr_lightning.data.subset import subset_of
from htr_lightning.errors import InputError
from htr_lightning.text.normalize import Normalizer

WHOLE = 60


class Lines(list[Sample]):
    """A reader of lines by nine writers."""

    def __init__(self, split: str = "train", turned: bool = False) -> None:
        numbers = range(WHOLE)[::-1] if turned else range(WHOLE)
        super().__init__(
            Sample(f"{split}/{n}", np.full((10 + n, 80 + n), n, np.uint8), f"text {n}", f"writer {n % 9}")
            for n in numbers
        )
        self.ids, _, self.texts, self.groups = (list(column) for column in zip(*self, strict=True))
        self.sizes = [sample.image.shape for sample in self]
        self.skipped = [Skipped("x", "line without text")]
        self.about = {"unit": "line"}


def module(part: list[int | None] | None, by: str = "line", **others: object) -> LineDataModule:
    return LineDataModule(Lines, FitHeight(16), Normalizer(), subset=part, subset_by=by, max_lines=4, **others)


@pytest.mark.parametrize("by", ["line", "group"])
def test_parts_are_disjoint_and_make_up_the_whole(by: str) -> None:
    parts = [set(subset_of(Lines(), part, by).ids) for part in ([0, 7], [7, 30], [30, None])]
    assert sum(map(len, parts)) == WHOLE
    assert set.union(*parts) == set(Lines().ids)


def test_by_line_a_part_has_just_so_many_lines_by_group_only_whole_groups() -> None:
    assert len(subset_of(Lines(), [3, 20], "line")) == 17
    first, rest = (subset_of(Lines(), part, "group") for part in ([0, 20], [20, None]))
    assert not set(first.groups) & set(rest.groups)
    assert 20 <= len(first) < 20 + 7  # the last writer is not divided


@pytest.mark.parametrize("by", ["line", "group"])
def test_a_part_does_not_depend_on_the_order_of_the_reader_or_the_seed_of_the_run(by: str) -> None:
    assert set(subset_of(Lines(), [0, 20], by).ids) == set(subset_of(Lines(turned=True), [0, 20], by).ids)
    assert module([0, 20], by, seed=0).open("train").ids == module([0, 20], by, seed=7).open("train").ids


def test_a_part_is_not_the_first_lines_of_the_reader() -> None:
    assert set(subset_of(Lines(), [0, 20], "line").ids) != set(Lines().ids[:20])


def test_a_part_has_the_lines_of_the_whole() -> None:
    whole = {sample.id: sample for sample in Lines()}
    part = subset_of(Lines(), [0, 20], "line")
    assert isinstance(part, Reader)
    for index, sample in enumerate(part):
        assert (sample.id, sample.text, sample.group) == (part.ids[index], part.texts[index], part.groups[index])
        assert sample.text == whole[sample.id].text
        assert np.array_equal(sample.image, whole[sample.id].image)
        assert part.sizes[index] == sample.image.shape
    assert part.skipped == Lines().skipped
    assert part.about == {"unit": "line", "subset": {"lines": [0, 20], "by": "line", "of": WHOLE}}


def test_only_training_lines_are_reduced_to_a_subset_which_the_ranks_share() -> None:
    data = module([0, 20])
    assert [len(data.lines(split)) for split in ("train", "val", "test")] == [20, WHOLE, WHOLE]
    for world_size in (1, 2, 3):
        drawn = [id for r in range(world_size) for b in data.loader("train", r, world_size) for id in b.ids]
        assert sorted(drawn) == sorted(data.open("train").ids)


@pytest.mark.parametrize(
    ("part", "by", "message"),
    [
        ([5, 5], "line", r"data.subset=\[5, 5\]: expected a start and a later end"),
        ([None, 5], "line", r"data.subset=\[null, 5\]: expected a start and a later end"),
        ([0], "line", r"data.subset=\[0\]: expected a start and a later end"),
        ([0, 61], "line", r"\[0, 61\]: the end exceeds the number of training lines \(60\)"),
        ([60, None], "line", "no line starts in this range"),
        ([1, 2], "group", "no group starts in this range"),
        ([0, 5], "page", "data.subset_by=page: use one of line, group"),
    ],
)
def test_an_invalid_subset_is_refused(part: list[int | None], by: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        module(part, by).open("train")
