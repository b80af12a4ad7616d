"""Batches contain lines padded with paper to a common width."""

import numpy as np
import pytest

from htr_lightning.data.batch import collate


@pytest.mark.parametrize("multiple", [1, 8, 64])
@pytest.mark.parametrize("widths", [[30, 7, 41, 1], [41, 41, 41, 41]])
def test_a_batch_holds_every_line_and_paper_behind_it(multiple: int, widths: list[int]) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.random((16, width), np.float32) + np.float32(0.1) for width in widths]
    batch = collate(list("abcd"), arrays, ["w", "x", "y", "z"], ["g"] * 4, multiple)
    assert batch.widths.tolist() == widths
    assert 41 <= batch.images.shape[3] < 41 + multiple
    assert batch.images.shape[3] % multiple == 0
    for row, array in zip(batch.images, arrays, strict=True):
        np.testing.assert_array_equal(row[0, :, : array.shape[1]].numpy(), array)
        assert not row[..., array.shape[1] :].any()
    assert (batch.ids, batch.texts) == (list("abcd"), ["w", "x", "y", "z"])
