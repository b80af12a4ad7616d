"""What the throughput callback measures, with a clock and batches whose figures are known."""

from typing import Any, cast
from unittest.mock import Mock

import pytest
import torch
from lightning import Trainer
from torch import nn

from htr_lightning.data.batch import Batch
from htr_lightning.data.character import FixedSize
from htr_lightning.model.classifier import Classifier
from htr_lightning.net.mlp import MLP
from htr_lightning.text.normalize import Normalizer
from htr_lightning.training import throughput
from htr_lightning.training.module import TrainingModule
from htr_lightning.training.throughput import Throughput, ceiling, operations


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(throughput.time, "perf_counter", lambda: self.now)

    def passes(self, seconds: float) -> None:
        self.now += seconds


def batch(widths: list[int], columns: int) -> Batch:
    names = [str(width) for width in widths]
    return Batch(names, torch.zeros(len(widths), 1, 10, columns), torch.tensor(widths), names, names)


def trainer(ranks: int = 1) -> Any:
    return Mock(spec=Trainer, world_size=ranks, log_every_n_steps=0, global_step=0, precision="32-true")


def module() -> Any:
    return Mock(spec=TrainingModule, device=torch.device("cpu"))


def test_time_is_divided_into_waiting_training_and_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, callback = Clock(monkeypatch), Throughput()
    run, net = trainer(ranks=2), module()
    callback.on_train_start(run, net)
    for widths, columns in ([30, 50], 50), ([10, 20, 30], 40):
        clock.passes(1)  # waiting
        callback.on_train_batch_start(run, net, batch(widths, columns), 0)
        clock.passes(3)
        callback.on_train_batch_end(run, net, None, batch(widths, columns), 0)
        clock.passes(10)
        callback.on_validation_end(run, net)
    assert callback.figures(ranks=2) == pytest.approx({
        "lines_per_second": 2 * 5 / 8,
        "pixels_per_second": 2 * 10 * 140 / 8,
        "padding": 1 - 140 / (2 * 50 + 3 * 40),
        "waiting": 2 / 8,
    })  # fmt: skip
    assert callback.elapsed == 28


def test_a_resumed_run_counts_what_was_measured_before(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, whole, first, second = Clock(monkeypatch), Throughput(), Throughput(), Throughput()
    run, net = trainer(), module()

    def step(*callbacks: Throughput) -> None:
        clock.passes(1)
        for callback in callbacks:
            callback.on_train_batch_start(run, net, batch([30], 40), 0)
        clock.passes(2)
        for callback in callbacks:
            callback.on_train_batch_end(run, net, None, batch([30], 40), 0)

    whole.on_train_start(run, net)
    first.on_train_start(run, net)
    step(whole, first)
    second.load_state_dict(first.state_dict())
    second.on_fit_start(run, net)
    second.on_train_start(run, net)
    step(whole, second)
    assert second.state_dict() == whole.state_dict()
    assert second.figures() == whole.figures()


def test_the_operations_of_a_perceptron_are_two_for_each_weight() -> None:
    net: list[nn.Module] = []

    def build(classes: int) -> MLP:
        net.append(MLP(classes, 784, [16], batch_norm=True))
        return cast(MLP, net[0])

    recognizer = Classifier("0123456789", build, normalizer=Normalizer(), preprocess=FixedSize(28, 28, 20))
    training = TrainingModule(recognizer.train())
    before = {name: value.clone() for name, value in recognizer.state_dict().items()}
    images = Batch(["a", "b"], torch.rand(2, 1, 28, 28), torch.full((2,), 28), ["1", "2"], ["a", "b"])
    assert operations(training, images) == 2 * 2 * (784 * 16 + 16 * 10)
    assert all(part.training for part in recognizer.modules())
    for name, value in recognizer.state_dict().items():
        assert torch.equal(value, before[name]), name  # nothing was learned


def test_utilization_is_the_share_of_the_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, callback = Clock(monkeypatch), Throughput(utilization=True)
    run, net = trainer(), module()
    monkeypatch.setattr(throughput, "operations", lambda module, batch: 4 * batch.images.numel())
    monkeypatch.setattr(throughput, "ceiling", lambda device, precision: 24_000.0)
    callback.on_train_start(run, net)
    callback.on_train_batch_start(run, net, batch([50], 50), 0)
    clock.passes(2)
    callback.on_train_batch_end(run, net, None, batch([50], 50), 0)
    assert callback.figures()["utilization"] == pytest.approx(3 * 4 * 500 / 2 / 24_000)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_ceiling_is_that_of_a_matrix_product(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    clock = Clock(monkeypatch)
    kinds = []

    def product(self: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        kinds.append(self.dtype)
        clock.passes(0.5)
        return self

    monkeypatch.setattr(torch.Tensor, "__matmul__", product)
    monkeypatch.setattr(throughput, "SIDE", 8)
    assert ceiling(torch.device("cpu"), precision) == 2 * 8**3 / 0.5
    assert set(kinds) == {torch.bfloat16 if precision == "bf16-mixed" else torch.float32}
