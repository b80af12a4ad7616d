"""A run from start to end: its folder, its figures, its checkpoint, and going on after it was cut off."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import SMALL, run_train

from htr_lightning import checkpoint

ROOT = Path(__file__).parent.parent
SUMMARY = {
    "val_cer", "val_wer", "test_cer", "test_wer", "test_edits", "test_characters", "test_lines", "seconds",
    "lines_per_second", "checkpoint",
}  # fmt: skip


def command(*overrides: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *SMALL, *overrides]


def finish(*overrides: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*overrides), cwd=cwd, capture_output=True, text=True, timeout=280)


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_a_run_leaves_what_others_script_against(run_folder: Path) -> None:
    figures = summary(run_folder)
    assert set(figures) >= SUMMARY
    assert figures["test_cer"] == pytest.approx(figures["test_edits"] / figures["test_characters"])
    assert figures["test_lines"] == 24
    assert Path(figures["checkpoint"]).is_file()
    assert (run_folder / ".hydra" / "config.yaml").is_file()
    assert "val/cer" in (run_folder / "metrics.csv").read_text()
    assert list((run_folder / "transcriptions").glob("val_step_*.png"))
    assert (run_folder / "transcriptions" / "test.png").is_file()
    assert list((run_folder / "wandb").glob("offline-run-*"))


def test_the_checkpoint_is_plain_data_and_tells_where_it_comes_from(best: Path) -> None:
    card = torch.load(best, weights_only=True)["htr"]
    assert card["format"] == checkpoint.FORMAT
    assert card["data"]["test"]["lines"] == 24
    assert len(card["data"]["train"]["sha256"]) == 64
    assert card["metrics"]["val"]["lines"] == 16
    assert {"alphabet", "model", "training", "metric", "commit", "versions"} <= set(card)
    assert "optimizer" not in card["model"]


def test_resuming_goes_on_where_the_run_stopped(run_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    last = run_folder / "checkpoints" / "last.ckpt"
    steps = torch.load(last, weights_only=True)["global_step"]
    run_train(tmp_path / "on", *SMALL, "trainer.max_epochs=3", f"resume={last}")
    assert torch.load(tmp_path / "on" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] > steps
    assert f"epoch 2, step {steps}" in " ".join(capfd.readouterr().out.split())


@pytest.mark.slow
def test_a_killed_run_is_resumed_from_its_last_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        command("trainer.max_epochs=1000", f"hydra.run.dir={folder}"), cwd=ROOT, stdout=subprocess.DEVNULL
    )
    last = folder / "checkpoints" / "last.ckpt"
    deadline = time.time() + 120
    while not last.exists() and time.time() < deadline:
        time.sleep(0.1)
    time.sleep(0.7)  # into the next epoch
    process.send_signal(signal.SIGKILL)
    process.wait()
    steps = torch.load(last, weights_only=True)["global_step"]
    assert steps > 0
    done = finish(
        f"resume={last}", "trainer.max_epochs=200", f"trainer.max_steps={steps + 10}", f"hydra.run.dir={tmp_path}/on"
    )
    assert done.returncode == 0, done.stderr
    assert f"step {steps}" in " ".join(done.stdout.split())
    assert summary(tmp_path / "on")["test_lines"] == 24


@pytest.mark.slow
def test_two_ranks_count_the_same_integers_as_one(run_folder: Path, best: Path, tmp_path: Path) -> None:
    two = finish(
        f"resume={run_folder}/checkpoints/last.ckpt", "trainer.max_epochs=2", "trainer.devices=2",
        "trainer.accelerator=cpu", "trainer.strategy=ddp", "data.reader.lines={train: 96, val: 17, test: 23}",
        "data.max_lines=3", f"hydra.run.dir={tmp_path}/two",
    )  # fmt: skip
    assert two.returncode == 0, two.stderr
    one = run_train(
        tmp_path / "one", *SMALL, f"resume={run_folder}/checkpoints/last.ckpt", "trainer.max_epochs=2",
        "data.reader.lines={train: 96, val: 17, test: 23}", "data.max_lines=5",
    )  # fmt: skip
    assert summary(tmp_path / "two")["test_edits"] == summary(one)["test_edits"]
    assert summary(tmp_path / "two")["test_lines"] == summary(one)["test_lines"] == 23


def rank_processes() -> list[str]:
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in found if "train_ddp_process" in line]


@pytest.mark.slow
def test_a_sweep_over_one_and_two_ranks_leaves_a_folder_a_job_and_no_process(tmp_path: Path) -> None:
    done = finish(
        "-m", "trainer.devices=2,1", "trainer.accelerator=cpu", "trainer.strategy=ddp", "trainer.max_epochs=1",
        f"hydra.sweep.dir={tmp_path}/sweep",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folders = sorted(path.parent for path in (tmp_path / "sweep").glob("*/summary.json"))
    assert len(folders) == 2
    assert sorted(path for path in (tmp_path / "sweep").iterdir() if path.is_dir()) == folders
    assert {summary(folder)["test_lines"] for folder in folders} == {24}
    assert not rank_processes()


@pytest.mark.slow
def test_a_sweep_over_a_value_leaves_a_folder_a_job(tmp_path: Path) -> None:
    done = finish("-m", "optimizer.lr=1e-3,3e-3", "trainer.max_epochs=1", f"hydra.sweep.dir={tmp_path}/sweep")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "sweep").glob("*/summary.json"))) == 2


def test_the_clock_bounds_a_run_and_the_learning_rate_follows_it(tmp_path: Path) -> None:
    run_train(tmp_path / "run", *SMALL, "trainer.max_time=00:00:00:05", "+callbacks.learning_rate.logging_interval=step")
    rows = [row.split(",") for row in (tmp_path / "run" / "metrics.csv").read_text().splitlines()]
    column = next(i for i, name in enumerate(rows[0]) if name.startswith("lr-"))
    rates = [float(row[column]) for row in rows[1:] if row[column]]
    assert max(rates) > 0.9 * 2e-3
    assert rates[-1] < 0.1 * max(rates)
    assert summary(tmp_path / "run")["seconds"] < 5 + 10


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    from htr_lightning.errors import InputError

    path = tmp_path / "best.ckpt"
    saver = checkpoint.AtomicCheckpointIO()
    saver.save_checkpoint({"weights": torch.zeros(10)}, path)
    before = path.read_bytes()
    code = (
        "import resource, signal, sys, torch\n"
        "from htr_lightning import checkpoint, command\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"command.run(lambda: checkpoint.AtomicCheckpointIO().save_checkpoint({{'w': torch.zeros(10**6)}}, {str(path)!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 1
    assert str(path) in done.stderr
    assert "previous one is kept" in done.stderr
    assert "Traceback" not in done.stderr
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match=r"\.ckpt"):
        saver.save_checkpoint({}, tmp_path / "best.ckpt" / "under-a-file.ckpt")
