"""What a run shows: a progress bar or a line per validation, and a summary at the end."""

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.progress import RichProgressBar
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from htr_lightning.model.base import Recognizer
from htr_lightning.training.callbacks import Throughput, find
from htr_lightning.training.logger import log_config

console = Console(soft_wrap=True)


class ProgressBar(RichProgressBar):
    """Lightning's progress bar on a terminal; nothing in a log file, where a bar cannot redraw itself."""

    def __init__(self) -> None:
        super().__init__(leave=False)
        if not console.is_terminal:
            self.disable()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if isinstance(pl_module, Recognizer) and "val" in pl_module.totals:
            metrics["val CER"] = f"{pl_module.totals['val'].cer:.2%}"
        return metrics


class Report(Callback):
    """A line per validation, and at the end `summary.json` and a table of figures and files.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._seconds = 0.0

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Recognizer)
        sizes = {split: its["lines"] for split, its in pl_module.card["data"].items()}
        weights = sum(p.numel() for p in pl_module.parameters())
        console.print(
            f"{weights / 1e6:.2f} M weights in {trainer.precision}, {len(pl_module.alphabet)} characters, lines: "
            + ", ".join(f"{count} {split}" for split, count in sizes.items())
        )
        for split, its in pl_module.card["data"].items():
            for reason, count in its["skipped"].items():
                console.print(f"skipped on request: {count} x {reason} ({split})")
        console.print(f"training ends after {' or '.join(_bounds(trainer))}")
        log_config(trainer, pl_module.card)
        if trainer.ckpt_path:
            console.print(
                f"resumed from {trainer.ckpt_path}: epoch {trainer.current_epoch}, step {trainer.global_step}"
            )

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Recognizer)
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        throughput = find(trainer, Throughput)
        val = pl_module.metrics["val"]
        loss = trainer.callback_metrics.get("train/loss", torch.tensor(float("nan")))
        elapsed = timedelta(seconds=round(time.perf_counter() - throughput.started)) if throughput else ""
        speed = f" · {throughput.rate:.0f} lines/s" if throughput else ""
        console.print(
            f"{elapsed} · epoch {trainer.current_epoch} · step {trainer.global_step} · loss {float(loss):.3f} · "
            f"val CER {val['cer']:.2%} · WER {val['wer']:.2%}{speed}"
        )

    @rank_zero_only
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        throughput = find(trainer, Throughput)
        self._seconds = time.perf_counter() - throughput.started if throughput else 0.0

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save a run that is stopped by Ctrl-C; with several ranks, some may already be gone."""
        if isinstance(exception, KeyboardInterrupt) and trainer.world_size == 1 and trainer.global_step:
            path = self.folder / "checkpoints" / "last.ckpt"
            trainer.save_checkpoint(path, weights_only=False)
            console.print(
                f"stopped at step {trainer.global_step}; continue with resume={_relative(path)}", highlight=False
            )

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Recognizer)
        throughput = find(trainer, Throughput)
        path = str(trainer.ckpt_path or "")  # the tested checkpoint
        val = torch.load(path, weights_only=True, map_location="cpu")["htr"]["metrics"]["val"] if path else {}
        test = pl_module.metrics["test"]
        rates, counts = ("cer", "wer"), ("edits", "characters", "lines")
        summary = {
            **{f"val_{rate}": val.get(rate) for rate in rates},
            **{f"test_{figure}": test[figure] for figure in (*rates, *counts)},
            "seconds": round(self._seconds, 1),
            "lines_per_second": round(throughput.rate, 2) if throughput else None,
            "checkpoint": path,
        }
        (self.folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
        console.print(summary_table(summary, self.folder))
        if path:
            console.print(f"next: htr transcribe {_relative(Path(path))} IMAGE...", highlight=False)


def summary_table(summary: dict[str, Any], folder: Path) -> Table:
    """Figures and files of a finished run, for the terminal."""

    def rates(split: str) -> str:
        cer, wer = summary[f"{split}_cer"], summary[f"{split}_wer"]
        return "-" if cer is None else f"{cer:.2%} / {wer:.2%}"

    table = Table(show_header=False, box=None)
    table.add_row("best val CER / WER", rates("val"))
    table.add_row(
        "test CER / WER", f"{rates('test')}  ({summary['test_edits']} edits in {summary['test_lines']} lines)"
    )
    table.add_row("training time", str(timedelta(seconds=round(summary["seconds"]))))
    if summary["lines_per_second"]:
        table.add_row("training speed", f"{summary['lines_per_second']:.0f} lines/s")
    table.add_row("run folder", _relative(folder))
    table.add_row("pictures", _relative(folder / "transcriptions"))
    return table


def _bounds(trainer: Trainer) -> list[str]:
    """What ends the run, whichever comes first."""
    timer = find(trainer, Timer)
    clock = [str(timedelta(seconds=timer._duration))] if timer is not None and timer._duration else []
    counts = {"epochs": trainer.max_epochs or -1, "steps": trainer.max_steps}
    early = find(trainer, EarlyStopping)
    patience = [] if early is None else [f"{early.patience} validations without improvement of {early.monitor}"]
    return clock + [f"{count} {unit}" for unit, count in counts.items() if count > 0] + patience


def _relative(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
