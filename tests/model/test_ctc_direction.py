"""Labels are in visual order, from left to right in the image; references are in logical order."""

import pytest
import torch
from torch import Tensor, nn

from htr_lightning.data.batch import Batch
from htr_lightning.data.preprocess import FitHeight
from htr_lightning.decoder.ctc import Greedy
from htr_lightning.errors import InputError
from htr_lightning.metrics.edits import line_counts
from htr_lightning.model.ctc import CTCRecognizer
from htr_lightning.text.codec import alphabet_of
from htr_lightning.text.normalize import Normalizer

TEXTS = ["قال مُحَمَّد (ص) سنة 1945", "שָׁלוֹם Paris 12", "Vietnamese tiếng Việt", "हिन्दी (क्षत्रिय)", "春眠不覺曉", ""]


class EncoderOutput(nn.Module):
    """A network that predicts the given labels, each followed by a blank."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.targets: list[list[int]] = []

    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        frames = [[label for id in target for label in (id, 0)] for target in self.targets]
        logits = torch.zeros(len(frames), max(map(len, frames)), self.classes)
        for row, labels in zip(logits, frames, strict=True):
            row[range(len(labels)), labels] = 50.0
        return logits, torch.tensor([len(labels) for labels in frames])


def recognizer(alphabet: list[str], direction: str = "auto") -> CTCRecognizer:
    parts = {"normalizer": Normalizer(), "preprocess": FitHeight(16)}
    return CTCRecognizer(alphabet, EncoderOutput, Greedy(), direction=direction, **parts)


@pytest.mark.parametrize("direction", ["auto", "rtl"])
def test_a_recognizer_that_predicts_its_targets_reads_the_references(direction: str) -> None:
    texts = [Normalizer()(text) for text in TEXTS]
    model = recognizer(alphabet_of(texts), direction)
    model.net.targets = [model.target(text, "x") for text in texts]
    size = len(texts)
    lines = Batch([str(i) for i in range(size)], torch.ones(size, 1, 16, 8), torch.full((size,), 8), texts, texts)
    read = model.predict(lines)
    assert [p.hypothesis for p in read] == texts
    assert sum(line_counts(p.reference, p.hypothesis).edits for p in read) == 0


def test_targets_run_from_left_to_right() -> None:
    model = recognizer(alphabet_of(["אבג )", "ab"]))
    assert model.codec.decode(model.target("אב (ג)", "x")) == "(ג) בא"
    assert model.codec.decode(model.target("ab", "x")) == "ab"


def test_the_mirror_image_of_a_bracket_is_a_label_of_its_own() -> None:
    model = recognizer(["א", ")"])
    assert model.codec.alphabet == ["א", ")", "("]
    assert recognizer(model.codec.alphabet).codec.alphabet == model.codec.alphabet  # as rebuilt from a checkpoint
    assert recognizer(["a", ")"]).codec.alphabet == ["a", ")"]


def test_texts_that_look_like_another_are_warned_of() -> None:
    texts = ["אב 12 cd הו", "אב cd 12 הו", "ab 12"]  # the first two look the same
    model = recognizer(alphabet_of(texts))
    with pytest.warns(UserWarning, match=r"look the same.*\(1 of 3 texts; first: page/0\)"):
        model.check_targets(["page/0", "page/1", "page/2"], texts)


def test_an_unknown_direction_is_refused() -> None:
    with pytest.raises(InputError, match=r"model\.direction=up: expected one of auto, ltr, rtl"):
        recognizer(["a"], "up")
