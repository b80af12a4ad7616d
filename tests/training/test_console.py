"""Output of a run on the screen and in its log file."""

import io
import logging
import re
import warnings
from pathlib import Path

import pytest
import torch
from conftest import SMALL, run_train
from rich.console import Console

from htr_lightning import command
from htr_lightning.training import console
from htr_lightning.training import run_log as run_log_module
from htr_lightning.training.console import deterministic, idle_gpus
from htr_lightning.training.run_log import log, run_log

VALIDATION = re.compile(r"\d:\d\d:\d\d · (epoch|step) \d+ · loss [\d.]+ · val CER [\d.]+% · WER [\d.]+% · \d+ lines/s")


def test_records_and_warnings_go_to_the_screen_and_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:], warnings.showwarning
    with run_log(tmp_path), warnings.catch_warnings():
        warnings.simplefilter("default")
        log.info("[fine] %s", "shown as it is")
        log.info("only in the log", extra={"on_screen": False})
        logging.getLogger("lightning.pytorch.utilities.rank_zero").info("a note of Lightning")
        logging.getLogger("lightning.pytorch.utilities.rank_zero").warning("from Lightning")
        warnings.warn("careful", stacklevel=1)
    assert (logging.getLogger().handlers, warnings.showwarning) == before
    out, err = capsys.readouterr()
    assert out == "[fine] shown as it is\n"
    assert err == "warning: from Lightning\nwarning: careful\n"
    text = (tmp_path / "train.log").read_text()
    assert [line.split(" ", 2)[2] for line in text.splitlines()] == [
        "INFO [fine] shown as it is",
        "INFO only in the log",
        "WARNING from Lightning",
        "WARNING careful",
    ]


def test_what_determinism_costs_is_told_on_gpus_only() -> None:
    assert deterministic(torch.device("cuda")) is None
    torch.use_deterministic_algorithms(True)
    try:
        assert "a CTC loss is computed on the CPU" in str(deterministic(torch.device("cuda")))
        assert deterministic(torch.device("cpu")) is None
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_error_that_ends_a_run_is_in_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), run_log(tmp_path):
        _ = 1 / 0
    assert "ZeroDivisionError: division by zero" in (tmp_path / "train.log").read_text()
    assert capsys.readouterr() == ("", "")  # the command prints the error


def test_a_log_file_contains_complete_lines_and_no_progress_bar(run_folder: Path) -> None:
    lines = (run_folder / "train.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (INFO|WARNING) \S", line) for line in lines)
    assert sum(bool(VALIDATION.search(line)) for line in lines) == 2


def test_validation_lines_stay_above_the_progress_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=80, soft_wrap=True, highlight=False, _environ={})
    for module in (console, run_log_module):
        monkeypatch.setattr(module, "console", terminal)
    command.quiet()
    run_train(tmp_path / "run", *SMALL, "trainer.max_epochs=2", "logger=csv")
    written = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).replace("\r", "\n")
    lines = written.split("\n")
    assert sum(bool(VALIDATION.fullmatch(line.strip())) for line in lines) == 2
    for work in ("training", "validating", "testing"):
        assert any(line.startswith(work) for line in lines), work
    long = [line for line in lines if len(line) > 80]
    assert all(line.startswith(("note:", "run folder", "pictures", "next:")) for line in long), long  # they may wrap
    works = ("starting", "training", "validating", "testing")
    kept = [line for line in lines if line.strip() and not line.startswith(works)]
    assert kept[-1].startswith(("next: htr transcribe", "note: the recognizer cannot read yet"))
    assert screen.getvalue().rstrip().endswith("\x1b[2K")  # the bar is erased


@pytest.mark.parametrize(
    ("on_cpu", "gpus", "used", "expected"),
    [
        (True, 0, 1, None),
        (True, 1, 2, "trainer=gpu"),
        (False, 1, 1, None),
        (False, 4, 1, "trainer=ddp trainer.devices=4"),
        (False, 4, 4, None),
    ],
)
def test_an_idle_gpu_is_noted(
    monkeypatch: pytest.MonkeyPatch, on_cpu: bool, gpus: int, used: int, expected: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    note = idle_gpus(on_cpu, used)
    assert note is None if expected is None else expected in str(note)
