"""Batches are lines side by side, padded with paper."""

import pytest
import torch

from htr_lightning.data.batch import collate


@pytest.mark.parametrize("multiple", [1, 8, 64])
@pytest.mark.parametrize("widths", [[30, 7, 41, 1], [41, 41, 41, 41]])
def test_a_batch_holds_every_line_and_paper_behind_it(multiple: int, widths: list[int]) -> None:
    torch.manual_seed(0)
    images = [torch.rand(1, 16, width) + 0.1 for width in widths]
    batch = collate(list("abcd"), images, ["w", "x", "y", "z"], ["g"] * 4, multiple)
    assert batch.widths.tolist() == widths
    assert 41 <= batch.images.shape[3] < 41 + multiple
    assert batch.images.shape[3] % multiple == 0
    for row, image in zip(batch.images, images, strict=True):
        assert torch.equal(row[..., : image.shape[2]], image)
        assert not row[..., image.shape[2] :].any()
    assert (batch.ids, batch.texts) == (list("abcd"), ["w", "x", "y", "z"])
