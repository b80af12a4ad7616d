"""A run that is interrupted anywhere and resumed is the same, byte for byte, as a run that is not interrupted."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, run_train

from htr_lightning.training.module import TrainingModule

QUICK = [
    *SMALL, "data.reader.lines={train: 24, val: 3, test: 3}", "data.max_lines=4", "model.net.dropout=0.2",
    "augment=mild", "trainer.max_epochs=3", "logger=csv", "callbacks.last.minutes=1e-9", "trainer.precision=32-true",
]  # fmt: skip # 6 steps an epoch; a checkpoint before each
OLD = [
    "data@replay=synthetic", "replay.reader.lines={train: 10, val: 1, test: 1}", "replay.reader.length=[1, 2]",
    "replay.reader.writers={train: 2, val: 1, test: 1}", "data.replay_fraction=0.4", "data.replay_decay=0.5",
]  # fmt: skip
RECIPES: dict[str, list[str]] = {
    "plain": [],
    "EMA": ["callbacks=ema", "callbacks.last.minutes=1e-9"],
    "SAM": ["optimizer=sam", "optimizer.base.lr=1e-3"],
    "one worker": ["data.workers=1"],
    "two workers": ["data.workers=2"],
    "replay": OLD,
    "accumulated gradients": ["trainer.accumulate_grad_batches=4"],
    "validation by steps": ["trainer.val_check_interval=4", "trainer.check_val_every_n_epoch=null"],
    "early stopping": ["callbacks=early_stopping", "callbacks.last.minutes=1e-9", "callbacks.early_stopping.patience=2",
                       "callbacks.early_stopping.mode=max"],
    "without a cache": ["data.cache_mb=0"],
}  # fmt: skip


UNRESTORED = {"dirpath", "best_k_models", "current_score"}  # paths, and a score that Lightning only shows


class Killed(BaseException):
    """Stands for a kill: it passes through everything."""


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A function that trains, interrupted in given batches, counted over the run, and resumed after each."""
    step = TrainingModule.training_step

    def run(folder: Path, batches: Sequence[int], *overrides: str) -> Path:
        for number, batch in enumerate((*batches, None)):

            def stop(module: TrainingModule, *its: Any, at: int | None = batch) -> Any:
                if module.trainer.fit_loop.epoch_loop.total_batch_idx == at:
                    raise Killed
                return step(module, *its)

            monkeypatch.setattr(TrainingModule, "training_step", stop)
            resume = [f"resume={folder}"] if number else []
            if batch is None:
                run_train(folder, *overrides, *resume)
            else:
                with pytest.raises(Killed):
                    run_train(folder, *overrides, *resume)
        return folder

    return run


def state(folder: Path) -> dict[str, Any]:
    """What a run has learned, and what it remembers for its next steps."""
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    kept = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers", "global_step")
    found = {key: content[key] for key in kept if key in content}
    found["best"] = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    found["callbacks"] = {
        name: {key: value for key, value in its.items() if "path" not in key and key not in UNRESTORED}
        for name, its in content["callbacks"].items()
        if not name.startswith(("Throughput", "Timer"))
    }
    found["metrics"] = content["htr"]["metrics"]
    return found


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: row[key] for key in row if key != "train/lines_per_second"} for row in csv.DictReader(file)]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("recipe", RECIPES)
def test_interrupted_and_resumed_runs_equal_uninterrupted_ones(recipe: str, tmp_path: Path, killed) -> None:
    overrides = [*QUICK, *RECIPES[recipe]]
    whole = run_train(tmp_path / "whole", *overrides)
    # before the last batch of an epoch, before the first one of an epoch, and within one
    parts = killed(tmp_path / "parts", (5, 6, 13), *overrides)
    one, other = state(whole), state(parts)
    assert one.keys() == other.keys()
    for key in one:
        assert same(one[key], other[key]), key
    assert rows(whole) == rows(parts)
