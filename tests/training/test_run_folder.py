"""The folder of a run: found by name, used by one process at a time, and continued when the run is resumed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import SMALL, run_train
from omegaconf import OmegaConf

import train
from htr_lightning.errors import InputError
from htr_lightning.training import run_folder as folders
from htr_lightning.training.run_folder import checkpoint_to_resume, locked, newest, run_folder


def run(name: str, day: str, age: float) -> Path:
    """Create the folder of a run below the working directory, whose checkpoint was saved some seconds ago."""
    folder = Path("runs") / day / name
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(f"name: {name.partition('-')[2]}\n")
    (folder / "checkpoints").mkdir()
    torch.save({"global_step": 1}, folder / "checkpoints" / "last.ckpt")
    os.utime(folder / "checkpoints" / "last.ckpt", (1e9 - age, 1e9 - age))
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folders.run_folder.cache_clear()
    folders.new_folder.cache_clear()
    return tmp_path


def test_auto_finds_the_newest_complete_checkpoint_of_the_same_name(here: Path) -> None:
    run("1-crnn", "monday", 30)
    expected = run("2-crnn", "tuesday", 20)
    cut = run("3-crnn", "tuesday", 10) / "checkpoints" / "last.ckpt"
    cut.write_bytes(cut.read_bytes()[:-30])
    os.utime(cut, (1e9 - 10, 1e9 - 10))
    run("4-vit", "tuesday", 5)
    assert newest("crnn") == expected
    assert run_folder("auto", "crnn", "runs/new") == str(expected)
    assert newest("mlp") is None
    assert run_folder("auto", "mlp", "runs/new") == "runs/new"
    assert checkpoint_to_resume("auto", expected) == expected / "checkpoints" / "last.ckpt"
    assert checkpoint_to_resume("auto", here) is None


def test_a_damaged_byte_makes_a_checkpoint_incomplete(here: Path) -> None:
    path = run("1-crnn", "monday", 0) / "checkpoints" / "last.ckpt"
    assert folders.is_complete(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"global_step")] ^= 1
    path.write_bytes(content)
    assert not folders.is_complete(path)


def test_a_resumed_run_continues_in_its_own_folder(here: Path) -> None:
    own = run("1-crnn", "monday", 0)
    assert run_folder(str(own), "other", "runs/new") == str(own)
    assert run_folder(str(own / "checkpoints" / "last.ckpt"), "other", "runs/new2") == str(own)
    shutil.copy(own / "checkpoints" / "last.ckpt", here / "copy.ckpt")
    assert run_folder(str(here / "copy.ckpt"), "other", "runs/new3") == "runs/new3"
    assert checkpoint_to_resume(str(own), here) == own / "checkpoints" / "last.ckpt"
    (here / "empty").mkdir()
    with pytest.raises(InputError, match=r"resume=empty: this folder has no checkpoints/last\.ckpt"):
        checkpoint_to_resume("empty", here)


LOCK = """
import sys
from pathlib import Path
from htr_lightning.training.run_folder import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    input()
"""


def test_a_second_process_is_refused_until_the_first_one_ends_or_is_killed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LOCK, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(InputError, match="another process is using this run folder"), locked(tmp_path):
        pass
    with pytest.raises(InputError, match="another process is using this run folder"):
        run_train(tmp_path, *SMALL, "trainer.max_epochs=1", "logger=csv")
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]  # also the config of the other process is kept
    assert (tmp_path / ".lock").exists()
    process.kill()
    process.communicate()
    with locked(tmp_path):
        assert (tmp_path / ".lock").exists()
    assert not (tmp_path / ".lock").exists()


def test_find_does_not_touch_the_run_that_it_cannot_resume(here: Path) -> None:
    own = run("1-crnn", "monday", 0)
    config = (own / ".hydra" / "config.yaml").read_bytes()
    with pytest.raises(InputError, match=r"find=lr: starts from new weights, so resume=.* would have no effect"):
        run_train(own, *SMALL, "find=lr", f"resume={own}")
    assert (own / ".hydra" / "config.yaml").read_bytes() == config


def test_a_run_that_resumes_one_in_use_is_refused_and_leaves_its_config_alone(
    here: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    own = run("1-crnn", "monday", 0)
    config = (own / ".hydra" / "config.yaml").read_bytes()
    process = subprocess.Popen(
        [sys.executable, "-c", LOCK, str(own)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    folders.HydraConfig.instance().cfg = None  # as in a new process
    monkeypatch.setattr(sys, "argv", ["train.py", *SMALL, f"resume={own}"])  # whose folder is found by its name
    with pytest.raises(InputError, match="another process is using this run folder"):
        train.train()
    process.kill()
    process.communicate()
    assert (own / ".hydra" / "config.yaml").read_bytes() == config
    assert not [str(one.message) for one in recwarn if "UsedFolder" in str(one.message)]


def test_only_the_first_rank_looks_whether_a_folder_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".lock").touch()
    monkeypatch.setattr(folders.HydraConfig, "set_config", lambda self, config: None)
    config = OmegaConf.create({"hydra": {"run": {"dir": str(tmp_path)}}})
    for rank in (1, 0):
        for name, value in {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "2", "RANK": str(rank)}.items():
            monkeypatch.setenv(name, value)
        folders.UsedFolder().on_run_start(config)
        assert (tmp_path / ".lock").exists() == (rank == 1)  # what a killed process has left is deleted


def test_other_settings_and_data_are_named(run_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    last = f"resume={run_folder}"
    run_train(tmp_path / "on", *SMALL, "trainer.max_epochs=2", "optimizer.lr=2e-3", "logger=csv", "data.workers=1",
              last, "seed=7", "data.max_lines=5", "data.reader.lines={train: 95, val: 16, test: 24}")  # fmt: skip
    said = " ".join(capfd.readouterr().err.split())
    assert "(4 changed: data.max_lines 8 -> 5; data.reader.lines.train 96 -> 95; seed 0 -> 7; train lines 96 (" in said
