"""Every model learns eight lines by heart."""

from pathlib import Path

import pytest
from conftest import MODELS, network, run_train

from htr_lightning import checkpoint
from htr_lightning.build import data_for
from htr_lightning.evidence.evaluate import evaluate

LINES = ["data=synthetic"]
WORDS = ["data=synthetic", "data.reader.length=[1, 1]"]  # a line is too wide for the frame
CHARACTERS = [*WORDS, "data.reader.text=package:english.txt", "data.reader.unit=characters"]


WRITES = ["model.net.encoder.dropout=0.0", "model.net.decoder.dropout=0.0", "model.token_noise=0.0"]
PLAIN = {  # what makes learning by heart harder, taken off, where it is not net.dropout alone
    "vit_ctc": ["model.net.dropout=0.0", "model.net.mask_ratio=0.0"],
    "trocr": WRITES,
    "hybrid": WRITES,
    "crnn_attention": WRITES,
}
STEPS = {"crnn_mobilenet": 900, "trocr": 900, "hybrid": 900, "crnn_attention": 600}  # others take 300


@pytest.mark.slow
@pytest.mark.timeout(1200)  # five minutes of a quiet core for those that write
@pytest.mark.parametrize("model", MODELS)
def test_every_model_learns_eight_lines_by_heart(model: str, tmp_path: Path) -> None:
    of = network(model)
    wide = of.preprocess.width((64, 640)) > of.preprocess.width((64, 64))
    run = run_train(
        tmp_path / "run", f"model={model}", *(LINES if wide else WORDS if of.lines else CHARACTERS),
        "data.reader.lines={train: 8, val: 1, test: 1}", "data.reader.writers={train: 4, val: 1, test: 1}",
        "data.workers=0", "trainer.max_time=null", f"trainer.max_steps={(steps := STEPS.get(model, 300))}",
        f"trainer.val_check_interval={steps}", *PLAIN.get(model, ["model.net.dropout=0.0"]),
    )  # fmt: skip
    recognizer = checkpoint.load(run / "checkpoints" / "last.ckpt")
    _, totals = evaluate(recognizer, data_for(recognizer), "train")
    assert totals.lines == 8
    assert totals.edits == 0


@pytest.mark.slow
def test_mlp_reads_mnist(tmp_path: Path, htr_data: Path) -> None:
    """The plain recipe gives at least 97.5 % (mean of three seeds; one seed here)."""
    length = ["trainer.max_time=null", "trainer.max_epochs=5", "trainer.val_check_interval=1.0"]
    length += ["trainer.check_val_every_n_epoch=1"]
    run = run_train(tmp_path / "run", "model=mlp", "data=mnist", f"data.root={htr_data}/mnist", *length)
    recognizer = checkpoint.load(run / "checkpoints" / "best.ckpt")
    _, totals = evaluate(recognizer, data_for(recognizer), "test")
    assert totals.lines == 10_000
    assert 1 - totals.cer >= 0.972
