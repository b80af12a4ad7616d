"""The resolution follows from the script and from how densely the training lines are written."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import MEASURED, Outcome, run_train
from numpy import ndarray

from htr_lightning import checkpoint
from htr_lightning.augment import Compose
from htr_lightning.config import make
from htr_lightning.data.datamodule import LineDataset
from htr_lightning.data.preprocess import FitHeight, NormalizeHandwriting
from htr_lightning.data.sample import Sample
from htr_lightning.errors import InputError
from htr_lightning.model.ctc import CTCRecognizer
from htr_lightning.resolution import FITTING, MAX_SCALE, MIN_FRAMES, STEP, choose, is_square
from htr_lightning.text.normalize import Normalizer

FIT = {"_target_": "htr_lightning.data.preprocess.FitHeight", "height": 32, "margin": 4, "width_scale": None}


class Lines:
    """A reader of blank lines with the given texts and widths, all of height 32."""

    def __init__(self, texts: Sequence[str], widths: Sequence[int]) -> None:
        self.texts = list(texts)
        self.ids = [str(place) for place in range(len(self.texts))]
        self.groups, self.skipped = [""] * len(self.texts), []
        self.sizes = [(32, width) for width in widths]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.ids[index], np.full(self.sizes[index], 255, np.uint8), self.texts[index], "")


def dataset(texts: Sequence[str], widths: Sequence[int]) -> LineDataset:
    return LineDataset(Lines(texts, widths), FitHeight(32, 4), Normalizer())


def fraction(lines: LineDataset, recognizer: CTCRecognizer, scale: float) -> float:
    """The fraction of lines that have at least `MIN_FRAMES` per character, counted with the network itself."""
    preprocess = FitHeight(32, 4, scale)
    enough = [
        recognizer.frames_for(preprocess.width(size)) >= MIN_FRAMES * len(text)
        for size, text in zip(lines.reader.sizes, lines.texts, strict=True)
    ]
    return float(np.mean(enough))


@pytest.mark.parametrize("characters", [20, 27, 30])
def test_the_width_is_the_smallest_with_which_nearly_all_lines_have_enough_frames(
    make_recognizer: Callable[..., CTCRecognizer], characters: int
) -> None:
    recognizer = make_recognizer()
    sizes = np.random.default_rng(characters).integers(characters // 2, characters, 300)
    lines = dataset([("ab" * 30)[: int(size)] for size in sizes], [150] * 300)  # no equal neighbours
    found = choose(FIT, recognizer, lines)
    assert found is not None
    scale = found.settings["width_scale"]
    assert 1 <= scale < MAX_SCALE
    assert fraction(lines, recognizer, scale) >= FITTING
    assert found.fitting >= FITTING
    if characters == 20:
        assert scale == 1
    else:
        assert fraction(lines, recognizer, scale - 2 * STEP) < FITTING  # a frame more or less by rounding


def test_the_width_allows_for_augmentation_and_has_a_limit(make_recognizer: Callable[..., CTCRecognizer]) -> None:
    recognizer, lines = make_recognizer(), dataset(["ab" * 11] * 50, [120] * 50)

    def narrow(image: ndarray, rng: np.random.Generator) -> ndarray:
        return np.ascontiguousarray(image[:, : round(image.shape[1] * (0.8 if rng.random() < 0.5 else 1.0))])

    plain, augmented = (choose(FIT, recognizer, lines, augment) for augment in (None, narrow))
    assert plain is not None
    assert augmented is not None
    assert augmented.settings["width_scale"] == pytest.approx(plain.settings["width_scale"] / 0.8, abs=2 * STEP)
    dense = choose(FIT, recognizer, dataset(["ab" * 60] * 50, [120] * 50))
    assert dense is not None
    assert dense.settings["width_scale"] == MAX_SCALE
    assert dense.fitting == 0


def test_what_a_config_sets_is_kept(make_recognizer: Callable[..., CTCRecognizer]) -> None:
    recognizer, lines = make_recognizer(), dataset(["ab" * 40] * 20, [150] * 20)
    assert choose(FIT | {"width_scale": 1.1}, recognizer, lines) is None
    normalize = {"_target_": "htr_lightning.data.preprocess.NormalizeHandwriting", "margin": 4, "x_height": None}
    found = choose(normalize | {"height": 64, "width_scale": 1.2}, recognizer, lines)
    assert found is not None
    assert found.settings == {"x_height": pytest.approx(19.2)}


@pytest.mark.parametrize(
    ("text", "square"),
    [("la plume", False), ("你好，世界", True), ("かな 12", True), ("한글", True), ("كتاب", False), ("देवनागरी", False),
     ("1912", False), ("", False), ("第 3 章 the end", False), ("见 A 图二", True)],
)  # fmt: skip
def test_scripts_whose_characters_fill_a_square(text: str, square: bool) -> None:
    assert is_square([text]) == square


def test_square_characters_get_more_rows(make_recognizer: Callable[..., CTCRecognizer]) -> None:
    settings = {"_target_": "htr_lightning.data.preprocess.NormalizeHandwriting", "margin": 4}
    settings |= {"height": None, "x_height": None, "width_scale": None}
    latin, chinese = (
        choose(settings, make_recognizer(alphabet), dataset([text] * 5, [300] * 5))
        for text, alphabet in (("abab", "ab"), ("天地人", "天地人"))
    )
    assert latin is not None
    assert chinese is not None
    assert (latin.settings["height"], latin.settings["x_height"]) == (32, pytest.approx(9.6))
    assert (chinese.settings["height"], chinese.settings["x_height"]) == (48, pytest.approx(22.1))
    for found in (latin, chinese):
        made = make(settings | found.settings, "model.preprocess")
        assert made(np.full((64, 300), 255, np.uint8)).shape[0] == found.settings["height"]
    assert NormalizeHandwriting(None, None).height == latin.settings["height"]


def test_a_run_says_and_stores_its_resolution(
    run_folder: Path, tmp_path: Path, htr: Callable[..., Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "resolution: 32 rows · widths x 1 · 1.6 frames a character in " in (run_folder / "train.log").read_text()
    stored = checkpoint.read(run_folder / "checkpoints" / "best.ckpt")["htr"]["model"]["preprocess"]
    assert (stored["height"], stored["x_height"]) == (32, 9.6)
    assert 1 <= stored["width_scale"] <= MAX_SCALE
    line = np.full((32, 60), 255, np.uint8)
    cv2.putText(line, "iiiiiiiiii", (4, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 0, 1)
    for split in ("train", "val", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for number in range(4):
            assert cv2.imwrite(str(tmp_path / "data" / split / f"{number}.png"), line)
            (tmp_path / "data" / split / f"{number}.gt.txt").write_text("ij " * 60)
    few = ["data=folder", f"data.root={tmp_path}/data", *MEASURED[3:], "trainer.max_epochs=1"]
    folder = run_train(tmp_path / "run", *few)
    log = (folder / "train.log").read_text()
    assert "widths x 1.5 · " in log
    last = folder / "checkpoints" / "last.ckpt"
    resumed = run_train(tmp_path / "resumed", *few[:-1], "trainer.max_epochs=2", f"resume={last}")
    again = checkpoint.read(resumed / "checkpoints" / "best.ckpt")["htr"]["model"]["preprocess"]
    assert again == checkpoint.read(last)["htr"]["model"]["preprocess"]
    assert "resolution" not in (resumed / "train.log").read_text()


def test_a_line_that_cannot_be_read_is_left_out(make_recognizer: Callable[..., CTCRecognizer]) -> None:
    class Broken(Lines):
        def __getitem__(self, index: int) -> Sample:
            if index == 3:
                raise InputError("3: truncated image")
            return super().__getitem__(index)

    texts = ["ab" * 12] * 19 + ["ab" * 30]
    texts[3] = "ab" * 60
    lines = LineDataset(Broken(texts, [150] * 20), FitHeight(32, 4), Normalizer())
    kept = [text for place, text in enumerate(texts) if place != 3]
    assert choose(FIT, make_recognizer(), lines) == choose(FIT, make_recognizer(), dataset(kept, [150] * 19))


def test_the_choice_does_not_change_what_readers_and_packs_have_reduced(
    make_recognizer: Callable[..., CTCRecognizer],
) -> None:
    settings = {"_target_": "htr_lightning.data.preprocess.NormalizeHandwriting"}
    settings |= {"height": None, "x_height": None, "width_scale": None}
    before = make(settings, "model.preprocess").max_rows
    for text in ("abab", "天地人"):
        found = choose(settings, make_recognizer("".join(sorted(set(text)))), dataset([text] * 5, [300] * 5))
        assert found is not None
        assert make(settings | found.settings, "model.preprocess").max_rows == before


def test_weights_are_used_at_the_resolution_at_which_they_were_trained(run_folder: Path, tmp_path: Path) -> None:
    best = run_folder / "checkpoints" / "best.ckpt"
    content = checkpoint.read(best)
    content["htr"]["model"]["preprocess"]["width_scale"] = 1.25
    checkpoint.write(content, tmp_path / "wide.ckpt")
    short = [*MEASURED, "trainer.max_epochs=1", f"start={tmp_path}/wide.ckpt"]
    run = run_train(tmp_path / "run", *short)
    stored = checkpoint.read(run / "checkpoints" / "best.ckpt")["htr"]["model"]["preprocess"]
    assert stored == content["htr"]["model"]["preprocess"]


def test_a_run_with_other_preprocessing_cannot_be_resumed(run_folder: Path, tmp_path: Path) -> None:
    content = checkpoint.read(run_folder / "checkpoints" / "last.ckpt")
    content["htr"]["model"]["preprocess"]["_target_"] = FIT["_target_"]
    checkpoint.write(content, tmp_path / "old.ckpt")
    with pytest.raises(InputError, match="resume: the checkpoint was trained with FitHeight, not with Normalize"):
        run_train(tmp_path / "run", *MEASURED, "trainer.max_epochs=3", f"resume={tmp_path}/old.ckpt")


def test_no_augmentation_is_the_same_as_none(make_recognizer: Callable[..., CTCRecognizer]) -> None:
    recognizer, lines = make_recognizer(), dataset(["ab" * 12] * 20, [150] * 20)
    assert choose(FIT, recognizer, lines) == choose(FIT, recognizer, lines, Compose([]))
