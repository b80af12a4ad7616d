"""What remains of a run that a signal, a dying process, a loss that is not finite or a full disk ends: a table.

`make test-slow ARGS="tests/training/test_deaths.py -s"` prints a row for each case.
"""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
import torch
from conftest import SMALL

from htr_lightning import checkpoint
from htr_lightning.training.divergence import reproduce

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]
ROOT = Path(__file__).parent.parent.parent
QUICK = [
    *SMALL, "data.reader.lines={train: 24, val: 3, test: 3}", "data.max_lines=4", "logger=csv",
    "trainer.accelerator=cpu", "callbacks.last.minutes=1e-9", "trainer.precision=32-true",
]  # fmt: skip # 6 steps per epoch; a checkpoint before each
HEAD = ("case", "ranks", "exit code", "seconds", "processes left", "saved", "message")


class Case(NamedTuple):
    """A fault (see `Fault`), where and in which run it happens, and what it must lead to."""

    kind: str
    code: int
    message: str
    ranks: int = 1
    rank: int = 0
    steps: int | None = 4  # in last.ckpt: those before the fault; a signal lets the step end; None: a few more
    overrides: tuple[str, ...] = ()


def stopped(name: str, who: str = "", **others: Any) -> Case:
    """Return a case in which a signal is sent to a run."""
    return Case(f"{name} {who}", 128 + getattr(signal, name), f"stopped by {name} at step", **{"steps": 5} | others)


SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")
CASES = {
    **{name: stopped(name) for name in SIGNALS},
    **{f"{name}, ranks": stopped(name, ranks=2) for name in SIGNALS},
    "SIGINT to all, as by Ctrl-C": stopped("SIGINT", "group", ranks=2),
    "SIGTERM to rank 1": stopped("SIGTERM", ranks=2, rank=1),
    "SIGTERM to a sweep": stopped("SIGTERM", "parent", overrides=("-m", "seed=1,2"), steps=None),
    "SIGTERM to a sweep, ranks": stopped("SIGTERM", "parent", overrides=("-m", "seed=1,2"), ranks=2, steps=None),
    "rank 1 killed": Case("SIGKILL", 1, "error: rank 1 ended by SIGKILL; continue with resume=", ranks=2, rank=1),
    "rank 0 killed": Case("SIGKILL", -9, "error: rank 1 lost another rank", ranks=2),
    "loading process killed": Case("worker", 1, "error: a loading process has died", overrides=("data.workers=1",)),
    "NaN": Case("nan", 1, "error: step 4: the loss is nan (lines: "),
    "NaN on rank 1": Case("nan", 1, "error: step 4: the loss is nan (lines: ", ranks=2, rank=1),
    "disk full at a checkpoint": Case("full until the end", 1, "(No space left on device; the previous checkpoint is"),
    "disk full at the log": Case(
        "full", 0, "metrics.csv: not written (No space left on device); the run goes on", steps=18,
        overrides=("+callbacks.fault.step=0", "callbacks.last.minutes=10.0", "+logger.csv.flush_logs_every_n_steps=1"),
    ),
    "disk full at the predictions": Case(
        "full at the test", 0, "predictions.jsonl: not written (No space left on device); the run goes on", steps=18
    ),
}  # fmt: skip


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 8 MB, if this user may mount one, or else a folder."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True)
    yield folder
    if mounted.returncode == 0:
        subprocess.run(["umount", folder], check=True)


def alive(mark: str) -> list[int]:
    """Return the processes that have a mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # ended meanwhile, or of another user
            continue
    return found


@pytest.fixture(scope="module")
def table() -> Iterator[list[tuple[object, ...]]]:
    rows: list[tuple[object, ...]] = [HEAD, ("---",) * len(HEAD)]
    yield rows
    print("", *("| " + " | ".join(map(str, row)) + " |" for row in rows), sep="\n")


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_ends_early_leaves_its_last_state_and_no_process(
    name: str, tmp_path: Path, disk: Path, table: list[tuple[object, ...]]
) -> None:
    case, mark = CASES[name], uuid4().hex
    if case.kind.startswith("full") and not disk.is_mount():
        pytest.skip("mounting a disk needs root")
    sweeps = "-m" in case.overrides
    fault = ["+callbacks.fault._target_=fault.Fault", f"+callbacks.fault.kind='{case.kind}'",
             f"+callbacks.fault.folder={disk}", f"+callbacks.fault.rank={case.rank}"]  # fmt: skip
    place = f"hydra.sweep.dir={disk}/sweep" if sweeps else f"hydra.run.dir={disk}/run"
    command = [sys.executable, str(ROOT / "train.py"), *(["-m"] if sweeps else []), *QUICK, *fault, place,
               f"trainer.devices={case.ranks}", "trainer.max_epochs=3"]  # fmt: skip
    command += [one for one in case.overrides if one != "-m"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "training")])
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths, "MARK": mark}, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
        code = process.wait(250)
    until = time.time() + 30
    while (left := alive(mark)) and time.time() < until:
        time.sleep(0.05)
    seconds = time.time() - float((tmp_path / "fault").read_text())
    said = (tmp_path / "out").read_text()
    run = disk / "sweep" / "0" if sweeps else disk / "run"
    last = run / "checkpoints" / "last.ckpt"
    checkpoint.load(last)
    steps = torch.load(last, weights_only=True)["global_step"]
    more = [*run.glob("checkpoints/best.ckpt"), *run.glob("nonfinite*.pt")]
    told = [line for line in said.splitlines() if case.message in line]
    shown = (told or said.splitlines())[0].replace(f"{disk}/", "").replace(f"{tmp_path}/", "")
    table.append((name.removesuffix(", ranks"), case.ranks, code, f"{seconds:.1f}", len(left),
                  ", ".join([f"step {steps}", *(path.name for path in more)]), shown))  # fmt: skip
    assert told, said
    assert "Traceback" not in said, said
    assert (code, left) == (case.code, []), said
    assert seconds < 30
    assert case.steps is None or steps == case.steps
    if case.kind == "nan":
        assert not math.isfinite(reproduce(next(run.glob("nonfinite*.pt"))).losses[0])
    if case.kind == "full":
        rows = (run / "metrics.csv").read_text().splitlines()
        column = rows[0].split(",").index("train/loss")
        assert sum(bool(row.split(",")[column]) for row in rows[1:]) == 18
