"""The learning rate and the batch size that are suggested are those that were planted."""

import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import SMALL, drawn_lines, run_train
from lightning import Trainer

from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.preprocess import FitHeight
from htr_lightning.errors import InputError
from htr_lightning.model.base import Recognizer
from htr_lightning.model.ctc import CTCRecognizer
from htr_lightning.text.normalize import Normalizer
from htr_lightning.training import finders
from htr_lightning.training.finders import HIGHEST, LOWEST, STEPS, Attempt, largest_batch, smoothed, suggestion, widest
from htr_lightning.training.module import TrainingModule

FEW = "data.reader.lines={train: 24, val: 2, test: 2}"
RATES = [LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1)) for step in range(STEPS)]


def descent(curvature: float, noise: float) -> list[float]:
    """The losses of gradient descent on a quadratic function, which diverges at learning rates above 2 / curvature."""
    draw, weight, losses = np.random.default_rng(0), 1.0, list[float]()
    for rate in RATES:
        losses.append(1 + 0.5 * weight**2 + noise * draw.normal())
        weight -= rate * curvature * weight
        if abs(weight) > 2:
            break
    return losses


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("curvature", [10.0, 100.0, 1e4])
def test_the_suggested_rate_descends_a_quadratic_function(curvature: float, noise: float) -> None:
    losses = descent(curvature, noise)
    found = suggestion(RATES, losses)
    assert 0.02 / curvature < found < 2 / curvature  # faster than a fiftieth of the curvature, without diverging


def test_there_is_no_suggestion_if_the_loss_only_grows() -> None:
    with pytest.raises(InputError, match="does not fall"):
        suggestion(RATES, np.linspace(1, 2, STEPS).tolist())
    constant = smoothed([3.0] * 40)
    np.testing.assert_allclose(constant, 3.0)
    assert len(constant) == 40


@pytest.mark.parametrize("bound", [9_000, 20_000, 77_777, 3_000_000])
def test_the_largest_batch_is_within_an_eighth_of_a_planted_bound(bound: int) -> None:
    tried = list[int]()

    def attempt(lines: int, columns: int) -> Attempt:
        assert lines == columns // 512  # the ratio is kept
        tried.append(columns)
        return Attempt(lines, columns, columns <= bound, 0.0)

    best = max(one.columns for one in largest_batch(16, 8192, attempt) if one.fits)
    assert bound * 0.85 < best <= bound
    assert max(tried) <= 2 * bound
    assert largest_batch(16, 8192, lambda lines, columns: Attempt(lines, columns, False, 0.0))[0].fits is False


def data(**others: Any) -> LineDataModule:
    return LineDataModule(drawn_lines, FitHeight(32), Normalizer(), workers=0, **others)


def test_the_second_gpu_is_searched_if_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = list[Any]()

    def made(**settings: Any) -> Any:
        asked.append(settings["devices"])
        return Mock(spec=Trainer)

    monkeypatch.setattr(finders, "Trainer", made)
    for devices in (1, 4, "auto", [1], [2, 3]):
        finders._trainer(dict.fromkeys(finders.KEPT) | {"devices": devices}, tmp_path, 1, [])
    assert asked == [1, 1, 1, [1], [2]]


def test_the_widest_batch_is_as_large_as_any_of_training() -> None:
    drawn = data(max_lines=5, max_columns=3000)
    worst = widest(drawn, 5, 3000).images.numel()
    assert worst >= 0.7 * max(batch.images.numel() for batch in drawn.loader("train", training=True))
    assert len(widest(drawn, 30, 10**9).ids) == 30  # more than there are lines
    assert worst // 32 <= 3000


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("planted"), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling")]
)
def test_a_memory_bound_is_found(
    make_recognizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    bound, loss = 32 * 4000, CTCRecognizer.loss

    def limited(self: CTCRecognizer, batch: Any) -> Any:
        if batch.images.numel() > bound:
            raise error
        return loss(self, batch)

    monkeypatch.setattr(CTCRecognizer, "loss", limited)
    its: Recognizer = make_recognizer(alphabet=data().alphabet).train()
    its.optimizer = torch.optim.AdamW
    settings = dict.fromkeys(finders.KEPT) | {"accelerator": "cpu", "precision": "32-true"}
    drawn = data(max_lines=2, max_columns=1000)
    with pytest.raises(InputError, match="uses the CPU"):
        finders.find("batch", its, drawn, settings, tmp_path)
    monkeypatch.setattr(finders, "LARGEST", 8)
    attempts = largest_batch(2, 1000, lambda *sizes: finders._attempt(its, drawn, settings, tmp_path, *sizes))
    assert 0.6 * 4000 < max(one.columns for one in attempts if one.fits) <= 1.2 * 4000  # batches are not filled


def test_find_lr_prints_an_override_and_draws_a_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finders, "STEPS", 24)
    taken, step = list[int](), TrainingModule.training_step

    def counted(module: TrainingModule, *its: Any) -> Any:
        taken.append(module.global_step)
        return step(module, *its)

    monkeypatch.setattr(TrainingModule, "training_step", counted)
    folder = run_train(tmp_path / "run", *SMALL, FEW, "logger=csv", "find=lr", "trainer.accumulate_grad_batches=2")
    assert all(taken.count(step) == 2 for step in set(taken))  # each epoch has an even number of batches
    told = (folder / "train.log").read_text()
    assert re.search(r"suggestion: optimizer\.lr=\S+ for steps of at most 8 lines, on one device", told)
    assert (folder / "find-lr.png").stat().st_size > 5000
    assert not (folder / "checkpoints").exists()
    assert not list(folder.glob("nonfinite*"))
