"""`import htr_lightning`: what a Python user types, on images in any form, and that importing it costs nothing."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Outcome
from PIL import Image

import htr_lightning
from htr_lightning import checkpoint
from htr_lightning.data.image import read_image
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.errors import InputError
from htr_lightning.reading.transcribe import READING_LINES


@pytest.fixture
def reader(best: Path) -> htr_lightning.Reader:
    return htr_lightning.load(best, device="cpu")


def test_a_file_an_image_and_an_array_read_the_same(reader: htr_lightning.Reader, best: Path, line_image: Path) -> None:
    grey = read_image(line_image)
    expected = checkpoint.load(best).read([grey])[0]
    colour = np.repeat(grey[:, :, None], 3, axis=2)
    for image in (line_image, str(line_image), Image.open(line_image), Image.fromarray(colour), grey, colour):
        found = reader.read(image)
        assert (found.text, found.confidence) == (expected.text, pytest.approx(expected.confidence))
    assert [found.text for found in reader.read([grey, line_image])] == [expected.text] * 2
    assert reader.read([]) == []
    assert reader.card["alphabet"]


def test_a_long_list_is_read_in_batches_in_its_order(reader: htr_lightning.Reader) -> None:
    lines = Synthetic("test", {"test": READING_LINES + 9}, {"test": 4})
    images = [sample.image for sample in lines]
    assert [one.text for one in reader.read(images)] == [reader.read(image).text for image in images]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("none.png", r"none\.png: no such image"),
        (np.zeros((2, 2), np.uint8), r"image 1: 2 x 2 pixels"),
        (np.zeros((4, 5, 6, 7)), r"image 1: not an image"),
        (np.array(["a"]), r"image 1: not an image"),
    ],
)
def test_what_is_no_line_is_named(reader: htr_lightning.Reader, line_image: Path, image: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        reader.read([line_image, image])


def test_files_are_transcribed_as_by_the_command(
    reader: htr_lightning.Reader, best: Path, line_image: Path, htr: Callable[..., Outcome],
    write_page: Callable[..., Path], tmp_path: Path,
) -> None:  # fmt: skip
    page = write_page(tmp_path / "pages")
    lines = reader.transcribe([page, line_image])
    told = htr("transcribe", best, page, line_image, "--format", "tsv").stdout.splitlines()
    assert [f"{line.name}\t{line.text}" for line in lines] == [row.rpartition("\t")[0] for row in told]
    assert [line.text for line in reader.transcribe(line_image)] == [lines[-1].text]
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert "broken.png" in (reader.transcribe(tmp_path / "broken.png")[0].error or "")
    with pytest.raises(InputError, match="nowhere"):
        reader.transcribe("nowhere/*.png")


def test_it_evaluates_as_the_command_does(best: Path, htr: Callable[..., Outcome], tmp_path: Path) -> None:
    assert htr("evaluate", best, "--out", tmp_path).code == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for given in (best, htr_lightning.load(best)):
        found = htr_lightning.evaluate(given)
        assert (found.cer, found.wer, found.totals.edits) == (metrics["cer"], metrics["wer"], metrics["edits"])
    assert len(htr_lightning.evaluate(best, ["data.max_lines=3"], split="val").predictions) == 16
    with pytest.raises(InputError, match="only the data"):
        htr_lightning.evaluate(best, ["trainer.max_epochs=3"])


def test_several_checkpoints_are_an_ensemble(best: Path, line_image: Path) -> None:
    ensemble = htr_lightning.load(best, best, views=2, weights=[1.0, 0.5], device="cpu")
    assert ensemble.transcriber.weights == [1, 0.5]
    assert isinstance(ensemble.read(line_image).text, str)
    with pytest.raises(InputError, match=r"--weights 1: .*only one checkpoint"):
        htr_lightning.load(best, weights=[1.0])


def test_importing_is_quick_and_brings_no_torch() -> None:
    code = (
        "import time; start = time.process_time(); import htr_lightning; spent = time.process_time() - start\n"
        "import sys; assert not {'torch', 'numpy', 'hydra'} & set(sys.modules), sys.modules.keys()\n"
        "assert {'load', 'evaluate', 'Reader'} <= set(dir(htr_lightning)); print(spent)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.2
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        htr_lightning.nothing  # noqa: B018


def test_the_command_tells_versions_and_platform(htr: Callable[..., Outcome]) -> None:
    assert htr("--version").stdout == f"{htr_lightning.__version__}\n"
    told = htr("--version", "--verbose").stdout.splitlines()
    assert told[0] == f"htr_lightning {htr_lightning.__version__}"
    assert {"python", "torch", "lightning", "hydra-core"} <= {row.split()[0] for row in told}
    assert "--install-completion" in htr("--help").stdout
