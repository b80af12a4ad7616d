"""The results of a run: the content of `summary.json`, and the lines that end the run's output."""

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer

from htr_lightning.card import figure_card
from htr_lightning.metrics.edits import line_counts
from htr_lightning.metrics.significance import intervals
from htr_lightning.training.module import TrainingModule
from htr_lightning.transcription import Prediction


def in_order(predictions: Sequence[Prediction], ids: Sequence[str]) -> list[Prediction]:
    """Return predictions in the order of the ids of their lines."""
    positions = {id: position for position, id in enumerate(ids)}
    return sorted(predictions, key=lambda one: positions[one.id])


def summarize(
    trainer: Trainer, module: TrainingModule, predictions: Sequence[Prediction], clock: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Return the results of a run that has been tested, as plain data.

    Args:
        trainer: trainer that tested the module.
        module: module with the edit counts of the test.
        predictions: predictions for the test lines.
        clock: when the training started, the seconds that it took and the lines that it processed per second.
        folder: run folder.
    """
    path = str(trainer.ckpt_path or "")  # the tested checkpoint
    val = torch.load(path, weights_only=True, map_location="cpu")["htr"]["metrics"]["val"] if path else {}
    test = module.metrics["test"]
    rates, counts = ("cer", "wer"), ("edits", "characters", "lines")
    lines = [line_counts(one.reference, one.hypothesis) for one in predictions]
    found = intervals(lines, [one.group for one in predictions]).to_plain()
    data = trainer.datamodule  # type: ignore[attr-defined]
    return {
        **{f"val_{rate}": val.get(rate) for rate in rates},
        **{f"test_{figure}": test[figure] for figure in (*rates, *counts)},
        **{f"test_{name}": interval for name, interval in found.items()},
        "seconds": clock["seconds"],
        "lines_per_second": clock["lines_per_second"],
        "checkpoint": path and os.path.relpath(path, folder),
        "card": figure_card([module.recognizer], [path] if path else [], data, "test") | {"clock": clock},
    }


def summary_lines(summary: dict[str, Any], folder: Path, single_characters: bool = False) -> list[str]:
    """Format the results and output paths of a finished run, one per line."""

    def rates(split: str) -> str:
        cer, wer = summary[f"{split}_cer"], summary[f"{split}_wer"]
        if cer is None:
            return "-"
        return f"{1 - cer:.2%}" if single_characters else f"{cer:.2%} / {wer:.2%}"

    def bounds(rate: str) -> str:
        interval = summary[f"test_{rate}_interval"]
        if interval is None:
            return "-"
        low, high = interval["low"], interval["high"]
        low, high = (1 - high, 1 - low) if single_characters else (low, high)
        return f"[{100 * low:.2f}, {100 * high:.2f}]"

    lines, interval = summary["test_lines"], summary["test_cer_interval"]
    errors = f"errors in {lines} characters" if single_characters else f"edits in {lines} lines"
    what = "accuracy" if single_characters else "CER / WER"
    rows = {
        f"best val {what}": rates("val"),
        f"test {what}": f"{rates('test')}  ({summary['test_edits']} {errors})",
        "95% interval": bounds("cer") + ("" if single_characters else f" / {bounds('wer')}"),
        "interval over": f"{interval['units']} {interval['over']}" if interval else "",
        "training time": str(timedelta(seconds=round(summary["seconds"]))),
        "training speed": f"{summary['lines_per_second']:.0f} lines/s" if summary["lines_per_second"] else "",
        "run folder": relative(folder),
        "pictures": relative(folder / "transcriptions"),
    }
    return [f"{name:20}{value}" for name, value in rows.items() if value]


def relative(path: Path) -> str:
    """Return the path as the user would type it in the working directory."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
