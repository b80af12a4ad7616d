"""Runs on Chinese characters and lines, from generated files to a checkpoint that reads."""

import json
from pathlib import Path

import pytest
from casia_files import write_characters, write_lines
from conftest import run_train

from htr_lightning import checkpoint
from htr_lightning.build import data_for
from htr_lightning.evidence.evaluate import evaluate

ALPHABET = "啊阿的一是不了人"
SHORT = ["data.workers=0", "logger=csv", "trainer.log_every_n_steps=1", "trainer.max_time=null"]
SHORT += ["trainer.val_check_interval=1.0", "trainer.check_val_every_n_epoch=1"]


def run(folder: Path, model: str, data: str, *overrides: str) -> Path:
    write = write_characters if data == "casia_characters" else write_lines
    write(folder / "data", ALPHABET, writers=8)
    return run_train(folder / "run", f"model={model}", f"data={data}", f"data.root={folder}/data", *SHORT, *overrides)


@pytest.mark.parametrize(
    ("model", "data", "lines"),
    [("mlp", "casia_characters", 16), ("cnn", "casia_characters", 16), ("crnn", "casia_lines", 6)],
)
def test_a_run_ends_with_figures_of_the_test_writers(tmp_path: Path, model: str, data: str, lines: int) -> None:
    folder = run(tmp_path, model, data, "trainer.max_epochs=1")
    assert json.loads((folder / "summary.json").read_text())["test_lines"] == lines
    card = checkpoint.read(folder / "checkpoints" / "best.ckpt")["htr"]
    assert set(card["alphabet"]) <= set(ALPHABET)
    assert [card["data"][split]["groups"] for split in ("train", "val", "test")] == [5, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_classifiers_learn_to_read_writers_they_have_not_seen(tmp_path: Path, model: str) -> None:
    write_characters(tmp_path / "data", ALPHABET, writers=40, each=2)
    folder = run_train(
        tmp_path / "run", f"model={model}", "data=casia_characters", f"data.root={tmp_path}/data", *SHORT,
        "data.max_lines=32", "trainer.max_epochs=10",
    )  # fmt: skip
    figures = json.loads((folder / "summary.json").read_text())
    assert figures["test_lines"] == 10 * 2 * len(ALPHABET)
    assert figures["test_cer"] < 0.05


@pytest.mark.slow
def test_crnn_learns_chinese_lines_by_heart(tmp_path: Path) -> None:
    folder = run(
        tmp_path, "crnn", "casia_lines", "trainer.max_steps=250", "trainer.max_epochs=-1", "model.net.dropout=0.0",
        "trainer.val_check_interval=250", "trainer.check_val_every_n_epoch=null",
    )  # fmt: skip
    recognizer = checkpoint.load(folder / "checkpoints" / "last.ckpt")
    _, totals = evaluate(recognizer, data_for(recognizer), "train")
    assert totals.lines == 15
    assert totals.edits == 0
