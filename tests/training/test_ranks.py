"""Figures and predictions do not depend on the number of ranks, nor on how evenly they can divide the lines."""

import json
from pathlib import Path
from typing import Any

import pytest
from lightning import Callback, LightningModule, Trainer

from htr_lightning import checkpoint
from htr_lightning.build import data_for
from htr_lightning.evidence.evaluate import evaluate
from htr_lightning.training.console import Report
from htr_lightning.training.module import TrainingModule
from htr_lightning.transcription import PREDICTIONS, write_predictions

RANKS = (1, 2, 3, 4)


class Totals(Callback):
    """A callback that writes the counts of each rank to a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        counts = {split: its._asdict() for split, its in pl_module.totals.items()}
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(counts))

    on_validation_end = on_test_end = _write


def shown(folder: Path, digits: int | None) -> Any:
    """Return the predictions of a folder as bytes, or with rounded confidences."""
    content = (folder / PREDICTIONS).read_bytes()
    if digits is None:
        return content
    lines = [json.loads(line) for line in content.splitlines()]
    return [line | {"confidence": round(line["confidence"], digits)}
            | {level: [round(one, digits) for one in line[level]] for level in ("words", "characters")}
            for line in lines]  # fmt: skip


@pytest.mark.parametrize(
    ("val", "test", "lines"),
    [
        pytest.param(17, 23, 3, id="more batches than ranks"),
        pytest.param(7, 5, 2, id="fewer", marks=pytest.mark.slow),
    ],
)
def test_counts_and_predictions_do_not_depend_on_the_number_of_ranks(
    best: Path, tmp_path: Path, one_thread: None, val: int, test: int, lines: int
) -> None:
    recognizer = checkpoint.load(best)
    data = data_for(
        recognizer, [f"data.max_lines={lines}", f"data.reader.lines={{train: 8, val: {val}, test: {test}}}"]
    )
    predictions, totals = evaluate(recognizer, data, "test")
    expected = {"val": evaluate(recognizer, data, "val").totals._asdict(), "test": totals._asdict()}
    write_predictions(tmp_path, predictions)
    assert (expected["val"]["lines"], totals.lines) == (val, test)
    assert totals.edits > 0
    for ranks in RANKS:
        folder = tmp_path / str(ranks)
        folder.mkdir()
        options: dict[str, Any] = {"strategy": "ddp_fork"} if ranks > 1 else {}
        trainer = Trainer(
            accelerator="cpu", devices=ranks, callbacks=[Report(str(folder)), Totals(folder)], logger=False,
            use_distributed_sampler=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=folder, precision="32-true", **options,
        )  # fmt: skip
        module = TrainingModule(recognizer)
        trainer.validate(module, data, verbose=False)
        for rank in range(ranks):
            assert json.loads((folder / f"{rank}.json").read_text())["val"] == expected["val"]
        trainer.test(module, data, verbose=False)
        for rank in range(ranks):
            assert json.loads((folder / f"{rank}.json").read_text())["test"] == expected["test"]
        few = -(-test // lines) < ranks  # then each line is a batch of its own, and the last digits may differ
        assert shown(folder, digits=5 if few else None) == shown(tmp_path, digits=5 if few else None)
