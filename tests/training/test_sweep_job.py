"""Jobs of a sweep: a process each, their values and failures, continuing after a stop, and Optuna's trials."""

import csv
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

import train
from htr_lightning import command
from htr_lightning.errors import InputError
from htr_lightning.training import sweep_job
from htr_lightning.training.study import OWNER, REPEATS, distribution, done, open_study, own, release
from htr_lightning.training.sweep_job import described, read_record, record

posix = pytest.mark.skipif(not hasattr(os, "killpg"), reason="sessions of processes")
LR = "optimizer.lr=tag(log,interval(1e-4,1e-1))"
OPTUNA = ["hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=0"]


class Sweep:
    """Sweeps of `train.py` whose jobs call a function of their overrides in place of training.

    The function returns the value of the job, or raises an error.
    """

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder, self.patch = folder, patch
        self.arguments: list[list[str]] = []
        patch.setattr(sweep_job, "_run", self._run)

    def __call__(self, job: Callable[[dict[str, str]], float], *overrides: str) -> int:
        """Run a sweep, and return its exit code."""
        self.job = job
        self.patch.setattr(sys, "argv", ["train.py", "-m", "logger=csv", *overrides, f"hydra.sweep.dir={self.folder}"])
        try:
            command.run(train.train)
        except SystemExit as error:
            return int(error.code or 0)
        return 0

    def _run(self, arguments: list[str]) -> int:
        self.arguments.append(arguments)
        values = dict(one.split("=", 1) for one in arguments if "=" in one)
        folder = Path(values["hydra.run.dir"].strip('"'))
        try:
            value = self.job(values)
        except InputError as error:
            record(folder, error=described(error))
            return 1
        record(folder, value=value)
        figures = dict.fromkeys(("val_cer", "val_wer", "test_cer", "test_wer"), value)
        (folder / "summary.json").write_text(json.dumps(figures | {"seconds": 1.0}))
        return 0

    def states(self) -> dict[int, str]:
        return {int(path.parent.name): read_record(path.parent)["state"] for path in self.folder.glob("*/job.json")}


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sweep:
    return Sweep(monkeypatch, tmp_path / "sweep")


def loss(values: dict[str, str]) -> float:
    """A job that is best at a learning rate of 0.003, and fails with seed 3."""
    if values.get("seed") == "3":
        raise InputError("seed=3: unlucky; choose another")
    return abs(float(values["optimizer.lr"]) - 0.003)


def test_a_failed_job_is_reported_and_the_others_finish(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(loss, "seed=3,4", "optimizer.lr=1e-3,3e-3") == 1
    assert sweep.states() == {0: "failed", 1: "failed", 2: "done", 3: "done"}
    out, error = capsys.readouterr()
    assert "error: 2 of 4 jobs failed: 0 (seed=3 optimizer.lr=0.001): seed=3: unlucky; choose another; 1 (" in error
    assert f"best: {sweep.folder / '3'} (seed=4 optimizer.lr=0.003)" in out
    with open(sweep.folder / "sweep.tsv") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["state"] for row in rows] == ["done", "done", "failed", "failed"]
    assert float(rows[1]["val_cer"]) == pytest.approx(0.002)
    assert rows[3]["error"] == "seed=3: unlucky; choose another"
    assert cv2.imread(str(sweep.folder / "sweep.png")) is not None
    assert "job 3: seed=4, optimizer.lr=0.003" in (sweep.folder / "sweep.html").read_text()


def test_a_job_is_the_same_run_outside_the_sweep(sweep: Sweep) -> None:
    assert sweep(loss, "optimizer.lr=1e-3,3e-3", "start='a b'") == 0
    first = sweep.arguments[0]
    assert first[:4] == [sys.executable, "-m", "htr_lightning", "train"]
    assert {"optimizer.lr=0.001", "start='a b'", f'hydra.run.dir="{sweep.folder / "0"}"'} <= set(first)
    assert not any("," in one or one.startswith("hydra.mode") for one in first)


def test_a_stopped_sweep_continues(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(values: dict[str, str]) -> float:
        if values["optimizer.lr"] == "0.002":
            checkpoints = sweep.folder / "1" / "checkpoints"
            checkpoints.mkdir()
            (checkpoints / "last.ckpt").touch()
            raise SystemExit(128 + signal.SIGTERM)
        return loss(values)

    jobs = ["optimizer.lr=1e-3,2e-3,3e-3"]
    assert sweep(stopped, *jobs) == 143
    assert sweep.states() == {0: "done", 1: "running"}
    assert (sweep.folder / "sweep.tsv").is_file()
    assert sweep(loss, *jobs) == 0
    assert sweep.states() == {0: "done", 1: "done", 2: "done"}
    resumed = [[one for one in job if one.startswith("resume=")] for job in sweep.arguments]
    assert resumed == [
        [],
        [],
        [f'resume="{sweep.folder}/1/checkpoints/last.ckpt"'],
        [],
    ]  # the first job is not repeated
    assert sweep(loss, "optimizer.lr=5e-3,6e-3") == 1  # a folder with other jobs
    assert "contains another job" in capsys.readouterr().err


def test_optuna_minimises_and_a_folder_has_the_number_of_its_trial(sweep: Sweep) -> None:
    assert sweep(loss, *OPTUNA, "hydra.sweeper.n_trials=5", LR, "seed=choice(2,3)", "optimizer.weight_decay=0.1") == 1
    study = open_study({"storage": f"{sweep.folder}/study.journal", "study_name": "htr", "direction": "minimize"})
    states = sweep.states()
    assert sorted(states) == list(range(5)) == [trial.number for trial in study.trials]
    for trial, arguments in zip(study.trials, sweep.arguments, strict=True):
        assert f"optimizer.lr={trial.params['optimizer.lr']!r}" in arguments
        assert "optimizer.weight_decay=0.1" in arguments
        assert (trial.state.name, states[trial.number]) in {("COMPLETE", "done"), ("FAIL", "failed")}
        assert (trial.params["seed"] == "3") == (trial.state.name == "FAIL")
    results = OmegaConf.load(sweep.folder / "optimization_results.yaml")
    values = {n: read_record(sweep.folder / str(n))["value"] for n, state in states.items() if state == "done"}
    assert results.best_value == min(values.values()) == values[results.best_trial]
    assert sum(results.importances.values()) == pytest.approx(1)
    assert results.importances["optimizer.lr"] > results.importances.seed


def test_a_study_continues_up_to_its_number_of_trials(sweep: Sweep) -> None:
    def stopped(values: dict[str, str]) -> float:
        if len(sweep.arguments) == 2:
            raise SystemExit(128 + signal.SIGTERM)
        return loss(values)

    assert sweep(stopped, *OPTUNA, "hydra.sweeper.n_trials=3", LR) == 143
    assert sweep(loss, *OPTUNA, "hydra.sweeper.n_trials=3", LR) == 1  # the folder of the stopped trial is still there
    study = open_study({"storage": f"{sweep.folder}/study.journal", "study_name": "htr", "direction": "minimize"})
    assert [trial.state.name for trial in study.trials].count("COMPLETE") == 3
    assert len(done(study)) == 3
    stopped_trial, again = study.trials[1], study.trials[2]
    assert again.user_attrs[REPEATS] == stopped_trial.number
    assert again.params == stopped_trial.params
    rates = [trial.params["optimizer.lr"] for trial in study.trials if trial.number != 2]
    assert len(set(rates)) == len(rates)  # a sampler with the same seed would repeat them


class Killed(BaseException):
    """Stands for a kill: it passes through everything."""


def test_trials_of_a_killed_process_are_queued_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = open_study({"storage": tmp_path / "s.journal", "study_name": "s", "direction": "minimize"})
    (override,) = OverridesParser.create().parse_overrides(["x=interval(0,1)"])
    space = {"x": distribution(override)}
    killed, living, elsewhere = (study.ask(space) for _ in range(3))
    own(living)
    killed.set_user_attr(OWNER, f"{socket.gethostname()}:{2**22 + 1}")  # above the largest process number of Linux
    elsewhere.set_user_attr(OWNER, "another:1")
    with monkeypatch.context() as patch:
        patch.setattr(study, "tell", Mock(side_effect=Killed))  # after the values were queued
        with pytest.raises(Killed):
            release(study)
    release(study)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "RUNNING", "RUNNING", "WAITING"]
    assert [trial.number for trial in done(study)] == [1, 2]
    assert study.ask(space).params == killed.params


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("x=interval(0,1)", "FloatDistribution(high=1.0, log=False, low=0.0, step=None)"),
        ("x=tag(log,interval(1e-4,1e-2))", "FloatDistribution(high=0.01, log=True, low=0.0001, step=None)"),
        ("x=int(interval(1,4))", "IntDistribution(high=4, log=False, low=1, step=1)"),
        ("x=tag(log,int(interval(1,64)))", "IntDistribution(high=64, log=True, low=1, step=1)"),
        ("x=range(1,10,4)", "IntDistribution(high=9, log=False, low=1, step=4)"),  # 1, 5, 9
        ("x=range(3)", "IntDistribution(high=2, log=False, low=0, step=1)"),
        ("x=range(0,1,0.25)", "FloatDistribution(high=0.75, log=False, low=0.0, step=0.25)"),
        ("x=a,b", "CategoricalDistribution(choices=('a', 'b'))"),
        ("x=[1,2],[3]", "CategoricalDistribution(choices=('[1,2]', '[3]'))"),
        ("x='a b','c,d'", "CategoricalDistribution(choices=(\"'a b'\", \"'c,d'\"))"),
        ("x=shuffle(range(0,3))", None),  # the same values in any order
    ],
)
def test_hydra_sweeps_are_optuna_distributions(override: str, expected: str | None) -> None:
    (parsed,) = OverridesParser.create().parse_overrides([override])
    found = distribution(parsed)
    assert repr(found) == expected if expected else sorted(found.choices) == ["0", "1", "2"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("storage", ["nosuch://study", "/proc/study.journal"])
def test_a_storage_that_cannot_be_used_is_refused(storage: str) -> None:
    with pytest.raises(InputError, match=rf"^hydra\.sweeper\.storage={storage}: .+; choose another"):
        open_study({"storage": storage, "study_name": "s", "direction": "minimize"})


def test_an_interval_from_its_end_is_refused() -> None:
    (parsed,) = OverridesParser.create().parse_overrides(["x=interval(1,0)"])
    with pytest.raises(InputError, match=r"x=interval\(1,0\)"):
        distribution(parsed)


def python(tmp_path: Path, program: str) -> list[str]:
    (tmp_path / "program.py").write_text(program)
    return [sys.executable, "-S", str(tmp_path / "program.py")]


def ended(process: int) -> bool:
    """Return whether a process has ended, though its parent may not know yet."""
    try:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat")
        return state.is_file() and state.read_text().rpartition(")")[2].split()[0] == "Z"
    except ProcessLookupError:
        return True


@posix
def test_a_job_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_job, "GRACE", 0.5)
    program = f"""
import signal, subprocess, sys
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(100)"
rank = subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE)
rank.stdout.readline()
open({str(tmp_path / "rank")!r}, "w").write(str(rank.pid))
sys.exit(7)
"""
    assert sweep_job._run(python(tmp_path, program)) == 7
    process = int((tmp_path / "rank").read_text())
    until = time.monotonic() + 5
    while not ended(process) and time.monotonic() < until:
        time.sleep(0.01)
    assert ended(process)


@posix
@pytest.mark.parametrize(("sent", "seen"), [("SIGTERM", "SIGTERM"), ("SIGUSR1", "SIGUSR1"), ("SIGUSR2", "SIGTERM")])
def test_a_signal_reaches_the_job_and_then_the_launcher(tmp_path: Path, sent: str, seen: str) -> None:
    program = f"""
import signal, sys, time
def save(number, frame):
    open({str(tmp_path / "saved")!r}, "w").write(signal.Signals(number).name)
    sys.exit(128 + number)
for name in ("SIGTERM", "SIGUSR1"):
    signal.signal(getattr(signal, name), save)
open({str(tmp_path / "ready")!r}, "w").close()
time.sleep(100)
"""

    def send() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), getattr(signal, sent))

    requeued: list[Any] = []
    before = signal.signal(
        getattr(signal, sent), lambda number, frame: requeued.append((tmp_path / "saved").read_text())
    )
    thread = threading.Thread(target=send)
    thread.start()
    try:
        with pytest.raises(SystemExit) as stopped:
            sweep_job._run(python(tmp_path, program))
    finally:
        thread.join()
        signal.signal(getattr(signal, sent), before)
    assert stopped.value.code == 128 + getattr(signal, sent)
    assert requeued == [seen]  # submitit requeues a job after its state is saved


@pytest.mark.parametrize(
    ("variables", "overrides", "message"),
    [
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "1"}, [], "add hydra.run.dir=FOLDER"),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, [], "add hydra.run.dir=FOLDER"),
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0"}, ["-m"], "start it once, without torchrun"),
    ],
)
def test_processes_started_by_others_share_a_folder(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], overrides: list[str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["train.py", "seed=1", *overrides])
    with pytest.raises(InputError, match=message):
        train.train()
