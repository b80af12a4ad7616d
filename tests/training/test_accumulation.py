"""Accumulated batches have the gradient of one batch of all their lines."""

from typing import Any

import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from htr_lightning.data.batch import Batch, collate
from htr_lightning.data.line_dataset import whole
from htr_lightning.model.base import Recognizer
from htr_lightning.training.module import TrainingModule
from training.test_gpu import recognizer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Found .* in eval mode"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
]
TEXTS = ["a", "ab" * 6, "b" * 40, "abab", "ba"]  # the third does not fit into its frames
INK = [torch.rand(32, width, generator=torch.Generator().manual_seed(0)).numpy() for width in (40, 96, 90, 64, 120)]


def batch(*rows: int) -> Batch:
    return collate(
        [str(row) for row in rows], [INK[row] for row in rows], [TEXTS[row] for row in rows], [""] * len(rows)
    )


def gradient(its: Recognizer, batches: list[Batch], accumulated: int) -> dict[str, Any]:
    """Return by how much a step of gradient descent moves each weight."""
    start = {name: weight.clone() for name, weight in its.state_dict().items()}
    its.optimizer, its.scheduler = (lambda weights: torch.optim.SGD(weights, lr=1.0)), None
    trainer = Trainer(
        accelerator="cpu", accumulate_grad_batches=accumulated, max_epochs=1, logger=False, limit_val_batches=0,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    loader = DataLoader(batches, batch_size=None, collate_fn=whole)
    trainer.fit(TrainingModule(its), loader, loader)
    assert trainer.global_step == 1
    moved = {name: weight.detach() - start[name] for name, weight in its.named_parameters()}
    its.load_state_dict(start)
    return moved


@pytest.mark.parametrize("model", ["vit_ctc", "trocr"])
def test_two_batches_are_one_of_all_their_lines(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    its = recognizer(model).eval()  # without dropout, masks and the statistics of batches, which differ
    for name in ("token_noise", "blank_fraction"):
        setattr(its, name, 0.0)
    whole = gradient(its, [batch(*range(5))], 1)
    parts = gradient(its, [batch(0, 4), batch(1, 2, 3)], 2)
    assert max(float(moved.abs().max()) for moved in whole.values()) > 1e-3
    for name, moved in whole.items():
        torch.testing.assert_close(parts[name], moved, rtol=1e-3, atol=1e-5)
    monkeypatch.setattr(type(its), "units", lambda self, batch: 1)  # as if batches counted alike
    alike = gradient(its, [batch(0, 4), batch(1, 2, 3)], 2)
    assert any(not torch.allclose(alike[name], moved, rtol=0.1, atol=1e-4) for name, moved in whole.items())
    monkeypatch.undo()
    short = gradient(its, [batch(0, 1)], 2)  # the last batches of an epoch are fewer
    for name, moved in gradient(its, [batch(0, 1)], 1).items():
        torch.testing.assert_close(short[name], moved, rtol=1e-3, atol=1e-5)
