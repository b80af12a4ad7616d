"""The mean over a data set does not depend on batches."""

import pytest
import torch

from htr_lightning.metrics.aggregate import MeanLoss


def measured(totals: list[float], counts: list[int]) -> MeanLoss:
    metric = MeanLoss()
    for total, count in zip(totals, counts, strict=True):
        metric.update(torch.tensor(total), count)
    return metric


def test_batches_and_ranks_are_weighted_by_their_counts() -> None:
    totals, counts = [10.0, 0.5, 30.0, 2.0], [5, 1, 50, 0]  # the last: a line without text
    whole = measured(totals, counts)
    assert float(whole.compute()) == pytest.approx(42.5 / 56)
    first, second = measured(totals[:1], counts[:1]), measured(totals[1:], counts[1:])
    first.merge_state(second)  # as ranks are
    assert float(first.compute()) == pytest.approx(42.5 / 56)


def test_the_mean_without_counts_is_nan() -> None:
    assert measured([0.0], [0]).compute().isnan()
