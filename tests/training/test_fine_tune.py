"""Fine-tuning: kept characters, frozen layers, learning rates by depth, and the command."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CONF, SMALL, Outcome, drawn_lines
from hydra import compose
from lightning import Callback, LightningModule, Trainer
from omegaconf import OmegaConf
from test_conf import check_keys, names
from torch import Tensor
from torch.optim import SGD, AdamW

from htr_lightning import checkpoint
from htr_lightning.build import build, data_for
from htr_lightning.config import plain
from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.errors import InputError
from htr_lightning.hydra_version import initialize_config_dir
from htr_lightning.model.base import Recognizer
from htr_lightning.net.depth import layers
from htr_lightning.optim import SAM
from htr_lightning.schedule import OneCycle
from htr_lightning.training.callbacks import FreezeBackbone
from htr_lightning.training.fine_tune import offer
from htr_lightning.training.module import TrainingModule
from htr_lightning.training.optimization import configure_optimizers
from htr_lightning.training.transfer import transfer
from training.test_transfer import logits

ROOT = Path(__file__).parent.parent.parent
DATA = [word for word in SMALL if not word.startswith("model.")]
OLD = ["data@replay=synthetic", "replay.reader.lines={train: 30, val: 4, test: 4}",
       "replay.reader.writers={train: 3, val: 2, test: 2}"]  # fmt: skip


def composed(*overrides: str) -> Any:
    with initialize_config_dir(str(CONF)):
        return compose("fine_tune", overrides=["run_dir=runs/test", "name=test", *overrides])


# ---- the alphabet


@pytest.fixture
def started(best: Path) -> Callable[..., Recognizer]:
    """A function that returns the recognizer with which a run on other texts starts, and the transfer report."""

    def start(keep: bool) -> tuple[Recognizer, Any]:
        offer(str(best))
        old = checkpoint.load(best)
        alphabet = "".join(c for c in old.codec.alphabet if c not in "xq")
        config = composed(
            "data=synthetic", *DATA, f"data.alphabet={['é', *reversed(alphabet), 'ß']!r}", "model.unknown=skip"
        )
        known = old.codec.alphabet if keep else ()
        recognizer = build(config, known)[1].eval()
        return recognizer, transfer(recognizer, best)

    return start


@pytest.mark.parametrize("keep", [True, False])
def test_kept_characters_are_read_as_before_and_changes_are_reported(started: Callable, best: Path, keep: bool) -> None:
    recognizer, report = started(keep)
    assert report.added == ["é", "ß"]
    assert sorted(report.dropped) == ([] if keep else ["q", "x"])
    assert all(c in str(report) for c in (*report.added, *report.dropped))
    old = checkpoint.load(best)
    before, after = logits(old), logits(recognizer)
    for character in report.kept:
        there, here = (r.codec.encode(character)[0] for r in (old, recognizer))
        assert torch.equal(before[..., there], after[..., here]), character
    assert torch.equal(before[..., 0], after[..., 0])


# ---- frozen layers and learning rates by depth


class Weights(Callback):
    """Record the weights and statistics of every layer at the start and after each step."""

    def __init__(self) -> None:
        self.seen: list[list[list[Tensor]]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = layers(pl_module.recognizer.net, len(pl_module.recognizer.codec))
        states = [[value.clone() for module in layer.modules for value in module.state_dict().values()]
                  for layer in found]  # fmt: skip
        self.seen.append(states)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.on_train_start(trainer, pl_module)


def fit(recognizer: Recognizer, steps: int, tmp_path: Path, *callbacks: Callback) -> None:
    data = LineDataModule(drawn_lines, recognizer.preprocess, recognizer.normalizer, workers=0, max_lines=4)
    Trainer(
        max_steps=steps, callbacks=list(callbacks), default_root_dir=tmp_path, logger=False, accelerator="cpu",
        enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False, limit_val_batches=0,
        use_distributed_sampler=False, num_sanity_val_steps=0,
    ).fit(TrainingModule(recognizer), data)  # fmt: skip


def ready(make_recognizer: Callable, optimizer: Any, **settings: Any) -> Recognizer:
    recognizer = make_recognizer("".join(sorted(set("".join(drawn_lines("train").texts)))), gain=1).train()
    recognizer.optimizer = optimizer
    for name, value in settings.items():
        setattr(recognizer, name, value)
    return recognizer


@pytest.mark.parametrize("sam", [False, True], ids=["adamw", "sam"])
def test_only_the_head_is_trained_at_first_and_all_layers_afterwards(
    make_recognizer: Callable, tmp_path: Path, sam: bool
) -> None:
    adamw = partial(AdamW, lr=1e-2, weight_decay=0.1)
    weights = Weights()
    recognizer = ready(make_recognizer, partial(SAM, base=adamw) if sam else adamw)
    fit(recognizer, 6, tmp_path, FreezeBackbone(0.5), weights)
    assert len(weights.seen) == 7
    for step, (before, after) in enumerate(zip(weights.seen[:-1], weights.seen[1:], strict=True)):
        moved = [not all(map(torch.equal, *pair)) for pair in zip(before, after, strict=True)]
        assert moved == [step >= 3] * (len(moved) - 1) + [True], step


def test_a_fraction_of_zero_freezes_nothing(make_recognizer: Callable, tmp_path: Path) -> None:
    weights = Weights()
    fit(ready(make_recognizer, partial(SGD, lr=0.1)), 1, tmp_path, FreezeBackbone(0.0), weights)
    assert not any(all(map(torch.equal, *pair)) for pair in zip(*weights.seen, strict=True))


@pytest.mark.parametrize("sam", [False, True], ids=["adamw", "sam"])
def test_each_layer_has_its_own_rate_and_follows_the_same_schedule(
    make_recognizer: Callable, tmp_path: Path, sam: bool
) -> None:
    class Rates(Callback):
        seen: list[dict[str, float]] = []  # noqa: RUF012

        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            self.seen.append({group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups})

    adamw, rates = partial(AdamW, lr=1e-2), Rates()
    rates.seen = []
    recognizer = ready(
        make_recognizer, partial(SAM, base=adamw) if sam else adamw, layer_decay=0.5,
        scheduler=partial(OneCycle, warmup=0.0, end=0.0),
    )  # fmt: skip
    fit(recognizer, 4, tmp_path, rates)
    order = [layer.name for layer in layers(recognizer.net, len(recognizer.codec))]
    assert list(rates.seen[0]) == order
    for step in rates.seen:
        for earlier, later in pairwise(order):
            assert step[earlier] == pytest.approx(0.5 * step[later])
    peaks = [step["head"] for step in rates.seen]
    assert peaks[0] == pytest.approx(1e-2)
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[-1] < 0.5 * peaks[0]


def test_steps_are_proportional_to_the_rate_of_the_layer(make_recognizer: Callable) -> None:
    recognizer = ready(make_recognizer, partial(SGD, lr=1.0), layer_decay=0.5)
    optimizer = configure_optimizers(recognizer, Trainer(accelerator="cpu", logger=False))
    before = [parameter.detach().clone() for parameter in recognizer.parameters()]
    for parameter in recognizer.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moves = {id(p): float((old - p.detach()).mean()) for old, p in zip(before, recognizer.parameters(), strict=True)}
    found = layers(recognizer.net, len(recognizer.codec))
    for depth, layer in enumerate(reversed(found)):
        for parameter in layer.parameters:
            assert moves[id(parameter)] == pytest.approx(0.5**depth, rel=1e-4)


# ---- the config and the command


@pytest.fixture(scope="module")
def replayable(best: Path) -> None:
    offer(str(best))


@pytest.mark.usefixtures("replayable")
@pytest.mark.parametrize("data", names("data"))
def test_every_data_config_can_be_replayed(data: str) -> None:
    config = OmegaConf.to_container(composed("data=page_xml", f"data@replay={data}", "replay.root=OLD"), resolve=True)
    check_keys(config)
    assert config["data"]["replay"] == config["replay"]
    assert config["replay"]["root"] == "OLD"
    assert config["data"]["root"] is None
    assert config["replay"]["preprocess"] == config["model"]["preprocess"]


def test_model_optimizer_and_scheduler_come_from_the_checkpoint(best: Path) -> None:
    offer(str(best))
    card = checkpoint.read(best)["htr"]
    config = OmegaConf.to_container(composed("data=page_xml", "model.net.dropout=0.4"), resolve=True)
    assert config["model"].pop("net")["dropout"] == 0.4
    assert {key: config["model"][key] for key in card["model"] if key != "net"} == {
        key: value for key, value in card["model"].items() if key != "net"
    }
    assert config["optimizer"] == config["model"]["optimizer"] == card["training"]["optimizer"]
    assert config["scheduler"] == card["training"]["scheduler"]
    assert composed("data=page_xml", "optimizer=sam", "optimizer.base.lr=1").optimizer.base.lr == 1


@pytest.mark.usefixtures("replayable")
def test_the_recipe_composes_and_replays_copiste() -> None:
    config = OmegaConf.to_container(composed("experiment=tessier_fine_tune", "data.root=LETTERS"), resolve=True)
    check_keys(config)
    assert config["data"]["reader"]["splits"] == {"train": 16, "val": 10, "test": 40}
    assert config["data"]["replay"]["reader"]["name"] == "copiste"
    assert config["optimizer"]["lr"] == config["model"]["optimizer"]["lr"] == 3e-3


def refused(outcome: Outcome, *words: str) -> None:
    assert outcome.code != 0
    errors = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, outcome.stderr
    assert "Traceback" not in outcome.stderr + outcome.stdout
    assert all(word in errors[0] for word in words), errors[0]


def test_invalid_overrides_are_rejected_in_one_line(best: Path, htr: Callable[..., Outcome], tmp_path: Path) -> None:
    folder = f"hydra.run.dir={tmp_path}/run"
    refused(htr("fine-tune", tmp_path / "none.ckpt", "data=synthetic", folder), "none.ckpt: checkpoint not found")
    refused(htr("fine-tune", best, "data=synthetic", "model=mlp", folder), "the model comes from the checkpoint")
    refused(htr("fine-tune", best, "data=synthetic", f"start={best}x", folder), "the model comes from the checkpoint")
    refused(htr("fine-tune", best, "data=synthetic", "optimizer.rate=1", folder), "optimizer.rate", "no such key")
    refused(htr("fine-tune", best, "data=synthetic", "data@replay=nothing", folder), "data=nothing: no such option")
    refused(htr("fine-tune", best, folder), "data")


def test_a_checkpoint_without_a_model_config_is_rejected(tmp_path: Path) -> None:
    torch.save({"htr": {"format": 2, "alphabet": ["a"]}, "state_dict": {}}, tmp_path / "bare.ckpt")
    with pytest.raises(InputError, match=r"bare\.ckpt: contains no model config"):
        offer(str(tmp_path / "bare.ckpt"))


def test_a_checkpoint_with_an_unsupported_optimizer_is_rejected(best: Path, tmp_path: Path) -> None:
    for target in ("os.system", "htr_lightning.optim.math.exp", "torch.hub.load", "htr_lightning.optim.layers",
                   "htr_lightning.schedule.clock", "torch.nn.Linear"):  # fmt: skip
        content = checkpoint.read(best)
        content["htr"]["training"]["optimizer"]["_target_"] = target
        torch.save(content, tmp_path / "odd.ckpt")
        with pytest.raises(InputError, match=r"odd.ckpt: uses .* as optimizer, which is not allowed"):
            offer(str(tmp_path / "odd.ckpt"))


def command(best: Path, folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "htr_lightning", "fine-tune", str(best), *DATA, *OLD, *overrides]
    return subprocess.run([*words, f"hydra.run.dir={folder}"], cwd=ROOT, capture_output=True, text=True, timeout=280)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_fine_tuned_checkpoint_works_in_a_new_process(best: Path, tmp_path: Path, ranks: int) -> None:
    several = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"] if ranks == 2 else []
    folder = tmp_path / "run"
    done = command(best, folder, "data=synthetic_french", "trainer.max_epochs=2", "optimizer=sam", *several)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "each epoch has 48 new lines and 48 replayed lines, sampled from 30" in text
    assert "added" in text.partition("é")[0]
    assert "30 replay" in text
    figures = json.loads((folder / "summary.json").read_text())
    assert figures["test_lines"] == 24
    assert {"best.ckpt", "last.ckpt"} <= {path.name for path in (folder / "checkpoints").iterdir()}
    new = folder / "checkpoints" / "best.ckpt"
    assert set(checkpoint.load(best).codec.alphabet) < set(checkpoint.load(new).codec.alphabet)
    assert len(data_for(checkpoint.load(new)).lines("train")) == 48
    evaluate = [sys.executable, "-m", "htr_lightning", "evaluate", str(new), "--out", str(tmp_path / "e")]
    done = subprocess.run(evaluate, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "e" / "metrics.json").read_text())["edits"] == figures["test_edits"]
    last = folder / "checkpoints" / "last.ckpt"
    done = command(best, tmp_path / "on", "data=synthetic_french", "trainer.max_epochs=3", "optimizer=sam",
                   *several, f"resume={last}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "resumed from" in done.stdout


@pytest.mark.slow
def test_frozen_layers_do_not_change_on_two_ranks(best: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = command(
        best, folder, "data=synthetic", "trainer.max_steps=4", "callbacks.freeze_backbone.fraction=0.99",
        "data.replay=null",
        "trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    old, new = (checkpoint.load(path) for path in (best, folder / "checkpoints" / "last.ckpt"))
    found = [layers(r.net, len(r.codec)) for r in (old, new)]
    for there, here in zip(*found, strict=True):
        same = [torch.equal(a, b) for one, other in zip(there.modules, here.modules, strict=True)
                for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)]  # fmt: skip
        assert all(same) == (there.name != "head"), there.name


@pytest.mark.parametrize("source", [{"_target_": "os.getcwd"}, "${oc.env:HOME}"])
def test_a_source_that_is_not_a_name_is_rejected(best: Path, tmp_path: Path, source: object) -> None:
    content = torch.load(best, weights_only=True)
    content["htr"]["training"]["source"], content["parts"] = source, {}
    torch.save(content, tmp_path / "crafted.ckpt")
    with pytest.raises(InputError, match=r"crafted\.ckpt: training\.source is not a model name"):
        offer(str(tmp_path / "crafted.ckpt"))


def test_a_checkpoint_selects_no_other_configs(best: Path, tmp_path: Path) -> None:
    content = torch.load(best, weights_only=True)
    content["htr"]["training"]["optimizer"]["defaults"] = [{"/logger@_global_.logger": "wandb"}]
    content["htr"]["model"]["source"] = "somebody/else"
    torch.save(content, tmp_path / "crafted.ckpt")
    offer(str(tmp_path / "crafted.ckpt"))
    config = composed("data=synthetic", "logger=csv")
    assert list(config.logger) == ["csv"]
    assert "source" not in config.model


def test_a_network_larger_than_its_weights_is_rejected(best: Path, tmp_path: Path) -> None:
    content = torch.load(best, weights_only=True)
    content["htr"]["model"]["net"]["layers"] = 250
    torch.save(content, tmp_path / "crafted.ckpt")
    with pytest.raises(InputError, match="more layers than its weights"):
        offer(str(tmp_path / "crafted.ckpt"))


@pytest.mark.parametrize("scheduler", sorted((ROOT / "conf" / "scheduler").glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("optimizer", sorted((ROOT / "conf" / "optimizer").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_optimizer_and_scheduler_can_be_fine_tuned(
    best: Path, tmp_path: Path, optimizer: Path, scheduler: Path
) -> None:
    content = torch.load(best, weights_only=True)
    with initialize_config_dir(str(CONF)):
        config = compose("train", [f"optimizer={optimizer.stem}", f"scheduler={scheduler.stem}"])
    content["htr"]["training"] |= {part: plain(config[part]) for part in ("optimizer", "scheduler")}
    torch.save(content, tmp_path / "recipe.ckpt")
    offer(str(tmp_path / "recipe.ckpt"))
