"""Compressed checkpoints and the recognizers that ship with the package."""

import json
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Outcome

import htr_lightning
from htr_lightning import checkpoint, pretrained
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.decoder.ngram import NGram
from htr_lightning.errors import InputError


def test_compressed_weights_are_rounded_to_steps_of_their_row(best: Path, tmp_path: Path) -> None:
    content = checkpoint.read(best)
    checkpoint.write(checkpoint.compress(content), tmp_path / "small.ckpt")
    small = checkpoint.read(tmp_path / "small.ckpt")
    assert small["htr"] == content["htr"]
    assert small["state_dict"].keys() == content["state_dict"].keys()
    for name, weight in content["state_dict"].items():
        found = small["state_dict"][name]
        assert found.dtype == weight.dtype
        if weight.is_floating_point() and weight.ndim > 1:
            largest = weight.abs().flatten(1).amax(1).view(-1, *[1] * (weight.ndim - 1))
            assert (abs(found - weight) <= largest / 253.9).all()
            assert torch.equal(found.abs().flatten(1).amax(1) > 0, weight.abs().flatten(1).amax(1) > 0)
        else:
            assert torch.equal(found, weight)


def test_a_row_of_zeros_stays_zero(best: Path) -> None:
    content = checkpoint.read(best)
    name = next(name for name, weight in content["state_dict"].items() if weight.ndim == 2)
    content["state_dict"][name][0] = 0
    assert not checkpoint.compress(content)["state_dict"][name][0].any()


def test_a_compressed_checkpoint_is_a_quarter_of_the_size_and_is_transcribed(
    best: Path, htr: Callable[..., Outcome], line_image: Path, tmp_path: Path
) -> None:
    path = tmp_path / "small.ckpt"
    assert htr("compress", best, "--out", path).code == 0
    weights = sum(weight.nbytes for weight in checkpoint.read(best)["state_dict"].values())
    assert path.stat().st_size < 0.25 * weights + 60_000  # names and the card
    done = htr("transcribe", path, line_image)
    assert (done.code, len(done.stdout.splitlines())) == (0, 1)


@pytest.mark.parametrize("scales", [{"none": torch.ones(3, 1)}, {"head.weight": torch.ones(2, 3)}, [1, 2], 7])
def test_scales_that_do_not_fit_are_refused(best: Path, tmp_path: Path, scales: Any) -> None:
    content = checkpoint.compress(checkpoint.read(best)) | {"scales": scales}
    checkpoint.write(content, tmp_path / "odd.ckpt")
    with pytest.raises(InputError, match=r"odd\.ckpt: invalid compression"):
        checkpoint.read(tmp_path / "odd.ckpt")


def test_a_compressed_language_model_hardly_changes(best: Path, tmp_path: Path) -> None:
    texts = [" ".join(words) for words in permutations(["la", "plume", "de", "ma", "tante"])]
    whole = NGram.estimate(texts, 5)
    language = checkpoint.with_tensors({"ngram": whole.to_plain(), "lexicon": ["la"]})
    content = checkpoint.read(best) | {"language": language}
    checkpoint.write(content, tmp_path / "whole.ckpt")
    checkpoint.write(checkpoint.compress(content), tmp_path / "small.ckpt")
    read = checkpoint.read(tmp_path / "small.ckpt")["language"]
    small = NGram.from_plain(read["ngram"])
    assert read["lexicon"] == ["la"]
    assert small.symbols == whole.symbols
    assert np.array_equal(small.keys, whole.keys)
    assert abs(small.log_probs - whole.log_probs).max() < 0.1
    assert small.perplexity(texts) == pytest.approx(whole.perplexity(texts), rel=0.01)
    sizes = [sum(part.nbytes for part in one.values()) for one in (
        {key: language["ngram"][key] for key in ("log_probs", "backoffs")},
        *(checkpoint.compress(content)["language"]["ngram"][key] for key in ("log_probs", "backoffs")),
    )]  # fmt: skip
    assert sum(sizes[1:]) < sizes[0] / 4 + 2 * 4 * checkpoint.LEVELS + 8


@pytest.mark.parametrize("indices", [torch.ones(2, 2), "abc", None])
def test_a_compressed_language_model_that_does_not_fit_is_refused(best: Path, tmp_path: Path, indices: Any) -> None:
    language = checkpoint.with_tensors({"ngram": NGram.estimate(["ab"], 2).to_plain(), "lexicon": None})
    language["ngram"]["backoffs"] = {"levels": torch.ones(1), "indices": indices}
    checkpoint.write(checkpoint.read(best) | {"language": language}, tmp_path / "odd.ckpt")
    with pytest.raises(InputError, match=r"odd\.ckpt: "):
        checkpoint.load(tmp_path / "odd.ckpt")


def test_a_file_of_the_same_name_is_preferred(best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert pretrained.locate(pretrained.DEFAULT) == pretrained.FOLDER / f"{pretrained.DEFAULT}.ckpt"
    (tmp_path / pretrained.DEFAULT).write_bytes(best.read_bytes())
    assert pretrained.locate(pretrained.DEFAULT) == Path(pretrained.DEFAULT)
    assert pretrained.locate("other.ckpt") == Path("other.ckpt")


@pytest.mark.parametrize("name", pretrained.NAMES)
def test_each_is_small_has_a_card_and_can_be_loaded(name: str) -> None:
    path = pretrained.locate(name)
    assert path.stat().st_size <= 3_000_000
    card = path.with_suffix(".md").read_text()
    for part in ("## Data", "licence", "## Training", "commit", "## Accuracy", "95 %", "## Limits"):
        assert part in card, part
    reader = htr_lightning.load(name)
    assert str(Path.cwd()) not in repr(reader.card)


def test_a_line_is_transcribed_without_naming_a_recognizer(
    htr: Callable[..., Outcome], line_image: Path, tmp_path: Path
) -> None:
    done = htr("transcribe", line_image)
    assert done.code == 0
    assert f"note: transcribing with {pretrained.DEFAULT}" in done.stderr
    assert done.stdout == htr("transcribe", pretrained.DEFAULT, line_image).stdout
    assert htr_lightning.load().read(line_image).text == done.stdout.strip()


@pytest.mark.parametrize("command", ["compress", "upgrade", "tune-decoder", "calibrate"])
def test_a_checkpoint_is_not_replaced_by_its_copy(best: Path, htr: Callable[..., Outcome], command: str) -> None:
    before = best.read_bytes()
    done = htr(command, best, "--out", best)
    assert (done.code, "choose another name" in done.stderr) == (1, True), done.stderr
    assert best.read_bytes() == before


@pytest.mark.parametrize("name", pretrained.NAMES)
def test_both_files_of_a_recognizer_give_the_same_text(name: str) -> None:
    lines = Synthetic("test", {"test": 12}, {"test": 6}) if name != "digits" else None
    images = (
        [line.image for line in lines]
        if lines
        else list(np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8))
    )
    recognizer, exported = checkpoint.load(name), htr_lightning.load(name)
    expected, found = recognizer.read(images), exported.read(images)
    assert [one.text for one in found] == [one.text for one in expected]
    assert [one.confidence for one in found] == pytest.approx([one.confidence for one in expected], abs=1e-4)
    card = json.loads(json.dumps(recognizer.card | {"calibration": list(recognizer.calibration.line)}))
    assert {key: value for key, value in exported.card.items() if key != "export"} == card
    path = pretrained.locate(name)
    assert exported.card["export"]["checkpoint"] == sha256(path.read_bytes()).hexdigest()
    assert pretrained.locate(name, ".onnx").stat().st_size < 3_000_000


def test_reading_with_the_default_recognizer_does_not_import_torch(line_image: Path) -> None:
    program = "import sys, htr_lightning; print(htr_lightning.load().read(sys.argv[1]).text, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, line_image], capture_output=True, text=True, check=True)
    assert done.stdout.endswith(" False\n")
