"""Adaptation to the handwriting of unlabelled lines."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import Outcome, drawn_lines

from htr_lightning.adapt import writer
from htr_lightning.adapt.writer import MIN_LINES, adapt
from htr_lightning.errors import InputError
from htr_lightning.model.base import Recognizer
from htr_lightning.pretrained import DEFAULT
from htr_lightning.reading.open import load_all, load_one


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return load_one(DEFAULT, "cpu")


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    lines = drawn_lines("train", 16)
    return [line.image for line in map(lines.__getitem__, range(len(lines)))]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PASSES", 1)
    monkeypatch.setattr(writer, "ROUNDS", 1)


def test_a_copy_is_trained_and_the_original_is_not(
    recognizer: Recognizer, images: list[np.ndarray], short: None
) -> None:
    before = {name: weight.clone() for name, weight in recognizer.state_dict().items()}
    state = torch.random.get_rng_state()
    adapted = adapt(recognizer, images)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert 0 < adapted.lines <= len(images)
    assert all(torch.equal(before[name], weight) for name, weight in recognizer.state_dict().items())
    changed = adapted.recognizer.state_dict()
    assert not torch.equal(changed["net.head.weight"], before["net.head.weight"])
    statistics = [name for name in before if "running" in name]  # a few lines are too few to estimate them from
    assert statistics
    assert all(torch.equal(changed[name], before[name]) for name in statistics)
    assert not any(module.training for module in adapted.recognizer.modules())
    again = adapt(recognizer, images).recognizer.state_dict()
    assert all(torch.equal(again[name], weight) for name, weight in changed.items())


def test_confidence_rises_with_the_steps(
    recognizer: Recognizer, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "ROUNDS", 1)
    monkeypatch.setattr(writer, "PASSES", 5)
    adapted = adapt(recognizer, images)
    assert adapted.after > adapted.before


def test_too_few_lines_change_nothing(recognizer: Recognizer, images: list[np.ndarray]) -> None:
    blank = np.full((40, 200), 255, np.uint8)
    adapted = adapt(recognizer, [*images[: MIN_LINES - 1], blank, blank, np.zeros((2, 2), np.uint8)])
    assert adapted.recognizer is recognizer
    assert adapted.lines == 0


def test_an_ensemble_and_a_classifier_are_refused(images: list[np.ndarray]) -> None:
    with pytest.raises(InputError, match="needs a single checkpoint"):
        adapt(load_all([DEFAULT, DEFAULT], "cpu"), images)
    with pytest.raises(InputError, match="needs a recognizer of lines"):
        adapt(load_one("digits", "cpu"), images)


def test_images_of_unusable_sizes_are_left_out(make_recognizer: Callable[..., Recognizer], short: None) -> None:
    recognizer = make_recognizer()
    lines = drawn_lines("train", 12)
    images = [lines[number].image for number in range(12)]
    odd = [np.full((2, 90), 200, np.uint8), np.full((3, 60_000), 200, np.uint8)]
    with_odd, without = adapt(recognizer, [*odd, *images]), adapt(recognizer, images)
    assert with_odd == without._replace(recognizer=with_odd.recognizer)


def test_the_command_adapts_to_its_files(
    htr: Callable[..., Outcome], images: list[np.ndarray], tmp_path: Path, short: None
) -> None:
    for number, image in enumerate(images):
        assert cv2.imwrite(str(tmp_path / f"{number:02}.png"), image)
    done = htr("transcribe", DEFAULT, tmp_path, "--adapt")
    assert done.code == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(images)
    assert "note: adapted to " in done.stderr
    few = htr("transcribe", DEFAULT, tmp_path / "00.png", "--adapt")
    assert f"note: not adapted, since fewer than {MIN_LINES} lines have text" in few.stderr
    assert few.stdout == htr("transcribe", DEFAULT, tmp_path / "00.png").stdout
