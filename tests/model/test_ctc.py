"""The CTC loss equals the sum over all paths, and lines with too few frames are excluded."""

import math
from itertools import groupby, product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from htr_lightning.data.batch import Batch
from htr_lightning.data.preprocess import FitHeight
from htr_lightning.decoder.ctc import Greedy
from htr_lightning.errors import InputError
from htr_lightning.model.ctc import CTCRecognizer
from htr_lightning.model.line import ctc_loss, required_frames
from htr_lightning.text.normalize import Normalizer
from htr_lightning.training.module import TrainingModule


class Given(nn.Module):
    """A network that returns given logits."""

    def __init__(self, heads: list[Tensor], lengths: Tensor) -> None:
        super().__init__()
        self.logits, self.lengths = nn.ParameterList(heads), lengths

    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        return self.logits[0], self.lengths

    def heads(self, images: Tensor, widths: Tensor) -> tuple[list[Tensor], Tensor]:
        return list(self.logits), self.lengths

    def frames(self, widths: Tensor) -> Tensor:
        return self.lengths


def recognizer(heads: list[Tensor], lengths: list[int], **others) -> CTCRecognizer:
    parts = {"normalizer": Normalizer(), "preprocess": FitHeight(16), "shortcut_weight": 0.3} | others
    net = Given([nn.Parameter(head) for head in heads], torch.tensor(lengths))
    return CTCRecognizer("ab", lambda classes: net, Greedy(), **parts)


def batch(texts: list[str], ids: list[str] | None = None) -> Batch:
    size = len(texts)
    ids = ids or [f"page/{i}" for i in range(size)]
    return Batch(ids, torch.zeros(size, 1, 16, 8), torch.full((size,), 8), texts, [""] * size)


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(label for label, _ in groupby(path) if label)


def nll(logits: Tensor, target: list[int]) -> float:
    """Return the negative logarithm of the total probability of all paths that collapse to the target."""
    rows = logits.double().log_softmax(1).tolist()
    paths = product(range(logits.shape[1]), repeat=len(rows))
    scores = [sum(row[label] for row, label in zip(rows, path, strict=True))
              for path in paths if collapsed(path) == tuple(target)]  # fmt: skip
    return -math.log(math.fsum(math.exp(score) for score in scores))


def targets_of(frames: int, classes: int) -> list[list[int]]:
    return [list(t) for t in sorted({collapsed(path) for path in product(range(classes), repeat=frames)})]


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_the_loss_is_minus_log_of_the_sum_over_all_paths(frames: int) -> None:
    torch.manual_seed(frames)
    logits = 2 * torch.randn(1, frames, 3)
    for target in targets_of(frames, 3):  # includes the empty text, repeated characters and the longest texts
        assert float(ctc_loss(logits, torch.tensor([frames]), [target])) == pytest.approx(
            nll(logits[0], target), abs=1e-5
        )


def test_the_loss_of_a_batch_is_the_sum_over_its_lines() -> None:
    torch.manual_seed(0)
    logits, lengths, targets = torch.randn(4, 5, 3), [5, 2, 4, 1], [[1, 1], [2], [], [1]]
    expected = sum(nll(logits[i, :n], t) for i, (n, t) in enumerate(zip(lengths, targets, strict=True)))
    assert float(ctc_loss(logits, torch.tensor(lengths), targets)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("classes", [5, 300])
def test_the_loss_and_its_gradient_are_those_of_torch_over_all_classes(classes: int) -> None:
    torch.manual_seed(classes)
    logits = torch.randn(4, 30, classes, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([30, 17, 30, 1])
    targets = [torch.randint(1, classes, (9,)).tolist(), [classes - 1, classes - 1, 1, classes - 1], [], [2]]
    flat, sizes = torch.tensor([label for target in targets for label in target]), torch.tensor([9, 4, 0, 1])
    expected = torch.nn.functional.ctc_loss(
        logits.log_softmax(2).transpose(0, 1), flat, lengths, sizes, reduction="sum"
    )
    (slope,) = torch.autograd.grad(expected, logits)
    loss = ctc_loss(logits, lengths, targets)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, slope, atol=1e-4, rtol=1e-4)  # computed in float32
    with torch.inference_mode():
        assert ctc_loss(logits.detach(), lengths, targets).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_give_a_float32_loss(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 300, 20).to(dtype)
    targets = [torch.randint(1, 20, (100,)).tolist() for _ in range(2)]
    loss = ctc_loss(logits, torch.tensor([300, 300]), targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, ctc_loss(logits.float(), torch.tensor([300, 300]), targets))


def test_required_frames_is_the_length_of_the_shortest_path() -> None:
    shortest: dict[tuple[int, ...], int] = {}
    for frames in range(6):
        for path in product(range(3), repeat=frames):
            shortest.setdefault(collapsed(path), frames)
    assert len(shortest) > 20  # some with equal neighbours
    for target, frames in shortest.items():
        assert required_frames(list(target)) == frames


def test_the_training_loss_is_per_character_and_weights_the_other_heads() -> None:
    torch.manual_seed(0)
    heads, texts, targets = [torch.randn(2, 5, 3), torch.randn(2, 5, 3)], ["ab", "b"], [[1, 2], [2]]
    first, second = (sum(nll(head[i], target) for i, target in enumerate(targets)) for head in heads)
    loss = recognizer(heads, [5, 5]).loss(batch(texts))
    assert loss.item() == pytest.approx((first + 0.3 * second) / 3, abs=1e-5)


def test_an_infeasible_line_is_recorded_and_excluded_from_the_loss() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 3)
    model = recognizer([logits], [4, 2, 3])
    lines = batch(["ab", "aa", "b"], ["page/1", "page/2", "page/3"])
    loss = model.loss(lines)
    assert model.infeasible == {"page/2": (3, 2)}
    assert torch.equal(loss, model.loss(lines))
    assert model.infeasible == {"page/2": (3, 2)}
    kept = recognizer([logits[[0, 2]]], [4, 3]).loss(batch(["ab", "b"], ["page/1", "page/3"]))
    torch.testing.assert_close(loss, kept)


def test_infeasible_lines_get_no_gradient_and_the_others_a_finite_one() -> None:
    torch.manual_seed(0)
    model = recognizer([torch.randn(2, 3, 3)], [3, 3])
    model.loss(batch(["ab", "aab"])).backward()
    gradient = model.net.logits[0].grad
    assert gradient[0].any()
    assert gradient.isfinite().all()
    assert not gradient[1].any()


def test_a_batch_of_infeasible_lines_has_a_loss_of_zero_with_a_gradient() -> None:
    model = recognizer([torch.randn(2, 1, 3)], [1, 1])
    loss = model.loss(batch(["aa", "ab"]))
    loss.backward()
    assert loss.item() == 0
    assert not model.net.logits[0].grad.any()


def test_a_line_without_text_is_learned_as_blanks() -> None:
    logits = torch.randn(1, 3, 3)
    assert recognizer([logits], [3]).loss(batch([""])).item() == pytest.approx(nll(logits[0], []), abs=1e-5)


def test_an_unknown_character_is_refused_with_its_sample() -> None:
    model = recognizer([torch.randn(1, 4, 3)], [4], unknown="error")
    with pytest.raises(InputError, match=r"page/0: 'é' \(U\+00E9\)"):
        model.loss(batch(["aé"]))
    with pytest.raises(InputError, match=r"b: 'é'"):
        model.check_targets(["a", "b"], ["ab", "bé"])


def test_an_unknown_character_is_skipped_on_request() -> None:
    logits = torch.randn(1, 4, 3)
    skipping, plain = recognizer([logits], [4], unknown="skip"), recognizer([logits], [4])
    skipping.check_targets(["a"], ["aéb"])
    assert torch.equal(skipping.loss(batch(["aéb"])), plain.loss(batch(["ab"])))


def test_another_value_for_unknown_is_refused() -> None:
    with pytest.raises(InputError, match="unknown=ignore"):
        recognizer([torch.randn(1, 4, 3)], [4], unknown="ignore")


def test_a_line_reads_the_same_alone_and_in_a_batch(make_recognizer) -> None:
    model = make_recognizer()
    rng = np.random.default_rng(0)
    lines = [rng.integers(0, 256, size, dtype=np.uint8) for size in [(40, 300), (32, 90), (25, 181), (64, 64)]]
    together = model.read(lines)
    assert len({reading.text for reading in together}) == len(lines)
    assert max(reading.confidence for reading in together) > 0.1
    for line, reading in zip(lines, together, strict=True):
        (alone,) = model.read([line])
        assert alone.text == reading.text
        assert alone.confidence == pytest.approx(reading.confidence, abs=1e-5)
        assert 0 <= reading.confidence <= 1


def test_predictions_carry_the_batch_and_what_reading_gives(make_recognizer) -> None:
    model = make_recognizer()
    images = torch.rand(2, 1, 32, 80)
    lines = Batch(["x/1", "x/2"], images, torch.tensor([80, 80]), ["ab", "c"], ["w1", "w2"])
    predictions = model.predict(lines)
    assert [(p.id, p.reference, p.group) for p in predictions] == [("x/1", "ab", "w1"), ("x/2", "c", "w2")]
    with torch.inference_mode():
        read = model.transcribe(images, lines.widths)
    assert [p.hypothesis for p in predictions] == [model.normalizer(r.text) for r in read]
    assert [p.confidence for p in predictions] == [r.confidence for r in read]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_validation_loss_is_exact_for_any_batch_size(size: int) -> None:
    """Characters outside the alphabet and lines with too few frames are excluded; a line without text is not."""
    torch.manual_seed(0)
    texts, lengths = ["ab", "aa", "", "béa", "b"], [4, 2, 3, 4, 4]  # the second has too few frames
    logits, targets = torch.randn(5, 4, 3), {0: [1, 2], 2: [], 3: [2, 1], 4: [2]}
    expected = sum(nll(logits[row, : lengths[row]], target) for row, target in targets.items()) / 5
    model = recognizer([logits], lengths)
    module = TrainingModule(model)
    module.on_validation_epoch_start()
    for start in range(0, 5, size):
        part = slice(start, start + size)
        model.net = Given([nn.Parameter(logits[part])], torch.tensor(lengths[part]))
        predictions = module.validation_step(batch(texts[part]), 0)
        assert [p.hypothesis for p in predictions] == [p.hypothesis for p in model.predict(batch(texts[part]))]
    assert float(module.losses.compute()) == pytest.approx(expected, abs=1e-5)
    assert module.counts.compute().lines == 5  # the CER includes every line
