"""Recognizers of single characters."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from htr_lightning.data.batch import Batch
from htr_lightning.data.character import FixedSize
from htr_lightning.errors import InputError
from htr_lightning.model.classifier import Classifier
from htr_lightning.net.mlp import MLP
from htr_lightning.text.normalize import Normalizer
from htr_lightning.training.module import TrainingModule


def classifier(**more: Any) -> Classifier:
    torch.manual_seed(0)
    parts = {"normalizer": Normalizer(), "preprocess": FixedSize(28, 28, 20), **more}
    return Classifier("0123456789", lambda classes: MLP(classes, 784, [16]), **parts).eval()


def batch(texts: list[str]) -> Batch:
    size = len(texts)
    ids = [f"mnist/{i}" for i in range(size)]
    return Batch(ids, torch.rand(size, 1, 28, 28), torch.full((size,), 28), texts, ids)


@pytest.mark.parametrize("text", ["", "12", "123"])
def test_a_text_of_another_length_than_one_is_refused_with_its_sample(text: str) -> None:
    with pytest.raises(InputError, match=f"mnist/1: '{text}' has {len(text)} characters"):
        classifier().loss(batch(["1", text]))
    with pytest.raises(InputError, match="b: "):
        classifier().check_targets(["a", "b"], ["1", text])


def test_the_loss_is_the_mean_cross_entropy() -> None:
    model, lines = classifier(), batch(["7", "0", "3"])
    scores = model.net(lines.images, lines.widths)
    expected = functional.cross_entropy(scores, torch.tensor([7, 0, 3]))
    torch.testing.assert_close(model.loss(lines), expected)


def test_only_training_images_are_distorted() -> None:
    class Mirror(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flip(3)

    model, plain, lines = classifier(distort=Mirror()), classifier(), batch(["7", "0", "3"])
    torch.testing.assert_close(model.loss(lines), plain.loss(lines._replace(images=lines.images.flip(3))))
    assert not torch.isclose(model.loss(lines), plain.loss(lines))
    assert model.predict(lines) == plain.predict(lines)
    assert model.state_dict().keys() == plain.state_dict().keys()  # a checkpoint does not contain it


def test_the_most_likely_class_is_found_with_its_probability() -> None:
    model, lines = classifier(), batch(["7", "0", "3"])
    with torch.inference_mode():
        probabilities = model.net(lines.images, lines.widths).softmax(1)
    for row, reading in zip(probabilities, model.transcribe(lines.images, lines.widths), strict=True):
        assert row["0123456789".index(reading.text)] == row.max()
        assert reading.confidence == pytest.approx(float(row.max()))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_validation_loss_is_exact_for_any_batch_size(size: int) -> None:
    """An image of an unknown character is excluded from the loss and counts as an error."""
    model, lines = classifier(), batch(["7", "x", "3", "0"])
    scores = model.net(lines.images, lines.widths)[[0, 2, 3]]
    module = TrainingModule(model)
    for start in range(0, 4, size):
        part = slice(start, start + size)
        module.validation_step(Batch(*(field[part] for field in lines)), 0)
    torch.testing.assert_close(module.losses.compute(), functional.cross_entropy(scores, torch.tensor([7, 3, 0])))
    assert module.counts.compute().lines == 4
