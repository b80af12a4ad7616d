"""A run that is interrupted anywhere and resumed is the same, byte for byte, as a run that is not interrupted."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, run_train

from htr_lightning.training.module import TrainingModule

QUICK = [
    *SMALL, "data.reader.lines={train: 24, val: 3, test: 3}", "data.max_lines=4", "model.net.dropout=0.2",
    "augment=mild", "trainer.max_epochs=2", "logger=csv", "callbacks.last.minutes=1e-9", "trainer.precision=32-true",
]  # fmt: skip # 6 steps per epoch; a checkpoint before each
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
    "early stopping": ["trainer.max_epochs=3", "callbacks=early_stopping", "callbacks.last.minutes=1e-9",
                       "callbacks.early_stopping.patience=2", "callbacks.early_stopping.mode=max"],
    "without a cache": ["data.cache_mb=0"],
}  # fmt: skip


ROOT = Path(__file__).parent.parent.parent
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


SPEED = ("train/lines_per_second", "train/pixels_per_second", "train/waiting")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: row[key] for key in row if key not in SPEED} for row in csv.DictReader(file)]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


QUICKEST = ("EMA", "two workers", "replay")  # with averages, other processes, a second reader; the rest take minutes


@pytest.mark.parametrize(
    "recipe", [name if name in QUICKEST else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]
)
def test_interrupted_and_resumed_runs_equal_uninterrupted_ones(recipe: str, tmp_path: Path, killed) -> None:
    overrides = [*QUICK, *RECIPES[recipe]]
    whole = run_train(tmp_path / "whole", *overrides)
    # within an epoch, after the first step of all recipes, before its last batch, and before the first one of an epoch
    parts = killed(tmp_path / "parts", (4, 5, 6), *overrides)
    one, other = state(whole), state(parts)
    assert one.keys() == other.keys()
    for key in one:
        assert same(one[key], other[key]), key
    assert rows(whole) == rows(parts)


def test_workers_and_memory_do_not_change_what_is_learned(tmp_path: Path) -> None:
    one = run_train(tmp_path / "one", *QUICK, "data.workers=0")
    other = run_train(tmp_path / "other", *QUICK, "data.workers=1", "data.cache_mb=0")
    assert same(state(one), state(other))
    assert rows(one) == rows(other)


def test_a_run_that_is_asked_to_stop_continues_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*QUICK, "callbacks.last.minutes=10.0"]
    step = TrainingModule.training_step
    whole = run_train(tmp_path / "whole", *overrides)

    def stop(module: TrainingModule, *batch: Any) -> Any:
        if module.global_step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(module, *batch)

    monkeypatch.setattr(TrainingModule, "training_step", stop)
    with pytest.raises(SystemExit):
        run_train(tmp_path / "parts", *overrides)
    monkeypatch.setattr(TrainingModule, "training_step", step)
    run_train(tmp_path / "parts", *overrides, f"resume={tmp_path}/parts")
    assert same(state(whole), state(tmp_path / "parts"))
    assert rows(whole) == rows(tmp_path / "parts")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_killed_at_random_moments_equals_one_that_was_not(ranks: int, tmp_path: Path) -> None:
    draw = random.Random(ranks)
    more = ["trainer.max_epochs=3", f"trainer.devices={ranks}", "trainer.accelerator=cpu"]
    train = [sys.executable, str(ROOT / "train.py"), *QUICK, *more]
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    subprocess.run([*train, f"hydra.run.dir={tmp_path}/whole"], cwd=ROOT, check=True, capture_output=True)
    for _ in range(2):
        before = last.stat().st_mtime if last.exists() else 0
        process = subprocess.Popen(
            [*train, "resume=auto", f"hydra.run.dir={tmp_path}/parts"], cwd=ROOT, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while process.poll() is None and (not last.exists() or last.stat().st_mtime == before):
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 1))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    command = [*train, "resume=auto", f"hydra.run.dir={tmp_path}/parts"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert same(state(tmp_path / "whole"), state(tmp_path / "parts"))
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
