"""A loss or gradient that is not finite stops the run, names the lines, and can be reproduced from a file."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, run_train

from htr_lightning import checkpoint
from htr_lightning.build import data_for
from htr_lightning.data.batch import Batch
from htr_lightning.errors import InputError
from htr_lightning.model.ctc import CTCRecognizer
from htr_lightning.training.divergence import Pass, reproduce, save

FEW = [
    *SMALL, "logger=csv", "trainer.max_epochs=2", "data.reader.lines={train: 24, val: 2, test: 2}", "data.max_lines=4",
    "model.net.dropout=0.3", "trainer.precision=32-true",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_saved_and_repeated(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, seen = CTCRecognizer.loss, list[Batch]()

    def spoiled(self: CTCRecognizer, batch: Batch) -> Any:
        if self.training and not any(batch.ids == other.ids for other in seen):
            seen.append(batch)
        if len(seen) == 5 and batch.ids == seen[-1].ids:  # the fifth batch has a line that breaks the loss
            factor = math.inf if kind == "loss" else 1.0
            result = loss(self, batch) * factor
            if kind == "gradient":
                result = result + (result.detach() - result).abs().sqrt()  # 0, whose gradient is infinite times 0
            return result
        return loss(self, batch)

    monkeypatch.setattr(CTCRecognizer, "loss", spoiled)
    with pytest.raises(InputError) as stopped:
        run_train(tmp_path / "run", *FEW)
    told = {"loss": "the loss is inf", "gradient": "the norm of the gradient is nan"}[kind]
    assert f"step 4: {told} (lines: " in str(stopped.value)
    assert all(id in str(stopped.value) for id in seen[-1].ids)
    path = tmp_path / "run" / "nonfinite.pt"
    assert f"python -m htr_lightning.training.divergence {path}" in str(stopped.value)
    step = reproduce(path)
    assert step.ids == seen[-1].ids
    assert not math.isfinite(step.losses[0] if kind == "loss" else step.gradient)
    monkeypatch.setattr(CTCRecognizer, "loss", loss)
    healthy = reproduce(path)
    assert math.isfinite(healthy.losses[0])
    assert healthy == reproduce(path)  # with the same dropout
    content = checkpoint.read(path)
    torch.testing.assert_close(content["passes"][0]["batch"]["images"], seen[-1].images, rtol=0, atol=0)


def test_an_image_that_is_not_finite_is_saved_and_repeated(best: Path, tmp_path: Path) -> None:
    recognizer = checkpoint.load(best).train()
    batch = next(iter(data_for(recognizer, []).loader("train")))
    batch.images[0] = math.nan
    loss = recognizer.loss(batch)
    assert not all(buffer.isfinite().all() for buffer in recognizer.buffers())  # statistics of batch norms
    save(tmp_path / "nonfinite.pt", recognizer, [Pass(0, batch, loss)], "32-true")
    step = reproduce(tmp_path / "nonfinite.pt")
    assert step.ids == batch.ids
    assert math.isnan(step.losses[0])


def test_the_documented_command_prints_the_step(best: Path) -> None:
    command = [sys.executable, "-m", "htr_lightning.training.divergence"]
    done = subprocess.run([*command, str(best)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"error: {best}: contains no training step; use the nonfinite.pt of a run folder\n"
