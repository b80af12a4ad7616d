"""Pre-training by masked columns: it runs without texts, its loss falls, and its weights start a recognizer."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import SMALL, Outcome, run_train
from hydra.utils import instantiate

from htr_lightning import checkpoint
from htr_lightning.config import data_for
from htr_lightning.data.preprocess import FitHeight
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.errors import InputError
from htr_lightning.model.masked import MaskedColumns
from htr_lightning.training.transfer import transfer

FEW = [one for one in SMALL if "data.reader" not in one]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Line images without texts."""
    folder = tmp_path_factory.mktemp("images")
    for number, sample in enumerate(Synthetic("train", {"train": 24}, {"train": 4}, length=[1, 2])):
        cv2.imwrite(str(folder / f"{number}.png"), sample.image)
    return folder


@pytest.fixture(scope="module")
def pretrained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a pre-training on them."""
    folder = tmp_path_factory.mktemp("runs") / "masked"
    run_train(folder, *FEW, "model=masked_columns", "data=images", f"data.root={images}", "data.reader.splits.val=0.2",
              "trainer.max_steps=3", "trainer.val_check_interval=1")  # fmt: skip
    return folder / "checkpoints" / "best.ckpt"


def test_a_pre_training_reads_no_text_and_says_so(pretrained: Path, htr: Callable[..., Outcome], images: Path) -> None:
    card = checkpoint.read(pretrained)["htr"]
    assert card["alphabet"] == []
    assert card["data"]["train"]["characters"] == 0
    assert 0 < card["metrics"]["val"]["loss"] < 10
    summary = json.loads((pretrained.parent.parent / "summary.json").read_text())
    assert summary["val_loss"] == card["metrics"]["val"]["loss"]
    assert summary["test_loss"] > 0
    outcome = htr("transcribe", pretrained, images)
    assert (outcome.code, len(outcome.stderr.splitlines())) == (1, 1)
    assert f"reads none; train a recognizer by start={pretrained}" in outcome.stderr


def test_a_recognizer_starts_with_the_weights_of_all_but_its_heads(
    pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_train(tmp_path / "run", *SMALL, f"start={pretrained}", "trainer.max_steps=1", "optimizer.lr=0",
                    "optimizer.weight_decay=0")  # fmt: skip
    old = checkpoint.read(pretrained)["state_dict"]
    new = checkpoint.read(run / "checkpoints" / "best.ckpt")["state_dict"]
    parameters = {name for name in new if "running_" not in name and "num_batches" not in name}
    heads = {name for name in parameters if name.split(".")[1] in ("head", "shortcut")}
    assert len(heads) == 4
    for name in parameters - heads:
        assert torch.equal(old[name], new[name]), name
    assert "net.backbone, net.recurrent carried over, net.head, net.shortcut afresh" in capsys.readouterr().out


def test_another_network_is_refused_by_name(pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"best.ckpt: its network is another one \(net\..* there, .* here\)"):
        run_train(tmp_path / "run", *SMALL, f"start={pretrained}", "model.net.hidden=24")


def test_a_pre_training_goes_on_from_another(pretrained: Path) -> None:
    card = checkpoint.read(pretrained)["htr"]
    again = instantiate(card["model"], _convert_="all")
    assert isinstance(again, MaskedColumns)
    again.card = card
    assert str(transfer(again, pretrained)).endswith("carried over, nothing afresh")
    old = checkpoint.read(pretrained)["state_dict"]
    assert all(torch.equal(weight, old[name]) for name, weight in again.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("model", ["masked_columns", "masked_columns_vit"])
def test_the_loss_of_eight_lines_falls(images: Path, tmp_path: Path, model: str) -> None:
    """To less than what the best constant, the mean ink, would leave."""
    lines = ["data.reader.lines={train: 8, val: 8, test: 8}", "data.reader.writers={train: 2, val: 2, test: 2}",
             "data.reader.length=[1, 2]", "data.workers=0", "trainer.max_time=null"]  # fmt: skip
    run = run_train(tmp_path / "run", *lines, f"model={model}", "model.net.dropout=0.0", "trainer.max_steps=400",
                    "trainer.log_every_n_steps=1", "trainer.val_check_interval=400", "optimizer.lr=3e-3",
                    "logger=csv")  # fmt: skip
    table = next(run.rglob("metrics.csv")).read_text().splitlines()
    column = table[0].split(",").index("train/loss")
    losses = [float(row.split(",")[column]) for row in table[1:] if row.split(",")[column]]
    ink = torch.cat([torch.from_numpy(array).flatten() for array in eight_lines()])
    assert sum(losses[-20:]) / 20 < 0.5 * float(ink.var())


def eight_lines() -> list[np.ndarray]:
    return [FitHeight(32)(s.image) for s in Synthetic("train", {"train": 8}, {"train": 2}, length=[1, 2])]


@pytest.mark.slow
def test_two_ranks_validate_by_the_same_loss_as_one_process(images: Path, tmp_path: Path) -> None:
    """And every weight is learned on both, or the second step would be refused."""
    program = [sys.executable, str(Path(__file__).parent.parent / "train.py"), *FEW]
    two = subprocess.run(
        [*program, "model=masked_columns", "data=images", f"data.root={images}", "data.max_lines=2",
         "data.reader.splits.val=0.2", "data.reader.splits.test=0.2", "trainer.devices=2", "trainer.accelerator=cpu",
         "trainer.strategy=ddp", "trainer.max_steps=3", f"hydra.run.dir={tmp_path}/two"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert two.returncode == 0, two.stderr
    content = checkpoint.read(tmp_path / "two" / "checkpoints" / "best.ckpt")
    model = instantiate(content["htr"]["model"], _convert_="all").eval()
    model.card = content["htr"]
    model.load_state_dict(content["state_dict"])
    data = data_for(model, ["data.max_lines=3"])
    for batch in data.loader("val"):
        model.validation_step(batch, 0)
    assert float(model.losses.compute()) == pytest.approx(content["htr"]["metrics"]["val"]["loss"], rel=1e-4)
