"""The benchmark runs, small; its figures are for people, not for asserting."""

from htr_lightning import benchmark


def test_every_part_of_the_benchmark_runs() -> None:
    assert all(rate > 0 for rate in benchmark.edit_counts(lines=50))
    assert all(rate > 0 for rate in benchmark.crnn(width=40, lines=2))
    assert benchmark.casia(characters=50, writers=2)[0] > 0
    assert benchmark.drawing(lines=3) > 0
    assert benchmark.fitting(lines=3) > 0
    assert benchmark.augmenting("strong", lines=3) > 0
