"""A compiled network learns what it learns otherwise, and its checkpoints are the same."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, run_train
from torch import Tensor, nn

from htr_lightning import checkpoint
from htr_lightning.data.batch import collate
from htr_lightning.errors import InputError
from htr_lightning.training import run
from htr_lightning.training.compilation import backend, compile_parts, obstacle
from htr_lightning.training.module import TrainingModule
from htr_lightning.training.resume import changes
from training.test_finders import FEW
from training.test_gpu import TEXTS, recognizer

ROOT = Path(__file__).parent.parent.parent
CPU = torch.device("cpu")


class Net(nn.Module):
    """A network with the parts of ours, whose types are checked in tests, so that they cannot be compiled here."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(2))
        self.head = nn.ModuleList([nn.Linear(4, 2)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.backbone(x)
        for block in self.blocks:
            x = block(x)
        return self.head[0](x)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # read by torch._dynamo
def test_the_parts_of_a_network_are_compiled_for_training_only() -> None:
    runs = list[bool]()

    def counted(graph: Any, inputs: Any) -> Any:
        def forward(*arguments: Any) -> Any:
            runs.append(torch.is_grad_enabled())
            return graph(*arguments)

        return forward

    torch._dynamo.reset()
    torch._dynamo.register_backend(counted, name="counted")
    net, x = Net(), torch.rand(5, 3)
    plain, keys = net(x), list(net.state_dict())
    module = TrainingModule(recognizer("cnn"))
    module.compiled = compile_parts(net, backend("counted") or "")
    assert module.compiled == 3
    assert list(net.state_dict()) == keys
    torch.testing.assert_close(net(x), plain)
    with module.eager(), torch.no_grad():
        torch.testing.assert_close(net(x), plain)
    assert runs == [True] * 3


@pytest.mark.slow
def test_a_compiled_run_is_like_any_other_and_can_be_resumed(tmp_path: Path) -> None:
    train = [sys.executable, str(ROOT / "train.py"), *SMALL, "trainer.accelerator=cpu", "logger=csv"]
    runs = {"plain": ["trainer.max_epochs=2"], "compiled": ["trainer.max_epochs=2", "compile=aot_eager"]}
    runs["resumed"] = ["trainer.max_epochs=3", "compile=aot_eager", f"resume={tmp_path}/compiled"]
    contents = []
    for name, overrides in runs.items():
        folder = tmp_path / ("compiled" if name == "resumed" else name)
        command = [*train, *overrides, f"hydra.run.dir={folder}"]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr[-3000:]
        contents.append(checkpoint.read(folder / "checkpoints" / "last.ckpt"))
        told = "compiled: 1 part of the network, with aot_eager"
        assert (told in (folder / "train.log").read_text()) == (name != "plain")
    plain, compiled, resumed = contents
    assert list(plain["state_dict"]) == list(compiled["state_dict"])
    for name, weight in plain["state_dict"].items():
        torch.testing.assert_close(weight, compiled["state_dict"][name], rtol=1e-3, atol=1e-4)
    assert resumed["global_step"] == compiled["global_step"] * 3 // 2


def test_a_resumed_run_names_another_compilation() -> None:
    old, new = ({"training": {"compile": one}, "model": {}, "data": {}} for one in (False, True))
    assert changes(old, new) == ["compile False -> True"]  # a compiled network draws other numbers for dropout


INDUCTOR = """
import torch
from hydra import compose

from htr_lightning.config import conf_dir
from htr_lightning.data.batch import collate
from htr_lightning.hydra_version import initialize_config_dir, instantiate
from htr_lightning.training.compilation import compile_parts

small = ["model=vit_ctc", "model.net.width=24", "model.net.depth=2", "model.net.dropout=0.0", "name=a", "run_dir=a"]
with initialize_config_dir(str(conf_dir())):
    config = compose("train", overrides=small)
torch.manual_seed(0)
its = instantiate(config.model, _convert_="all")(alphabet="ab").eval()
height = config.model.preprocess.height
batch = collate(["1", "2"], [torch.rand(height, width).numpy() for width in (96, 128)], ["ab", "ba"], ["", ""])
found = []
for _ in range(2):
    loss = its.loss(batch)
    loss.backward()
    found.append([loss.detach(), *(weight.grad.clone() for weight in its.parameters())])
    its.zero_grad()
    assert len(found) == 2 or compile_parts(its.net, "inductor") > 2
assert sum(float(one.abs().max()) > 1e-3 for one in found[0]) > 9
torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)
"""


@pytest.mark.slow
def test_inductor_gives_the_loss_and_the_gradients_of_the_network() -> None:
    if reason := obstacle("inductor", CPU):
        pytest.skip(reason)
    command = [sys.executable, "-c", INDUCTOR]  # in another process, where types are not checked
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-3000:]


def test_a_run_without_a_compiler_goes_on_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "obstacle", lambda name, device: "there is no C++ compiler; install g++")
    small = [*SMALL, FEW, "logger=csv", "trainer=debug", "trainer.max_epochs=1", "compile=true"]
    folder = run_train(tmp_path / "run", *small)
    told = (folder / "train.log").read_text()
    assert "compile: off, since there is no C++ compiler; install g++" in told
    assert "compiled:" not in told


def test_a_missing_compiler_is_an_obstacle_to_inductor_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    assert backend(False) is None
    assert backend(True) == "inductor"
    monkeypatch.setattr(config.cpp, "cxx", ("/nowhere/g++",))
    assert "C++ compiler" in str(obstacle("inductor", CPU))
    assert obstacle("aot_eager", CPU) is None
    with pytest.raises(InputError, match=r"compile=inductr: expected true, false or a backend: .*inductor"):
        backend("inductr")


@pytest.mark.parametrize("model", ["crnn", "vit_ctc", "hybrid"])
def test_widths_in_buckets_do_not_change_the_loss(model: str) -> None:
    """In evaluation mode; in training, batch norms also count columns of padding."""
    torch.manual_seed(0)
    its = recognizer(model).eval()
    ink = [torch.rand(32, width).numpy() for width in (40, 96, 90, 64)]
    losses = []
    for multiple in (1, 128):
        batch = collate(list("abcd"), ink, TEXTS, [""] * 4, multiple)
        assert batch.images.shape[3] == {1: 96, 128: 128}[multiple]
        torch.manual_seed(1)  # of the noise in what the decoder is told
        losses.append(its.loss(batch))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-6)
