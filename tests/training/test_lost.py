"""A process of a run that dies is named in one line, in place of the errors that this causes in the others."""

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver

from htr_lightning.errors import InputError
from htr_lightning.training import lost
from htr_lightning.training.lost import naming_lost

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals")
GLOO = RuntimeError("[gloo/pair.cc:545] Read error [127.0.0.1]:2451: Connection reset by peer. This is typical.\nMore")


def trainer(ranks: int = 2, rank: int = 0, started: Sequence[subprocess.Popen] = ()) -> Any:
    """Return a trainer on one of several ranks, which has started the others if it is the first."""
    launcher = SimpleNamespace(procs=started) if started else None
    return Mock(
        spec=Trainer, callbacks=[], world_size=ranks, global_rank=rank, strategy=SimpleNamespace(launcher=launcher)
    )


@pytest.fixture
def fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A function that raises an error in a run whose other ranks end as given, and returns the message."""
    monkeypatch.setattr(lost, "WAIT", 0.2)

    def call(error: Exception, ranks: int = 2, rank: int = 0, programs: tuple[str, ...] = ()) -> str:
        started = [subprocess.Popen(["sh", "-c", program]) for program in programs]
        try:
            with pytest.raises(InputError) as told, naming_lost(trainer(ranks, rank, started), tmp_path):
                raise error
        finally:
            for process in started:
                process.kill()
                process.wait()
        return str(told.value)

    return call


@posix
def test_the_rank_that_has_ended_is_named(fail: Callable[..., str], tmp_path: Path) -> None:
    assert fail(GLOO, ranks=3, programs=("sleep 9", "kill -9 $$")) == "rank 2 ended by SIGKILL"
    told = fail(torch.distributed.DistBackendError("NCCL error"), programs=("exit 1",))
    assert told == "rank 1 ended with exit code 1; see the messages above or train.log"
    assert fail(GLOO, ranks=3, programs=("exit 1", "kill -9 $$")) == "rank 2 ended by SIGKILL"  # the other noticed it
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert fail(GLOO, programs=("kill -9 $$",)) == f"rank 1 ended by SIGKILL; continue with resume={tmp_path}"


@posix
def test_a_rank_that_knows_no_other_states_the_reason(fail: Callable[..., str]) -> None:
    reason = str(GLOO).partition(". ")[0]
    assert fail(GLOO, rank=1) == f"rank 1 lost another rank, whose message may say why ({reason})"
    assert fail(GLOO, programs=("sleep 9",)).startswith("rank 0 lost another rank")


def test_a_loading_process_that_is_killed_is_told(fail: Callable[..., str]) -> None:
    reason = "DataLoader worker (pid 7) is killed by signal: Killed"
    expected = f"a loading process has died, perhaps for lack of memory ({reason}); reduce data.workers"
    assert fail(RuntimeError(f"{reason}. "), ranks=1) == expected


@pytest.mark.parametrize(("ranks", "error"), [(1, GLOO), (2, RuntimeError("shapes differ")), (2, ValueError("gloo"))])
def test_other_errors_are_kept(ranks: int, error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as found, naming_lost(trainer(ranks), tmp_path):
        raise error
    assert found.value is error


@posix
def test_lightning_does_not_kill_a_rank_that_reports_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen(["sh", "-c", "exit 1"])
    process.wait()
    observer = _ChildProcessObserver(0, [process], sleep_period=0)  # type: ignore[list-item]
    monkeypatch.setattr(observer, "_terminate_all", lambda: pytest.fail("killed"))
    first = trainer()
    with naming_lost(first, tmp_path):
        (spared,) = first.callbacks
        monkeypatch.setattr(threading, "enumerate", lambda: [observer])
        spared.on_exception(first, LightningModule(), RuntimeError("shapes differ"))
        assert observer._child_processes == [process]  # Lightning still ends ranks that hang
        spared.on_exception(first, LightningModule(), GLOO)
    assert observer._run()
