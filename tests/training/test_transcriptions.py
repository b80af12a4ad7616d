"""The picture of transcriptions shows the requested number of lines, spread over the set."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import jaxtyping
import pytest
import torch

from htr_lightning.data.batch import Batch
from htr_lightning.training.transcriptions import TranscriptionTable
from htr_lightning.transcription import Prediction


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept a trainer that has only the attributes in use."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def shown(sizes: list[int], lines: int = 12) -> list[int]:
    """Return the indices of the lines that are shown for batches of the given sizes."""
    table = TranscriptionTable("unused", lines)
    trainer = SimpleNamespace(testing=False, num_val_batches=[len(sizes)], is_global_zero=True)
    table.on_validation_epoch_start(trainer, None)
    start = 0
    for index, size in enumerate(sizes):
        ids = [str(start + row) for row in range(size)]
        batch = Batch(ids, torch.zeros(size, 1, 8, 8), torch.full((size,), 8), ids, ids)
        outputs = [Prediction(id, id, id, 1.0, id) for id in ids]
        table.on_validation_batch_end(trainer, None, outputs, batch, index)
        start += size
    return [int(prediction.id) for _, prediction in table._shown]


@pytest.mark.parametrize(
    "sizes", [[64], [16, 1], [1, 30], [8, 8, 8], [2] * 11, [5] * 12, [4] * 20, [3] * 500, [1, 40, 1]]
)
def test_as_many_lines_as_requested_are_shown(sizes: list[int]) -> None:
    found = shown(sizes)
    assert len(found) == min(12, sum(sizes)) == len(set(found))
    assert found == sorted(found)
    assert max(b - a for a, b in pairwise(found)) <= 3 * max(1, sum(sizes) // 12)


def test_a_small_set_is_shown_whole() -> None:
    assert shown([3, 2]) == [0, 1, 2, 3, 4]


def test_the_picture_is_written_at_the_end_of_a_validation(tmp_path: Path) -> None:
    table = TranscriptionTable(str(tmp_path / "pictures"))
    trainer = SimpleNamespace(
        testing=True, sanity_checking=False, num_test_batches=[1], is_global_zero=True, loggers=[], global_step=3
    )
    batch = Batch(["a"], torch.rand(1, 1, 16, 40), torch.tensor([40]), ["un"], ["a"])
    table.on_test_batch_end(trainer, None, [Prediction("a", "un", "on", 0.5, "a")], batch, 0)
    table.on_test_epoch_end(trainer, None)
    assert (tmp_path / "pictures" / "test.png").is_file()
