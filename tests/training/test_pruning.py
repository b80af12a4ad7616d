"""Pruning: bad trials of an Optuna sweep end at a validation."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from lightning import LightningModule, Trainer
from omegaconf import OmegaConf

from htr_lightning.errors import InputError
from htr_lightning.training import pruning
from htr_lightning.training.pruning import Pruning
from htr_lightning.training.study import PRUNED, open_study
from htr_lightning.training.sweep_job import read_record

MODULE = Mock(spec=LightningModule)


def trainer(step: int, score: float, rank: int = 0, decision: bool | None = None) -> Any:
    """Return a trainer after a validation; `decision` is what rank 0 decided, if it is not this rank."""
    found = Mock(spec=Trainer)
    found.state, found.sanity_checking, found.should_stop = SimpleNamespace(fn="fit"), False, False
    found.callback_metrics, found.global_step, found.is_global_zero = {"val/cer": score}, step, rank == 0
    found.strategy = SimpleNamespace(broadcast=lambda mine: mine if decision is None else decision)
    return found


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Config of Hydra in the second job of a sweep whose first has finished with scores of 0.5 and 0.3."""
    settings = {"storage": f"{tmp_path}/study.journal", "study_name": "s", "direction": "minimize"}
    study = open_study(settings)
    first = study.ask()
    first.report(0.5, 10)
    first.report(0.3, 20)
    study.tell(first, 0.3)
    pruner = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 1, "n_warmup_steps": 0}
    hydra = OmegaConf.create(
        {"job": {"num": study.ask().number}, "sweeper": settings | {"pruner": pruner},
         "runtime": {"output_dir": str(tmp_path)}}
    )  # fmt: skip
    monkeypatch.setattr(pruning, "HydraConfig", SimpleNamespace(initialized=lambda: True, get=lambda: hydra))
    return hydra


def test_a_trial_that_becomes_worse_than_the_median_is_pruned(job: Any, tmp_path: Path) -> None:
    callback = Pruning()
    better, worse = trainer(10, 0.4), trainer(20, 0.35)
    callback.setup(better, MODULE, "fit")
    for one in (better, worse):
        callback.on_validation_end(one, MODULE)
    assert (better.should_stop, worse.should_stop) == (False, True)
    trial = open_study(dict(job.sweeper) | {"pruner": None}).trials[1]
    assert trial.intermediate_values == {10: 0.4, 20: 0.35}
    assert trial.user_attrs[PRUNED] == 20
    assert read_record(tmp_path) == {"state": "pruned"}


def test_other_ranks_stop_with_the_first(job: Any) -> None:
    callback, one = Pruning(), trainer(10, 0.4, rank=1, decision=True)
    callback.setup(one, MODULE, "fit")
    callback.on_validation_end(one, MODULE)
    assert one.should_stop


def test_pruning_needs_a_study(job: Any) -> None:
    job.sweeper = {"max_batch_size": None}
    with pytest.raises(InputError, match="add -m hydra/sweeper=optuna"):
        Pruning().setup(trainer(10, 0.4), MODULE, "fit")
