"""The benchmark runs on small input; its figures are for people to read and are not asserted."""

from functools import partial

import speed

from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.preprocess import FitHeight
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.text.normalize import Normalizer


def test_every_part_of_the_benchmark_runs() -> None:
    assert all(rate > 0 for rate in speed.edit_counts(lines=50))
    assert all(rate > 0 for rate in speed.crnn(width=40, lines=2))
    assert speed.reading("crnn_mobilenet", lines=2, width=40) > 0
    assert speed.casia(characters=50, writers=2)[0] > 0
    assert speed.drawing(lines=3) > 0
    assert speed.fitting(lines=3) > 0
    assert speed.augmenting("strong", lines=3) > 0
    few = partial(Synthetic, lines={"train": 3}, writers={"train": 1})
    data = LineDataModule(few, FitHeight(32), Normalizer())
    assert all(rate > 0 for rate in speed.packed(data).values())
