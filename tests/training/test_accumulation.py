"""Accumulated batches have the gradient of one batch of all their lines."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from torch.utils.data import DataLoader, IterableDataset

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


class OfRank(IterableDataset):
    """The batches of each rank, of which a process gets its own."""

    def __init__(self, batches: list[list[Batch]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches[0])

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches[torch.distributed.get_rank()])


class Moved(Callback):
    """A callback that saves by how much the first rank has moved each weight."""

    def __init__(self, its: Recognizer, path: Path) -> None:
        self.start, self.path = {name: weight.clone() for name, weight in its.state_dict().items()}, path

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.global_rank == 0:
            weights = pl_module.recognizer.named_parameters()
            torch.save({name: weight.detach() - self.start[name] for name, weight in weights}, self.path)


def vit() -> Recognizer:
    torch.manual_seed(0)
    return recognizer("vit_ctc").eval()


@pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__`")
@pytest.mark.parametrize(
    "batches", [[[batch(0, 4)], [batch(1, 2, 3)]], [[batch(0), batch(4)], [batch(1), batch(2, 3)]]], ids=["1", "2"]
)
def test_batches_of_two_ranks_are_one_of_all_their_lines(
    batches: list[list[Batch]], tmp_path: Path, one_thread: None
) -> None:
    expected, its = gradient(vit(), [batch(*range(5))], 1), vit()
    its.optimizer, its.scheduler = (lambda weights: torch.optim.SGD(weights, lr=1.0)), None
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp_fork", accumulate_grad_batches=len(batches[0]), max_epochs=1,
        logger=False, limit_val_batches=0, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, callbacks=[Moved(its, tmp_path / "moved.pt")],
    )  # fmt: skip
    loader = DataLoader(OfRank(batches), batch_size=None, collate_fn=whole)
    trainer.fit(TrainingModule(its), loader, loader)
    for name, moved in torch.load(tmp_path / "moved.pt").items():
        torch.testing.assert_close(moved, expected[name], rtol=1e-3, atol=1e-5)


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
