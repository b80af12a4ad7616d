"""The benchmark runs, small; its figures are for people, not for asserting."""

from functools import partial

from htr_lightning import benchmark
from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.preprocess import FitHeight
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.text.normalize import Normalizer


def test_every_part_of_the_benchmark_runs() -> None:
    assert all(rate > 0 for rate in benchmark.edit_counts(lines=50))
    assert all(rate > 0 for rate in benchmark.crnn(width=40, lines=2))
    assert benchmark.reading("crnn_mobilenet", lines=2, width=40) > 0
    assert benchmark.casia(characters=50, writers=2)[0] > 0
    assert benchmark.drawing(lines=3) > 0
    assert benchmark.fitting(lines=3) > 0
    assert benchmark.augmenting("strong", lines=3) > 0
    few = partial(Synthetic, lines={"train": 3}, writers={"train": 1})
    data = LineDataModule(few, FitHeight(32), Normalizer())
    assert all(rate > 0 for rate in benchmark.packed(data).values())
