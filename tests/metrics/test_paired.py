"""The interval of a paired difference agrees with the bootstrap."""

import numpy as np
import pytest

from htr_lightning.metrics.paired import cer_difference


def test_an_interval_of_a_paired_difference_is_that_of_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    references, before, after = [], [], []
    for _ in range(600):
        text = "abcdefghij" * rng.integers(1, 6)
        wrong = [text.replace("a", "x", int(rng.integers(0, 3))) for _ in range(2)]
        references, before, after = references + [text], before + [wrong[0]], after + [wrong[rng.integers(0, 2)]]
    difference = cer_difference(references, before, after)
    edits = np.array(
        [[sum(map(str.__ne__, t, r)) for t, r in zip(side, references, strict=True)] for side in (before, after)]
    )
    lengths = np.array([len(text) for text in references])
    assert difference.value == pytest.approx((edits[1] - edits[0]).sum() / lengths.sum())
    draws = rng.integers(0, 600, (4000, 600))
    resampled = (edits[1] - edits[0])[draws].sum(1) / lengths[draws].sum(1)
    np.testing.assert_allclose(difference[1:], np.percentile(resampled, [2.5, 97.5]), atol=2e-4)
    assert cer_difference(["ab"], ["ab"], ["ab"]) == (0, 0, 0)
