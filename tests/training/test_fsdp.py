"""Weights that are divided among processes train and are saved like those of any other run."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from conftest import CONF, SMALL
from hydra import compose
from lightning import Trainer
from torch.distributed import HashStore
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh

from htr_lightning import checkpoint
from htr_lightning.errors import InputError
from htr_lightning.hydra_version import initialize_config_dir, instantiate
from htr_lightning.model.base import Recognizer
from htr_lightning.training import divergence
from htr_lightning.training.module import TrainingModule
from htr_lightning.training.ranks import FSDP, FULL_ON_FIRST, prepare, shard
from training.test_gpu import TEXTS, batch

ROOT = Path(__file__).parent.parent.parent
TINY = [
    "model=hybrid", "model.net.encoder.width=24", "model.net.encoder.depth=2", "model.net.decoder.width=24",
    "model.net.decoder.depth=2", "model.net.encoder.backbone.stem=8", "model.net.encoder.backbone.channels=[8, 8, 16]",
    "model.token_noise=0.0", "model.net.encoder.dropout=0.0", "model.net.decoder.dropout=0.0",
]  # fmt: skip


def composed(*overrides: str) -> Any:
    with initialize_config_dir(str(CONF)):
        return compose("train", overrides=["run_dir=runs/test", "name=test", *overrides])


def recognizer() -> Recognizer:
    torch.manual_seed(0)
    built: Recognizer = instantiate(composed(*TINY).model, _convert_="all")(alphabet="ab")
    return built.train()


@pytest.fixture
def mesh() -> Iterator[Any]:
    """The device mesh of a single process."""
    torch.distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,), mesh_dim_names=("data_parallel",))
    finally:
        torch.distributed.destroy_process_group()


def test_the_config_gives_a_trainer_that_divides_the_weights() -> None:
    config = composed("trainer=fsdp", "trainer.accelerator=cpu", "logger=csv")
    trainer: Trainer = instantiate(config.trainer, max_time=None)
    assert isinstance(trainer.strategy, FSDP)
    assert trainer.num_devices == 2


def test_averaged_weights_are_refused_with_the_trainer_before_there_are_data() -> None:
    config = composed("trainer=fsdp", "trainer.accelerator=cpu", "callbacks=ema", "logger=csv")
    with pytest.raises(InputError, match="callbacks=ema: not supported by trainer=fsdp"):
        prepare(instantiate(config.trainer, max_time=None))


def test_an_optimizer_that_moves_the_weights_twice_is_refused() -> None:
    its, strategy = recognizer(), FSDP()
    its.optimizer = instantiate(composed("optimizer=sam").model.optimizer, _convert_="all")
    strategy.accelerator = Mock()
    strategy.connect(TrainingModule(its))
    with pytest.raises(InputError, match="optimizer=sam: not supported by trainer=fsdp"):
        strategy.setup(Mock(spec=Trainer, callbacks=[]))


def test_divided_weights_have_the_loss_and_gradients_of_whole_ones(mesh: Any) -> None:
    whole, parts, given = recognizer(), recognizer(), batch("cpu", TEXTS)
    shard(parts, mesh)
    strategy = FSDP()
    strategy.connect(TrainingModule(parts))
    assert len(list(strategy.sharded)) == 1 + 2 + 2  # the recognizer, and the blocks of the encoder and decoder
    for _ in range(2):  # with a validation between the steps
        losses = []
        for its in (whole, parts):
            torch.manual_seed(1)
            loss = its.loss(given)
            loss.backward()
            losses.append(loss)
        torch.testing.assert_close(losses[0], losses[1])
        gradients = {name: weight.grad.full_tensor() for name, weight in parts.named_parameters()}
        for name, weight in whole.named_parameters():
            torch.testing.assert_close(gradients[name], weight.grad)
        whole.eval()
        parts.eval()
        strategy.on_validation_start()
        with torch.no_grad():
            assert parts.validate(given)[2] == whole.validate(given)[2]
        strategy.on_validation_end()
        whole.train()
        parts.train()
    with pytest.raises(InputError, match="divides its weights"):
        divergence.save(Path("nonfinite.pt"), parts, [], "32-true")
    saved = get_model_state_dict(parts, options=FULL_ON_FIRST)
    assert saved.keys() == whole.state_dict().keys()
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(saved[name], weight)


def test_the_state_of_the_optimizer_is_numbered_as_by_itself(mesh: Any) -> None:
    states, weights = [], []
    for divided in (False, True):
        its = recognizer()
        if divided:
            shard(its, mesh)
        decayed = [p for p in its.parameters() if p.ndim > 1]
        others = [p for p in its.parameters() if p.ndim <= 1]  # groups in another order than the weights
        optimizer = torch.optim.AdamW([{"params": others, "lr": 0.1}, {"params": decayed, "lr": 0.01}], fused=True)
        torch.manual_seed(1)
        its.loss(batch("cpu", TEXTS)).backward()
        optimizer.step()
        strategy = FSDP()
        strategy.connect(TrainingModule(its))
        strategy.optimizers = [optimizer]
        states.append(strategy.optimizer_state(optimizer) if divided else optimizer.state_dict())
        weights.append({name: weight.detach().clone() for name, weight in its.named_parameters()})
        if divided:
            for group in optimizer.param_groups:
                group["lr"] = 0.5
            strategy.load_model_state_dict({"state_dict": weights[0]})
            strategy.load_optimizer_state_dict({"optimizer_states": states[:1]})
            assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.01]
            again = strategy.optimizer_state(optimizer)
            torch.testing.assert_close(again["state"], states[0]["state"])
    torch.testing.assert_close(states[0]["state"], states[1]["state"])
    assert [one["params"] for one in states[0]["param_groups"]] == [one["params"] for one in states[1]["param_groups"]]


@pytest.mark.slow
def test_two_ranks_that_divide_the_weights_leave_a_run_like_any_other(tmp_path: Path) -> None:
    small = [one for one in SMALL if not one.startswith(("model.net", "model.preprocess", "trainer=default"))]
    train = [
        sys.executable, str(ROOT / "train.py"), *TINY, *small, "trainer=fsdp", "trainer.accelerator=cpu", "logger=csv",
        "trainer.gradient_clip_val=0.5", "trainer.max_epochs=2",
    ]  # fmt: skip
    stop = [
        "+callbacks.fault._target_=fault.Fault",
        "+callbacks.fault.kind=SIGTERM",
        f"+callbacks.fault.folder={tmp_path}/parts",
    ]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "training")])}
    for folder, others, code in (
        ("whole", [], 0),
        ("parts", stop, 128 + signal.SIGTERM),
        ("parts", ["resume=auto"], 0),
    ):
        command = [*train, *others, f"hydra.run.dir={tmp_path / folder}"]
        ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        assert ended.returncode == code, ended.stderr[-3000:]
    assert (tmp_path / "whole" / "summary.json").is_file()
    assert checkpoint.load(tmp_path / "whole" / "checkpoints" / "best.ckpt").alphabet  # in one process
    whole, parts = (checkpoint.read(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "parts"))
    assert len(whole["optimizer_states"][0]["state"]) == len(dict(recognizer().named_parameters()))
    assert parts["global_step"] == whole["global_step"]
    for key in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(parts[key], whole[key], rtol=0, atol=0)
