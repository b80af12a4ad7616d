"""The Python interface accepts images in any form, rejects other arguments, and is quick to import."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jaxtyping
import numpy as np
import pytest
import torch
from conftest import Outcome
from PIL import Image

import htr_lightning
from htr_lightning import checkpoint
from htr_lightning.data.character import FixedSize
from htr_lightning.data.image import read_image
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.errors import InputError
from htr_lightning.model.classifier import Classifier
from htr_lightning.net.mlp import MLP
from htr_lightning.reading.transcribe import READING_LINES
from htr_lightning.text.normalize import Normalizer


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let arguments of the wrong type reach the code, as they do outside the tests."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


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


def test_arrays_of_every_kind_read_the_same(reader: htr_lightning.Reader, line_image: Path) -> None:
    grey = read_image(line_image)
    colour = np.repeat(grey[:, :, None], 3, axis=2)
    opaque = np.concatenate([colour, np.full_like(grey, 255)[:, :, None]], axis=2)
    expected = reader.read(grey)
    for image in (
        grey[:, :, None], opaque, grey.astype(int), grey.astype(np.uint16), grey.astype(np.float32), grey / 255,
        colour / 255, opaque.astype(float), np.asfortranarray(grey), grey[::-1][::-1], Image.fromarray(opaque),
    ):  # fmt: skip
        assert reader.read(image).text == expected.text
    assert reader.read(grey.astype(np.uint16) * 257).text == expected.text
    assert reader.read(grey > 128).text == reader.read(np.where(grey > 128, 255, 0).astype(np.uint8)).text
    hidden = np.concatenate([colour, np.zeros_like(grey)[:, :, None]], axis=2)
    assert reader.read(hidden).text == expected.text  # nothing is visible, so the alpha channel is wrong


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("none.png", r"none\.png: no such image"),
        (Path(__file__).parent, r"reading: a folder, not an image; "),
        ("page.xml", r"page\.xml: is a page, not an image; use `transcribe`"),
        (np.zeros((2, 2), np.uint8), r"image 1: .*2 x 2 pixels"),
        (np.zeros((4, 5, 6, 7)), r"image 1: expected an array of shape \(H, W\), .* got \(4, 5, 6, 7\)"),
        (np.zeros((3, 40, 90)), r"image 1: expected an array of shape .* got \(3, 40, 90\)"),
        (np.zeros((0, 9)), r"image 1: expected an array of shape .* got \(0, 9\)"),
        (np.array([["a"]]), r"image 1: expected an array of numbers, got <U1"),
        (np.full((40, 90), -0.5), r"image 1: expected values from 0 to 255 or from 0 to 1, got -0\.5 to -0\.5"),
        (np.full((40, 90), 300.0), r"image 1: expected values from .*, got 300\.0 "),
        (np.full((40, 90), np.nan), r"image 1: expected values from .*, got nan "),
        (np.full((40, 90), -1), r"image 1: expected values from 0 to 255, got -1 to -1"),
        (Image.new("L", (0, 9)), r"image 1: expected an array of shape"),
        (None, r"image 1: expected a path, a Pillow image or a NumPy array, got NoneType"),
        (3, r"image 1: .* got int"),
        (b"bytes", r"image 1: .* got bytes"),
        (torch.zeros(40, 90), r"image 1: .* got Tensor"),
        ([], r"image 1: .* got list"),
    ],
)
def test_what_is_no_line_is_named(reader: htr_lightning.Reader, line_image: Path, image: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        reader.read([line_image, image])
    if not isinstance(image, list):
        with pytest.raises(InputError):
            reader.read(image)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("n_best", [-1, 1.5, "2", None])
def test_an_invalid_number_of_alternatives_is_refused(
    reader: htr_lightning.Reader, line_image: Path, n_best: Any
) -> None:
    for call in (reader.read, reader.transcribe):
        with pytest.raises(InputError, match="n_best="):
            call(line_image, n_best=n_best)


def test_alternatives_of_a_greedy_decoder_are_refused(reader: htr_lightning.Reader, line_image: Path) -> None:
    for call in (reader.read, reader.transcribe):
        with pytest.raises(InputError, match="n_best=3: a greedy decoder"):
            call(line_image, n_best=3)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("paths", [None, 3, b"a", [None], np.zeros((40, 90), np.uint8), "", [""], "nowhere/*.png"])
def test_what_is_no_path_is_refused(reader: htr_lightning.Reader, paths: Any) -> None:
    with pytest.raises(InputError):
        reader.transcribe(paths)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "settings",
    [
        {"device": "tpu"}, {"device": "meta"}, {"device": "cuda:77"}, {"device": None}, {"views": 0}, {"views": 1.5},
        {"weights": [1]}, {"calibration": [1]}, {"calibration": 1}, {"calibration": ["a", 1]},
    ],
)  # fmt: skip
def test_an_invalid_setting_is_refused(best: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))) as error:
        htr_lightning.load(best, **settings)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, line_image: Path) -> None:
    for paths in ([None], [3], [tmp_path], [tmp_path / "none.ckpt"], [line_image]):
        with pytest.raises(InputError):
            htr_lightning.load(*paths)


def test_alternatives_of_a_character_are_the_class_probabilities() -> None:
    classifier = Classifier(
        "0123456789", lambda classes: MLP(classes, 784, [16]), normalizer=Normalizer(), preprocess=FixedSize(28, 28, 20)
    ).eval()
    digit = cv2.putText(np.full((60, 50), 230, np.uint8), "7", (8, 50), cv2.FONT_HERSHEY_SIMPLEX, 2, 20, 4)
    found = htr_lightning.Reader(classifier).read(digit, n_best=10)
    with torch.no_grad():
        expected = classifier.net(*classifier.prepare_batch([digit])).softmax(1)[0]
    confidences = {one.text: one.confidence for one in found.alternatives}
    assert sum(confidences.values()) == pytest.approx(1)
    assert [confidences[digit] for digit in "0123456789"] == pytest.approx(expected.tolist(), abs=1e-6)
    assert (found.text, found.confidence) == found.alternatives[0][:2]
    assert len(htr_lightning.Reader(classifier).read(digit, n_best=3).alternatives) == 3


def test_a_page_is_no_line_but_its_lines_are_transcribed(
    reader: htr_lightning.Reader, line_image: Path, tmp_path: Path
) -> None:
    line = read_image(line_image)
    page = np.full((1400, 1000), 235, np.uint8)
    for top in range(50, 1300, 90):
        small = cv2.resize(line, (800, 60))
        page[top : top + 60, 100:900] = small
    Image.fromarray(page).save(tmp_path / "scan.png")
    for image in (page, Image.fromarray(page), tmp_path / "scan.png"):
        with pytest.raises(InputError, match=r"image 1|scan\.png: looks like a whole page"):
            reader.read([line, image])
    *found, read = reader.transcribe([tmp_path / "scan.png", line_image])
    assert [one.error for one in found] == [None] * 14
    assert [one.name for one in found] == [f"{tmp_path}/scan.png#line_{n}" for n in range(1, 15)]
    assert (read.error, read.text) == (None, reader.read(line).text)


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
    with pytest.raises(InputError, match=r"weights=1: .*only one checkpoint"):
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
