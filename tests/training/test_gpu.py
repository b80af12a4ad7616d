"""What a run does on a GPU, as far as it can be shown without one.

Tensors on the device "meta" stand for those on a GPU: they have no values, so reading one is an error where a run on a
GPU would wait until its work is done.
"""

import traceback
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from conftest import CONF, drawn_lines
from hydra import compose
from lightning import Trainer
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.utils._python_dispatch import TorchDispatchMode

from htr_lightning.data.batch import Batch, moved
from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.preprocess import FitHeight
from htr_lightning.hydra_version import initialize_config_dir, instantiate
from htr_lightning.model import base, line
from htr_lightning.model.base import Recognizer
from htr_lightning.text.normalize import Normalizer
from htr_lightning.training import resume
from htr_lightning.training.module import TrainingModule
from htr_lightning.training.optimization import clip_gradients
from htr_lightning.training.ranks import TIMEOUT, prepare
from htr_lightning.training.resume import resumed_precision

CUDA = torch.device("cuda", 0)
TEXTS = ["a" * 40, "ab", "ba", "abab"]  # the first does not fit into its frames


def recognizer(model: str) -> Recognizer:
    with initialize_config_dir(str(CONF)):
        config = compose("train", overrides=["run_dir=runs/test", "name=test", f"model={model}"])
    built: Recognizer = instantiate(config.model, _convert_="all")(alphabet="ab")
    return built.train()


def batch(device: str, texts: list[str], height: int = 32) -> Batch:
    images = torch.rand(len(texts), 1, height, 96, device=device)
    return Batch(list(map(str, range(len(texts)))), images, torch.tensor([40, 96, 90, 64][-len(texts) :]), texts, texts)


def clip(its: Recognizer) -> None:
    clip_grad_norm_(its.parameters(), 5.0)


class Copies(TorchDispatchMode):
    """A mode in which tensors are copied to the GPU by `moved` only, since other copies wait for the GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("device") == torch.device("meta"):
            assert any(frame.name == "moved" for frame in traceback.extract_stack())
            self.count += 1
        return func(*args, **kwargs)


@pytest.mark.parametrize("model", ["crnn", "crnn_mobilenet", "vit_ctc", "crnn_attention", "hybrid", "trocr", "cnn"])
def test_a_training_step_reads_nothing_from_the_gpu(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    its = recognizer(model).to("meta")
    texts, height = (["a", "b"], 28) if its.single_characters else (TEXTS, 32)
    # PyTorch's CTC loss has no gradient without values
    monkeypatch.setattr(line, "_log_likelihoods", lambda log_probs, lengths, labels: log_probs.sum((1, 2)))
    optimizer = torch.optim.AdamW(its.parameters())
    with Copies() as copies:
        its.loss(batch("meta", texts, height)).backward()
        module: Any = Mock(spec=TrainingModule, trainer=Mock(precision_plugin=Mock(scaler=None)))
        module.clip_gradients.side_effect = lambda *others: clip(its)
        clip_gradients(module, optimizer, 5.0, "norm")
    assert copies.count  # of targets at least
    assert all(weight.grad is not None for weight in its.parameters())
    if not its.single_characters:
        assert [*its.infeasible, *its.short] == ["0"]


def test_the_check_of_the_step_finds_what_waits_for_the_gpu() -> None:
    its, given = recognizer("vit_ctc").to("meta"), batch("meta", TEXTS)
    with pytest.raises(NotImplementedError, match="meta"):
        its.loss(given._replace(widths=given.widths.to("meta")))  # the number of frames is then computed there
    with pytest.raises(AssertionError), Copies():
        torch.zeros(1).to("meta")


@pytest.mark.parametrize(("device", "queued"), [("cuda", True), ("mps", False), ("cpu", False)])
def test_only_copies_to_nvidia_gpus_are_queued(device: str, queued: bool) -> None:
    tensor: Any = Mock(spec=Tensor)
    tensor.to.return_value = torch.zeros(1)
    moved(tensor, torch.device(device))
    tensor.to.assert_called_once_with(torch.device(device), non_blocking=queued)


@pytest.mark.parametrize(("device", "pinned"), [("cuda", True), ("cpu", False)])
def test_batches_are_pinned_for_a_gpu_only(device: str, pinned: bool) -> None:
    data = LineDataModule(drawn_lines, FitHeight(32), Normalizer(), workers=0)
    assert not data.loader("train", training=True).pin_memory
    data.trainer = Mock(strategy=Mock(root_device=torch.device(device)))
    assert data.loader("train", training=True).pin_memory is pinned
    given = batch("cpu", TEXTS)
    assert data.transfer_batch_to_device(given, torch.device("meta"), 0).widths is given.widths


def test_the_deterministic_ctc_loss_is_computed_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    devices, original = list[str](), line._log_likelihoods

    def spy(log_probs: Tensor, lengths: Tensor, labels: Any) -> Tensor:
        devices.append(log_probs.device.type)
        return original(log_probs, lengths, labels)

    monkeypatch.setattr(line, "_log_likelihoods", spy)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: torch.zeros(self.shape))  # there are no values to copy
    logits = torch.rand(2, 30, 4, device="meta", requires_grad=True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        loss = line.ctc_loss(logits, torch.tensor([30, 20]), [[1, 2], [3]])
        loss.backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert devices == ["cpu"]
    assert loss.device == logits.grad.device == logits.device


def test_reading_is_in_float32_and_training_may_use_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    its = recognizer("cnn")
    monkeypatch.setattr(type(its), "device", SimpleNamespace(type="cuda"))
    monkeypatch.setattr(base.torch, "autocast", lambda *others, **options: torch.inference_mode())
    try:
        base.use_tf32(True)
        assert [flag.allow_tf32 for flag in flags] == [True, True]
        with its.exact():
            assert [flag.allow_tf32 for flag in flags] == [False, False]
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.allow_tf32 = value


@pytest.mark.parametrize("device", [CUDA, torch.device("cpu")])
def test_ranks_wait_ten_minutes_and_exchange_numbers_on_the_cpu(device: torch.device) -> None:
    strategy = DDPStrategy(parallel_devices=[device], cluster_environment=LightningEnvironment())
    prepare(Mock(spec=Trainer, strategy=strategy))
    assert strategy._timeout == TIMEOUT
    assert strategy._process_group_backend == ("cpu:gloo,cuda:nccl" if device == CUDA else None)
    own = DDPStrategy(
        parallel_devices=[device], cluster_environment=LightningEnvironment(), timeout=timedelta(hours=1),
        process_group_backend="gloo",
    )  # fmt: skip
    prepare(Mock(spec=Trainer, strategy=own))
    assert (own._timeout, own._process_group_backend) == (timedelta(hours=1), "gloo")


@pytest.mark.parametrize(
    ("old", "new", "on_cpu", "native", "expected", "told"),
    [
        ("bf16-mixed", "bf16-mixed", True, True, "bf16-mixed", ""),
        ("bf16-mixed", "32-true", True, False, "bf16-mixed", "emulates"),
        ("32-true", "bf16-mixed", False, True, "32-true", "like the resumed run"),
        ("16-mixed", "32-true", True, False, "32-true", "cannot compute in 16-mixed"),
        ("16-mixed", "bf16-mixed", False, True, "16-mixed", "like the resumed run"),
        (None, "32-true", True, False, "32-true", ""),
    ],
)
def test_a_run_goes_on_in_its_precision(
    old: str | None, new: str, on_cpu: bool, native: bool, expected: str, told: str,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(resume, "on_cpu", lambda accelerator, value, otherwise: value if on_cpu else otherwise)
    monkeypatch.setattr(resume, "fast_precision", lambda accelerator: "bf16-mixed" if native else "32-true")
    trainer = OmegaConf.create({"trainer": {"precision": "${default}", "accelerator": "auto"}, "default": new}).trainer
    card = {"training": {"trainer": {"precision": old}} if old else {}}
    with caplog.at_level("INFO", "htr_lightning"):
        assert resumed_precision(card, trainer) == expected
    assert told in caplog.text
    assert bool(told) == bool(caplog.text)
    trainer.precision = "64-true"  # by an override, a recipe or a group
    assert resumed_precision(card, trainer) == "64-true"
