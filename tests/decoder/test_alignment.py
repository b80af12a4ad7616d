"""Forced alignment finds the most likely of all paths that read a text."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
from jaxtyping import Float64
from numpy import ndarray

from htr_lightning.decoder.alignment import align
from htr_lightning.decoder.ctc import BLANK, Greedy, collapse


def frames(seed: int, count: int, classes: int) -> Float64[ndarray, "T C"]:
    scores = np.random.default_rng(seed).normal(0, 2, (count, classes))
    return scores - np.log(np.exp(scores).sum(1, keepdims=True))


@pytest.mark.parametrize("labels", [[1], [1, 2], [1, 1], [2, 1, 2], [1, 1, 2], [2, 2, 2]])
@pytest.mark.parametrize("count", [3, 5])
def test_the_path_is_the_best_of_all(labels: list[int], count: int) -> None:
    for seed in range(5):
        log_probs = frames(seed, count, 3)
        paths = [path for path in product(range(3), repeat=count) if collapse(path) == labels]
        aligned = align(log_probs, labels)
        if not paths:
            assert aligned is None
            continue
        assert aligned is not None
        best = max(paths, key=lambda path: sum(log_probs[time, label] for time, label in enumerate(path)))
        found = [BLANK] * count
        for one, label in zip(aligned, labels, strict=True):
            found[one.start : one.end] = [label] * (one.end - one.start)
        assert tuple(found) == best
        total = sum(log_probs[time, label] for time, label in enumerate(best))
        assert math.fsum(one.log_prob for one in aligned) == pytest.approx(total)


def test_the_confidences_of_what_is_read_greedily_have_the_mean_of_the_line() -> None:
    log_probs = frames(0, 400, 6)
    (read,) = Greedy()(log_probs[None], np.array([400]))
    aligned = align(log_probs, read.ids)
    assert aligned is not None
    assert len(read.ids) > 130  # more states than an 8-bit integer counts
    assert math.exp(math.fsum(one.log_prob for one in aligned) / len(aligned)) == pytest.approx(read.confidence)
    assert all(before.end <= after.start for before, after in pairwise(aligned))


def test_what_cannot_be_aligned() -> None:
    assert align(frames(0, 2, 3), [1, 1]) is None
    assert align(np.full((4, 3), np.nan), [1]) is None
    assert align(frames(0, 4, 3), []) == []
    assert align(np.zeros((0, 3)), [1]) is None
    assert align(np.zeros((0, 3)), []) == []
