"""The batches of a split hold exactly the lines of the reader, normalised and preprocessed."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch
from conftest import CONF
from numpy import ndarray
from omegaconf import OmegaConf

from htr_lightning.augment import Compose, Noise
from htr_lightning.data import line_dataset
from htr_lightning.data.character import FixedSize
from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.line_dataset import LineDataset
from htr_lightning.data.preprocess import FitHeight, NormalizeHandwriting, Preprocess
from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.data.sample import Reduce, Sample, Skipped
from htr_lightning.data.sampler import BatchIndices, BucketBatchSampler
from htr_lightning.errors import InputError
from htr_lightning.hydra_version import instantiate
from htr_lightning.text.normalize import Normalizer


class Listed(list[Sample]):
    """A reader that returns the given samples."""

    def __init__(self, samples: list[Sample]) -> None:
        super().__init__(samples)
        self.ids = [sample.id for sample in samples]
        self.texts = [sample.text for sample in samples]
        self.groups = [sample.group for sample in samples]
        self.sizes = [sample.image.shape for sample in samples]
        self.skipped: list[Skipped] = []


def drawn(split: str) -> Synthetic:
    return Synthetic(split, {"train": 24, "val": 11, "test": 5}, {"train": 4, "val": 2, "test": 2})


def module(reader=drawn, **others) -> LineDataModule:
    return LineDataModule(reader, FitHeight(32, margin=4), Normalizer(), **({"workers": 0, "max_lines": 4} | others))


def test_a_frame_of_fixed_size_is_not_widened() -> None:
    data = LineDataModule(drawn, FixedSize(28, 28, 20), Normalizer(), workers=0, max_lines=4, multiple=32)
    assert {batch.images.shape[2:] for batch in data.loader("val")} == {(28, 28)}


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("multiple", [1, 16])
def test_the_batches_of_a_split_hold_just_its_lines(split: str, multiple: int) -> None:
    data, reader = module(multiple=multiple), drawn(split)
    seen: list[str] = []
    for batch in data.loader(split):
        assert batch.images.shape[3] % multiple == 0
        for row, id in enumerate(batch.ids):
            sample = reader[reader.ids.index(id)]
            ink = FitHeight(32, margin=4)(sample.image)
            assert batch.texts[row] == Normalizer()(sample.text)
            assert batch.groups[row] == sample.group
            assert int(batch.widths[row]) == ink.shape[1]
            np.testing.assert_array_equal(batch.images[row, 0, :, : ink.shape[1]].numpy(), ink)
            assert not batch.images[row, :, :, ink.shape[1] :].any()
        seen += batch.ids
    assert sorted(seen) == sorted(reader.ids)


def test_the_hooks_of_lightning_give_the_splits() -> None:
    data = module()
    for loader, split in (
        (data.train_dataloader(), "train"),
        (data.val_dataloader(), "val"),
        (data.test_dataloader(), "test"),
    ):
        assert {id for batch in loader for id in batch.ids} == set(drawn(split).ids)


def test_a_batch_that_goes_to_a_device_takes_its_tensors_and_keeps_its_texts() -> None:
    data = module()
    batch = next(iter(data.loader("val")))
    moved = data.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert moved.images.device.type == "meta"
    assert moved.widths.device.type == "cpu"  # networks compute the number of frames from them without asking a GPU
    assert moved.images.shape == batch.images.shape
    assert (moved.ids, moved.texts, moved.groups) == (batch.ids, batch.texts, batch.groups)


@pytest.mark.parametrize("world", [2, 3, 7])
def test_ranks_together_see_validation_once(world: int) -> None:
    seen = [id for rank in range(world) for batch in module().loader("val", rank, world) for id in batch.ids]
    assert sorted(seen) == sorted(drawn("val").ids)


@pytest.fixture
def as_ranks(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], list[Any]]:
    """Run a function in two threads that act as the ranks of a run, and return what each returned or raised."""
    ranks, barrier = threading.local(), threading.Barrier(2)
    slots: list[Any] = [None, None]

    def gather(into: list[Any], own: Any) -> None:
        slots[ranks.own] = own
        barrier.wait(30)
        into[:] = slots
        barrier.wait(30)

    def run(function: Callable[[], Any]) -> list[Any]:
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: ranks.own)
        monkeypatch.setattr(torch.distributed, "all_gather_object", gather)

        def one(rank: int) -> Any:
            ranks.own = rank
            try:
                return function()
            except InputError as error:
                return str(error)

        with ThreadPoolExecutor(2) as threads:
            return list(threads.map(one, range(2)))

    return run


def widths_of(lines: LineDataset) -> list[int]:
    # until Python 3.12, a cached property is computed in one thread at a time
    vars(lines)["_sizes"] = LineDataset._sizes.func(lines)
    return LineDataset.widths.func(lines)


@pytest.mark.parametrize(("cache_mb", "measured_lines"), [(0, 0), (0, 37), (1, 25), (512, 1000)])
def test_ranks_share_the_measuring_of_lines_and_get_the_same_widths_and_images(
    cache_mb: int, measured_lines: int, as_ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_dataset, "SHARED", 10)
    read: list[str] = []

    class Counted(Synthetic):
        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            read.append(sample.id)
            return sample

    def lines() -> LineDataset:
        reader = Counted("train", {"train": 37, "val": 1, "test": 1}, {"train": 4, "val": 2, "test": 2})
        settings = {"cache_mb": cache_mb, "measured_lines": measured_lines}
        return LineDataset(reader, NormalizeHandwriting(32, 9.6), Normalizer(), **settings)

    def measured() -> tuple[list[int], list[Sample]]:
        own = lines()
        return widths_of(own), [own._normalized(index) for index in range(len(own))]

    alone = measured()
    ranks = as_ranks(lambda: widths_of(lines()))
    assert ranks == [alone[0], alone[0]]
    if cache_mb == 512:
        read.clear()
        for widths, samples in as_ranks(measured):
            assert widths == alone[0]
            for sample, expected in zip(samples, alone[1], strict=True):
                assert (sample.id, sample.text, sample.group) == (expected.id, expected.text, expected.group)
                np.testing.assert_array_equal(sample.image, expected.image)
        assert len(read) == len(set(read)) == 37  # each line once


def test_the_widths_do_not_depend_on_the_cache() -> None:
    def widths(cache_mb: int, measured_lines: int) -> list[int]:
        reader = Synthetic("train", {"train": 12, "val": 1, "test": 1}, {"train": 4, "val": 2, "test": 2})
        settings = {"cache_mb": cache_mb, "measured_lines": measured_lines}
        return LineDataset(reader, NormalizeHandwriting(32, 9.6), Normalizer(), **settings).widths

    estimated, exact = widths(0, 0), widths(0, 12)
    assert widths(512, 12) == exact != estimated
    assert widths(512, 5) == exact[:5] + estimated[5:]


def test_a_line_that_one_rank_cannot_use_stops_all_of_them(as_ranks) -> None:
    def widths() -> list[int]:
        samples = [Sample(f"line {i}", np.full((40, 100), 255, np.uint8), "a", "x") for i in range(5)]
        samples[3] = samples[3]._replace(image=np.full((40, 2), 255, np.uint8))
        return widths_of(LineDataset(Listed(samples), NormalizeHandwriting(32, 9.6), Normalizer(), measured_lines=9))

    first, second = as_ranks(widths)
    assert first == second
    assert first.startswith("line 3: ")


@pytest.mark.parametrize("few", ["val", "test"])
def test_fewer_lines_than_ranks_are_refused_before_training(few: str) -> None:
    def reader(split: str) -> Synthetic:
        return drawn(split) if split != few else cast(Any, Listed(list(drawn(split))[:2]))

    data, strategy = module(reader), SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = cast(Any, SimpleNamespace(global_rank=0, world_size=2, strategy=strategy))
    assert len(data.train_dataloader()) > 0
    data.trainer = cast(Any, SimpleNamespace(global_rank=0, world_size=3, strategy=strategy))
    with pytest.raises(InputError, match=rf"too few lines in {few} \(2 for 3 devices\); reduce trainer.devices to 2"):
        data.train_dataloader()


def noisy(image: ndarray, rng: np.random.Generator) -> ndarray:
    return (image + rng.normal(0, 10, image.shape)).clip(0, 255).astype(np.uint8)


def test_workers_make_the_batches_that_one_process_makes() -> None:
    alone = list(module(augment=noisy).loader("train", training=True))
    helped = list(module(augment=noisy, workers=2).loader("train", training=True))
    for one, other in zip(alone, helped, strict=True):
        assert one.ids == other.ids
        assert torch.equal(one.images, other.images)


def test_only_training_is_augmented_and_every_epoch_differently() -> None:
    data = module(augment=noisy)
    plain = module()

    def pixels(source: LineDataModule, split: str, epoch: int = 0) -> dict[str, torch.Tensor]:
        loader = source.loader(split, training=split == "train")
        loader.sampler.set_epoch(epoch)
        return {id: b.images[i, ..., : b.widths[i]] for b in loader for i, id in enumerate(b.ids)}

    val, train = pixels(plain, "val"), pixels(plain, "train")
    assert all(torch.equal(a, val[id]) for id, a in pixels(data, "val").items())
    first, again, second = pixels(data, "train"), pixels(data, "train"), pixels(data, "train", epoch=1)
    assert not any(torch.equal(first[id], train[id]) for id in first)
    assert all(torch.equal(first[id], again[id]) for id in first)
    assert not any(torch.equal(first[id], second[id]) for id in first)


def test_augmentation_that_changes_no_width_leaves_batches_that_vary() -> None:
    data = module(augment=Compose([Noise(1.0, 0.01, 0.02)]), max_lines=3)
    loader = data.loader("train", training=True)
    seen = set()
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)  # type: ignore[union-attr]
        seen.add(frozenset(frozenset(batch.indices) for batch in cast(Iterator[BatchIndices], iter(loader.sampler))))
    assert len(seen) == 2


@pytest.mark.parametrize("after", [(0, 99), (40, 10**6)])
def test_a_line_that_augmentation_would_make_unusable_is_planned_as_it_is(after: tuple[int, int]) -> None:
    class Spoils:
        def __call__(self, image: ndarray, rng: np.random.Generator) -> ndarray:
            return np.zeros(after, np.uint8)

        def size_after(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
            return after

    lines = LineDataset(drawn("train"), FitHeight(32, margin=4), Normalizer(), Spoils())
    assert lines.augmented_widths(0, range(24)) == lines.widths


@pytest.mark.parametrize("preprocess", [FitHeight(32, margin=4), NormalizeHandwriting(32, 9.6)])
@pytest.mark.parametrize("recipe", ["mild", "strong"])
def test_training_batches_are_planned_on_the_widths_after_augmentation(preprocess: Preprocess, recipe: str) -> None:
    augment = instantiate(OmegaConf.load(CONF / "augment" / f"{recipe}.yaml"))
    lines = [
        sample._replace(image=cv2.resize(sample.image, None, fx=scale, fy=scale))
        for scale, sample in zip([1.0, 2.3, 3.1] * 8, drawn("train"), strict=True)  # scans are reduced before that
    ]
    reader: Any = Listed(lines)
    given: dict[str, Any] = {"workers": 0, "max_lines": 4, "measured_lines": 24}
    data = LineDataModule(lambda split: reader, preprocess, Normalizer(), augment=augment, **given)
    loader = data.loader("train", training=True)
    plain = LineDataset(reader, preprocess, Normalizer(), augment, measured_lines=24)
    padding = {"planned": 0, "not planned": 0}
    for epoch in (0, 3):
        widths = [int(plain[BatchIndices(epoch, [index])].widths) for index in range(24)]
        np.testing.assert_allclose(plain.augmented_widths(epoch, range(24)), widths, atol=1)
        assert widths != plain.widths
        loader.sampler.set_epoch(epoch)  # type: ignore[union-attr]
        unaware = BucketBatchSampler(plain.widths, 4, 10**9, shuffle=True)
        unaware.set_epoch(epoch)
        for name, sampler in (("planned", loader.sampler), ("not planned", unaware)):
            for batch in cast(Iterator[BatchIndices], iter(sampler)):
                some = [widths[index] for index in batch.indices]
                padding[name] += len(some) * max(some) - sum(some)
    assert padding["planned"] < 0.8 * padding["not planned"]


def test_the_alphabet_is_that_of_the_normalised_training_texts() -> None:
    blank = np.full((20, 60), 255, np.uint8)
    texts = {"train": "e\u0301  a", "val": "z", "test": "y"}
    data = module(lambda split: Listed([Sample("x/1", blank, texts[split], "g")]))
    assert data.alphabet == [" ", "a", "é"]
    assert module(alphabet="xyz").alphabet == ["x", "y", "z"]


def test_a_split_without_lines_is_refused() -> None:
    data = module(lambda split: Listed([]))
    with pytest.raises(InputError, match="split 'val' is empty"):
        data.loader("val")


def test_a_split_of_another_name_is_refused() -> None:
    with pytest.raises(InputError, match="'dev' is not a split"):
        module().lines("dev")


def test_a_line_that_cannot_be_preprocessed_is_named() -> None:
    samples = [
        Sample("x/good", np.full((20, 60), 255, np.uint8), "a", ""),
        Sample("x/dot", np.zeros((1, 1), np.uint8), "b", ""),
    ]
    with pytest.raises(InputError, match=r"x/dot: .*1 x 1 pixels"):
        list(module(lambda split: Listed(samples)).loader("val"))


def test_the_root_reaches_the_reader(tmp_path: Path, write_page) -> None:
    write_page(tmp_path, ["un", "deux"])
    data = module(PageXml, root=str(tmp_path))
    assert data.lines("val").texts == ["un", "deux"]
    assert len(list(data.loader("val"))) == 1


def test_a_root_is_refused_where_nothing_is_read_from_it() -> None:
    with pytest.raises(InputError, match=r"data\.root=x: .*remove this override"):
        module(root="x").lines("val")


def test_a_reader_that_keeps_lines_is_given_the_reduction_unless_scans_are_wanted() -> None:
    scan = np.random.default_rng(0).integers(0, 256, (300, 900), dtype=np.uint8)

    def keeping(split: str, reduce: Reduce | None = None) -> Listed:
        return Listed([Sample("x/1", scan if reduce is None else reduce(scan), "a", "")])

    reduced, scanned = module(keeping), module(keeping, reduce_scans=False)
    assert reduced.open("val")[0].image.shape == (64, 192)
    assert scanned.open("val")[0].image is scan
    (one,), (other,) = reduced.loader("val"), scanned.loader("val")
    assert torch.equal(one.images, other.images)


def test_a_line_that_augmentation_stretched_too_far_is_taken_as_it_is() -> None:
    line = Sample("x/1", np.random.default_rng(0).integers(0, 256, (32, 90), dtype=np.uint8), "a", "")
    fit = FitHeight(32, max_width=100)
    for columns, expected in ((8, np.pad(line.image, ((0, 0), (0, 8)))), (30, line.image)):
        data = LineDataModule(
            lambda split: Listed([line]),
            fit,
            Normalizer(),
            workers=0,
            augment=lambda image, rng, more=columns: np.pad(image, ((0, 0), (0, more))),
        )
        (batch,) = data.loader("train", training=True)
        np.testing.assert_array_equal(batch.images[0, 0].numpy(), fit(expected))
