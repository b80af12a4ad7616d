"""Training runs: output folder, results, checkpoint and resuming."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RUN, SMALL, run_train
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf

from htr_lightning import checkpoint
from htr_lightning.build import data_for
from htr_lightning.errors import InputError
from htr_lightning.evidence.evaluate import evaluate
from htr_lightning.slots import FORMAT
from htr_lightning.training.callbacks import RestoreBest
from htr_lightning.training.checkpoint_io import AtomicCheckpointIO
from htr_lightning.training.module import TrainingModule
from htr_lightning.transcription import PREDICTIONS, write_predictions

ROOT = Path(__file__).parent.parent.parent
SUMMARY = {
    "val_cer", "val_wer", "test_cer", "test_wer", "test_edits", "test_characters", "test_lines", "seconds",
    "lines_per_second", "checkpoint",
}  # fmt: skip


def command(*overrides: str) -> list[str]:
    options = [word for word in overrides if word == "-m"]  # must precede the overrides
    return [sys.executable, str(ROOT / "train.py"), *options, *SMALL, *(o for o in overrides if o not in options)]


def finish(*overrides: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*overrides), cwd=cwd, capture_output=True, text=True, timeout=280)


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_a_run_writes_the_documented_files(run_folder: Path) -> None:
    figures = summary(run_folder)
    assert set(figures) >= SUMMARY
    assert figures["test_cer"] == pytest.approx(figures["test_edits"] / figures["test_characters"])
    assert figures["test_lines"] == 24
    assert (run_folder / figures["checkpoint"]).is_file()
    assert not Path(figures["checkpoint"]).is_absolute()  # the folder can be copied
    assert "val/cer" in (run_folder / "metrics.csv").read_text()
    assert list((run_folder / "transcriptions").glob("val_step_*.png"))
    assert (run_folder / "transcriptions" / "test.png").is_file()
    assert list((run_folder / "wandb").glob("offline-run-*"))


def test_the_saved_config_needs_no_resolvers(run_folder: Path) -> None:
    path = run_folder / ".hydra" / "config.yaml"
    assert "${" not in path.read_text()
    config = OmegaConf.load(path)
    assert (config.name, config.run_dir, config.trainer.max_epochs) == ("crnn-synthetic", str(run_folder), 2)
    assert config.data.preprocess == config.model.preprocess


def test_the_checkpoint_is_plain_data_and_records_its_origin(best: Path) -> None:
    card = torch.load(best, weights_only=True)["htr"]
    assert card["format"] == FORMAT
    assert card["data"]["test"]["lines"] == 24
    assert len(card["data"]["train"]["sha256"]) == 64
    assert card["metrics"]["val"]["lines"] == 16
    assert {"alphabet", "model", "training", "metric", "commit", "versions"} <= set(card)
    assert "optimizer" not in card["model"]


def test_resuming_continues_where_the_run_stopped(
    run_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    last = run_folder / "checkpoints" / "last.ckpt"
    steps = torch.load(last, weights_only=True)["global_step"]
    run_train(tmp_path / "on", *RUN, "trainer.max_epochs=3", f"resume={last}")
    assert torch.load(tmp_path / "on" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] > steps
    assert f"epoch 2, step {steps}" in " ".join(capfd.readouterr().out.split())


def test_resuming_a_finished_run_keeps_its_best_checkpoint(run_folder: Path, tmp_path: Path) -> None:
    run_train(tmp_path / "on", *RUN, "trainer.max_epochs=2", f"resume={run_folder}/checkpoints/last.ckpt")
    old, new = summary(run_folder), summary(tmp_path / "on")
    assert {key: new[key] for key in ("val_cer", "test_edits")} == {key: old[key] for key in ("val_cer", "test_edits")}
    assert new["checkpoint"] == "checkpoints/best.ckpt"


@pytest.mark.parametrize("where", ["outside", "beside"])
def test_only_the_best_checkpoint_beside_the_resumed_one_is_copied(best: Path, tmp_path: Path, where: str) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    other = (folder if where == "beside" else tmp_path) / "best.ckpt"
    shutil.copy(best, other)
    content = checkpoint.read(best)
    callback = ModelCheckpoint(tmp_path / "new", "best", "val/cer", auto_insert_metric_name=False)
    state = callback.state_dict() | {
        "best_model_path": str(tmp_path / "best.ckpt"),
        "best_model_score": torch.zeros(()),
    }
    content["callbacks"] = {callback.state_key: state}
    checkpoint.write(content, folder / "last.ckpt")
    trainer = Trainer(callbacks=[callback], logger=False, accelerator="cpu")
    trainer.ckpt_path = folder / "last.ckpt"
    callback.best_model_path = "s3://bucket/best.ckpt"  # restored by Lightning, which would delete it
    RestoreBest().on_fit_start(trainer, LightningModule())
    assert callback.best_model_path == (str(tmp_path / "new" / "best.ckpt") if where == "beside" else "")
    assert (tmp_path / "new" / "best.ckpt").exists() == (where == "beside")


def test_resuming_with_a_different_network_or_alphabet_is_rejected(run_folder: Path, tmp_path: Path) -> None:
    last = f"resume={run_folder}/checkpoints/last.ckpt"
    for other in ("model.net.hidden=24", "data.reader.words=package:french.txt"):
        with pytest.raises(InputError, match="a different alphabet or network"):
            run_train(tmp_path / "on", *RUN, "trainer.max_epochs=3", last, other)


def test_a_run_without_a_limit_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the run has no limit"):
        run_train(tmp_path / "run", *SMALL)


def test_the_last_step_is_saved_and_validated(tmp_path: Path) -> None:
    run = run_train(tmp_path / "run", *SMALL, "trainer.max_steps=7", "trainer.val_check_interval=2")
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 7


@pytest.mark.parametrize(
    "bound", [["trainer.max_steps=12"], ["trainer.max_epochs=2"], ["trainer.max_time=00:00:00:04"]], ids=str
)
def test_progress_runs_from_zero_to_one_for_every_kind_of_limit(bound: list[str], tmp_path: Path) -> None:
    logging = ["+callbacks.learning_rate.logging_interval=step", "scheduler.warmup=0.0", "scheduler.end=0.0"]
    run = run_train(tmp_path / "run", *SMALL, *bound, *logging)
    rows = [row.split(",") for row in (run / "metrics.csv").read_text().splitlines()]
    column = next(i for i, name in enumerate(rows[0]) if name.startswith("lr-"))
    rates = [float(row[column]) for row in rows[1:] if row[column]]
    assert rates == sorted(rates, reverse=True)  # the cosine falls with progress
    assert rates[0] > 0.9 * 2e-3
    assert rates[-1] < 0.15 * 2e-3
    assert summary(run)["seconds"] < 4 + 10


def test_early_stopping_follows_the_validation_loss(tmp_path: Path) -> None:
    """With mode=max, a decreasing loss is not an improvement."""
    run = run_train(
        tmp_path / "run", *SMALL, "trainer.max_epochs=20", "callbacks=early_stopping",
        "callbacks.early_stopping.mode=max", "callbacks.early_stopping.patience=2",
    )  # fmt: skip
    names, *rows = (row.split(",") for row in (run / "metrics.csv").read_text().splitlines())
    figures = [dict(zip(names, row, strict=True)) for row in rows]
    losses = [float(row["val/loss"]) for row in figures if row["val/loss"]]
    assert len(losses) == 3  # the first, and two without improvement
    assert losses == sorted(losses, reverse=True)


def test_every_epoch_is_validated_even_if_later_epochs_are_shorter(tmp_path: Path) -> None:
    old = ["data@replay=synthetic", "replay.reader.lines={train: 48, val: 4, test: 4}", "replay.reader.length=[1, 2]",
           "data.replay_decay=0.3", "trainer.max_epochs=4"]  # fmt: skip
    run = run_train(tmp_path / "run", *SMALL, *old)
    names, *rows = (row.split(",") for row in (run / "metrics.csv").read_text().splitlines())
    figures = [dict(zip(names, row, strict=True)) for row in rows]
    assert [row["epoch"] for row in figures if row["val/cer"]] == ["0", "1", "2", "3"]
    steps = [int(row["step"]) for row in figures if row["val/cer"]]
    assert steps[1] - steps[0] < steps[0] + 1  # later epochs are shorter


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_a_run_that_is_asked_to_stop_saves_its_state(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    step, number = TrainingModule.training_step, getattr(signal, name)
    handler = signal.getsignal(number)

    def stop(module: TrainingModule, *batch: Any) -> Any:
        if module.global_step == 3:
            os.kill(os.getpid(), number)
        return step(module, *batch)

    monkeypatch.setattr(TrainingModule, "training_step", stop)
    with pytest.raises(SystemExit) as stopped:
        run_train(tmp_path / "run", *SMALL, "trainer.max_epochs=5", "logger=csv")
    assert stopped.value.code == 128 + number
    assert signal.getsignal(number) is handler
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 4  # the step during which the signal came is finished
    assert last["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["completed"] == 4
    said = " ".join(capfd.readouterr().out.split())
    assert f"stopped by {name} at step 4; continue with resume=" in said


def test_a_second_signal_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(module: TrainingModule, *batch: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("still training")

    monkeypatch.setattr(TrainingModule, "training_step", stop)
    with pytest.raises(SystemExit) as stopped:
        run_train(tmp_path / "run", *SMALL, "logger=csv")
    assert stopped.value.code == 128 + signal.SIGINT
    assert not (tmp_path / "run" / "checkpoints").exists()


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["training", "measuring"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_two_ranks_stop_together(name: str, moment: str, tmp_path: Path) -> None:
    """Whichever rank receives the signal, and whatever they are exchanging then."""
    run = tmp_path / "run"
    many = ["model=crnn", "data.reader.lines={train: 20000, val: 8, test: 8}"] if moment == "measuring" else []
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command("trainer.devices=2", "trainer.max_epochs=1000", *many, f"hydra.run.dir={run}"),
            cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    deadline = time.time() + 240
    ready = run / "checkpoints" / "last.ckpt" if moment == "training" else run / "train.log"
    while not (ready.exists() and "training on" in (run / "train.log").read_text()) and time.time() < deadline:
        time.sleep(0.1)
    time.sleep(3)  # into an epoch, or into measuring the lines
    process.send_signal(getattr(signal, name))
    assert process.wait(60) == 128 + getattr(signal, name)
    deadline = time.time() + 30
    while _lives(process.pid) and time.time() < deadline:
        time.sleep(0.1)
    assert not _lives(process.pid)
    said = (tmp_path / "log").read_text()
    assert "Traceback" not in said
    if moment == "training":
        steps = torch.load(ready, weights_only=True)["global_step"]
        assert f"stopped by {name} at step {steps}" in " ".join(said.split())


@pytest.mark.slow
def test_two_ranks_obtain_the_same_counts_as_one_process(tmp_path: Path) -> None:
    lines = ["data.reader.lines={train: 96, val: 17, test: 23}", "data.max_lines=3"]
    two = finish(
        *lines, "trainer.max_steps=20", "trainer.devices=2", "trainer.accelerator=cpu", f"hydra.run.dir={tmp_path}/two"
    )
    assert two.returncode == 0, two.stderr
    assert "GLOBAL_RANK: 1, MEMBER: 2/2" in two.stdout + two.stderr
    best = tmp_path / "two" / "checkpoints" / "best.ckpt"
    recognizer = checkpoint.load(best)
    for split, expected in (("val", 17), ("test", 23)):
        predictions, one = evaluate(recognizer, data_for(recognizer, ["data.max_lines=3"]), split)
        assert one.lines == expected
        if split == "val":
            counted = torch.load(best, weights_only=True)["htr"]["metrics"]["val"]
            assert {key: counted[key] for key in one._fields} == one._asdict()
        else:
            assert summary(tmp_path / "two")["test_edits"] == one.edits
            assert summary(tmp_path / "two")["test_characters"] == one.characters
            write_predictions(tmp_path, predictions)
            assert (tmp_path / "two" / PREDICTIONS).read_bytes() == (tmp_path / PREDICTIONS).read_bytes()


def rank_processes(folder: Path) -> list[str]:
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in found if "train_ddp_process" in line and str(folder) in line]


@pytest.mark.slow
def test_a_sweep_over_ranks_leaves_one_folder_per_job_and_no_process(tmp_path: Path) -> None:
    done = finish(
        "-m", "trainer.devices=2,1", "trainer.accelerator=cpu", "trainer.strategy=ddp", "trainer.max_epochs=1",
        f"hydra.sweep.dir={tmp_path}/sweep",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folders = sorted(path.parent for path in (tmp_path / "sweep").glob("*/summary.json"))
    assert len(folders) == 2
    assert sorted(path for path in (tmp_path / "sweep").iterdir() if path.is_dir()) == folders
    assert {summary(folder)["test_lines"] for folder in folders} == {24}
    assert not rank_processes(tmp_path)


@pytest.mark.slow
def test_a_sweep_over_a_value_leaves_one_folder_per_job(tmp_path: Path) -> None:
    done = finish("-m", "optimizer.lr=1e-3,3e-3", "trainer.max_epochs=1", f"hydra.sweep.dir={tmp_path}/sweep")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "sweep").glob("*/summary.json"))) == 2


def test_a_full_disk_preserves_the_previous_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    saver = AtomicCheckpointIO()
    saver.save_checkpoint({"weights": torch.zeros(10)}, path)
    before = path.read_bytes()
    code = (
        "import resource, signal, sys, torch\n"
        "from htr_lightning import checkpoint, command\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"command.run(lambda: checkpoint.write({{'w': torch.zeros(10**6)}}, {str(path)!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 1
    assert str(path) in done.stderr
    assert "previous checkpoint is kept" in done.stderr
    assert "Traceback" not in done.stderr
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match=r"\.ckpt"):
        saver.save_checkpoint({}, tmp_path / "best.ckpt" / "under-a-file.ckpt")


def test_pictures_logs_and_summaries_that_cannot_be_written_do_not_end_a_run(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    run = tmp_path / "run"
    for name in ("metrics.csv", "predictions.jsonl", "summary.json"):
        (run / name).mkdir(parents=True)
    (run / "transcriptions").write_text("a file in place of a folder")
    (run / "train.log").symlink_to("/dev/full")
    run_train(run, *SMALL, "trainer.max_epochs=1", "logger=csv")
    assert (run / "checkpoints" / "best.ckpt").is_file()
    said = capfd.readouterr().err
    for name in ("metrics.csv", "predictions.jsonl", "summary.json", "transcriptions", "train.log"):
        lines = [line for line in said.splitlines() if name in line]
        assert lines, name
        assert all("the run goes on" in line for line in lines)
    assert "No space left on device" in said
    assert said.count("train.log") == 1
