"""A checkpoint trained on: what it keeps, what is frozen, how fast layers learn, what is replayed, and the command."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CONF, SMALL, Outcome
from hydra import compose, initialize_config_dir
from lightning import Callback, LightningModule, Trainer
from omegaconf import OmegaConf
from test_conf import check_keys, names
from test_transfer import logits
from torch import Tensor
from torch.optim import SGD, AdamW

from htr_lightning import checkpoint
from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.preprocess import FitHeight
from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.data.sample import Joined
from htr_lightning.data.sampler import LineBatches
from htr_lightning.data.split import draw_lines
from htr_lightning.errors import InputError
from htr_lightning.evaluate import data_for
from htr_lightning.fine_tune import offer, offer_replay
from htr_lightning.model.base import Recognizer
from htr_lightning.net.depth import layers
from htr_lightning.optim import SAM, HeadFirst, OneCycle
from htr_lightning.text.normalize import Normalizer
from htr_lightning.transfer import transfer

ROOT = Path(__file__).parent.parent
DATA = [word for word in SMALL if not word.startswith("model.")]
OLD = ["replay=synthetic", "replay.reader.lines={train: 30, val: 4, test: 4}",
       "replay.reader.hands={train: 3, val: 2, test: 2}"]  # fmt: skip


def composed(*overrides: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("fine_tune", overrides=["run_dir=runs/test", "name=test", *overrides])


def drawn(split: str, lines: int = 24, name: str = "synthetic") -> Synthetic:
    return Synthetic(split, {"train": lines, "val": 11, "test": 5}, {"train": 4, "val": 2, "test": 2})


# ---- the alphabet


@pytest.fixture
def started(best: Path) -> Callable[..., Recognizer]:
    """A function that gives the recognizer that a run on other texts starts with, and what was carried over."""

    def start(keep: bool) -> tuple[Recognizer, Any]:
        offer(str(best))
        old = checkpoint.load(best)
        alphabet = "".join(c for c in old.codec.alphabet if c not in "xq")
        config = composed(
            "data=synthetic", *DATA, f"data.alphabet={['é', *reversed(alphabet), 'ß']!r}", "model.unknown=skip"
        )
        known = old.codec.alphabet if keep else ()
        recognizer = checkpoint.build(config, known)[1].eval()
        return recognizer, transfer(recognizer, best)

    return start


@pytest.mark.parametrize("keep", [True, False])
def test_kept_characters_read_as_before_and_the_changed_ones_are_named(
    started: Callable, best: Path, keep: bool
) -> None:
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


# ---- frozen, and by depth


class Weights(Callback):
    """The weights and statistics of every layer at the start and after each step."""

    def __init__(self) -> None:
        self.seen: list[list[list[Tensor]]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = layers(pl_module.net, len(pl_module.codec))
        states = [[value.clone() for module in layer.modules for value in module.state_dict().values()]
                  for layer in found]  # fmt: skip
        self.seen.append(states)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.on_train_start(trainer, pl_module)


def fit(recognizer: Recognizer, steps: int, tmp_path: Path, *callbacks: Callback) -> None:
    data = LineDataModule(drawn, recognizer.preprocess, recognizer.normalizer, workers=0, max_lines=4)
    Trainer(
        max_steps=steps, callbacks=list(callbacks), default_root_dir=tmp_path, logger=False, accelerator="cpu",
        enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False, limit_val_batches=0,
        use_distributed_sampler=False, num_sanity_val_steps=0,
    ).fit(recognizer, data)  # fmt: skip


def ready(make_recognizer: Callable, optimizer: Any, **settings: Any) -> Recognizer:
    recognizer = make_recognizer("".join(sorted(set("".join(drawn("train").texts)))), gain=1).train()
    recognizer.optimizer = optimizer
    for name, value in settings.items():
        setattr(recognizer, name, value)
    return recognizer


@pytest.mark.parametrize("sam", [False, True], ids=["adamw", "sam"])
def test_only_the_head_moves_in_the_first_share_of_a_run_and_everything_after_it(
    make_recognizer: Callable, tmp_path: Path, sam: bool
) -> None:
    adamw = partial(AdamW, lr=1e-2, weight_decay=0.1)
    weights = Weights()
    recognizer = ready(make_recognizer, partial(SAM, base=adamw) if sam else adamw)
    fit(recognizer, 6, tmp_path, HeadFirst(0.5), weights)
    assert len(weights.seen) == 7
    for step, (before, after) in enumerate(zip(weights.seen[:-1], weights.seen[1:], strict=True)):
        moved = [not all(map(torch.equal, *pair)) for pair in zip(before, after, strict=True)]
        assert moved == [step >= 3] * (len(moved) - 1) + [True], step


def test_a_share_of_nothing_freezes_nothing_and_of_everything_is_refused(
    make_recognizer: Callable, tmp_path: Path
) -> None:
    weights = Weights()
    fit(ready(make_recognizer, partial(SGD, lr=0.1)), 1, tmp_path, HeadFirst(0.0), weights)
    assert not any(all(map(torch.equal, *pair)) for pair in zip(*weights.seen, strict=True))
    with pytest.raises(InputError, match=r"head_first.share=1.0"):
        HeadFirst(1.0)


@pytest.mark.parametrize("sam", [False, True], ids=["adamw", "sam"])
def test_every_layer_learns_at_its_own_rate_and_the_schedule_moves_all_alike(
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
    assert peaks[0] == pytest.approx(1e-2 if not recognizer.scheduler.keywords["warmup"] else 0)
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[-1] < 0.5 * peaks[0]


def test_a_step_is_as_long_as_the_rate_of_its_layer(make_recognizer: Callable) -> None:
    recognizer = ready(make_recognizer, partial(SGD, lr=1.0), layer_decay=0.5)
    optimizer = recognizer.configure_optimizers()
    before = [parameter.detach().clone() for parameter in recognizer.parameters()]
    for parameter in recognizer.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moves = {id(p): float((old - p.detach()).mean()) for old, p in zip(before, recognizer.parameters(), strict=True)}
    found = layers(recognizer.net, len(recognizer.codec))
    for depth, layer in enumerate(reversed(found)):
        for parameter in layer.parameters:
            assert moves[id(parameter)] == pytest.approx(0.5**depth, rel=1e-4)


@pytest.mark.parametrize("decay", [0.0, -1.0, 1.5])
def test_a_decay_that_is_none_is_refused(make_recognizer: Callable, decay: float) -> None:
    with pytest.raises(InputError, match="layer_decay"):
        ready(make_recognizer, partial(SGD, lr=1.0), layer_decay=decay).configure_optimizers()


# ---- replay


def mixed(share: float = 0.5, old: int = 10, **others: Any) -> LineDataModule:
    settings: dict[str, Any] = {"workers": 0, "max_lines": 4} | others
    replay = LineDataModule(partial(tagged, lines=old), FitHeight(32, margin=4), Normalizer())
    return LineDataModule(drawn, FitHeight(32, margin=4), Normalizer(), replay=replay, replay_share=share, **settings)


def tagged(split: str, lines: int) -> Synthetic:
    reader = drawn(split, lines)
    reader.__class__ = type("Tagged", (Synthetic,), {"__getitem__": _tagged})
    return reader


def _tagged(self: Synthetic, index: int) -> Any:
    sample = Synthetic.__getitem__(self, index)
    return sample._replace(id=f"old/{index}")


def epoch(data: LineDataModule, number: int, rank: int = 0, world: int = 1) -> list[list[str]]:
    loader = data.loader("train", rank, world, training=True)
    loader.sampler.set_epoch(number)
    return [batch.ids for batch in loader]


@pytest.mark.parametrize(("share", "old"), [(0.5, 24), (0.25, 8), (0.75, 72), (0.0, 0)])
def test_an_epoch_has_every_new_line_once_and_the_share_of_old_ones(share: float, old: int) -> None:
    for number in range(3):
        ids = [id for batch in epoch(mixed(share), number) for id in batch]
        new = [id for id in ids if not id.startswith("old/")]
        assert sorted(new) == sorted(drawn("train").ids)
        assert len(ids) - len(new) == old == mixed(share).replayed


def test_old_lines_come_again_only_when_all_have_come() -> None:
    data = mixed(0.25, old=20)  # 8 an epoch
    counts: dict[str, int] = {}
    for number in range(7):
        for id in (id for batch in epoch(data, number) for id in batch if id.startswith("old/")):
            counts[id] = counts.get(id, 0) + 1
        values = [counts.get(f"old/{index}", 0) for index in range(20)]
        assert sum(values) == 8 * (number + 1)
        assert max(values) - min(values) <= 1


def test_the_share_fades_from_epoch_to_epoch_and_the_dealing_goes_on() -> None:
    data = mixed(0.75, old=50, replay_fade=0.5)  # of 24 new lines: 72, 14 (3/8), 6 (3/16), 2 (3/32)
    counts: dict[str, int] = {}
    for number, dealt in enumerate((72, 14, 6, 2)):
        ids = [id for batch in epoch(data, number) for id in batch if id.startswith("old/")]
        assert len(ids) == dealt
        for id in ids:
            counts[id] = counts.get(id, 0) + 1
        values = [counts.get(f"old/{index}", 0) for index in range(50)]
        assert max(values) - min(values) <= 1


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_batches_that_one_process_sees(world: int) -> None:
    one = epoch(mixed(), 2)
    shares = [epoch(mixed(), 2, rank, world) for rank in range(world)]
    dealt = [tuple(batch) for batches in zip(*shares, strict=True) for batch in batches]
    assert set(dealt) == {tuple(batch) for batch in one}
    assert 0 <= len(dealt) - len(one) < world  # the last round is filled up


def test_workers_and_kept_lines_change_nothing() -> None:
    plain, kept = epoch(mixed(), 1), mixed(keep=64, workers=1)
    assert epoch(kept, 1) == plain == epoch(kept, 1)


def test_validation_and_test_are_of_the_new_data_alone() -> None:
    data = mixed()
    for split in ("val", "test"):
        assert sorted(id for batch in data.loader(split) for id in batch.ids) == sorted(drawn(split).ids)


def test_the_alphabet_has_the_characters_of_old_lines() -> None:
    assert set(mixed().alphabet) == set("".join(drawn("train").texts) + "".join(drawn("train", 10).texts))


def test_joined_readers_are_one_behind_the_other() -> None:
    one, two = drawn("train", 3), drawn("val")
    both = Joined([one, two])
    assert len(both) == 14
    assert both.texts == [sample.text for sample in both] == one.texts + two.texts
    assert np.array_equal(both[3].image, two[0].image)


@pytest.mark.parametrize("share", [1.0, -0.1])
def test_a_share_that_leaves_nothing_new_is_refused(share: float) -> None:
    with pytest.raises(InputError, match=f"replay_share={share}"):
        mixed(share).loader("train", training=True)


def test_without_old_lines_the_batches_are_those_of_before() -> None:
    widths = list(range(100, 150))
    plain, none = (LineBatches(widths, 4, 9999, shuffle=True, seed=3, **old) for old in ({}, {"old": 0}))
    assert list(plain) == list(none)


# ---- splits by line


def test_lines_are_drawn_so_that_fewer_training_lines_are_some_of_the_more() -> None:
    ids = [f"p/{number}" for number in range(98)]
    few, all_left = ({"train": train, "val": 10, "test": 40} for train in (16, None))
    one, other = draw_lines(ids, few), draw_lines(list(reversed(ids)), all_left)
    assert {split: list(one.values()).count(split) for split in few} == few
    assert len(other) == 98
    assert one.items() <= other.items()
    assert draw_lines(ids, few, seed=1) != one


def test_pages_are_split_by_line_and_what_is_left_over_is_counted(tmp_path: Path, write_page: Callable) -> None:
    for stem in ("a", "b"):
        write_page(tmp_path, [f"{stem}{number}" for number in range(6)], stem)
    parts = {split: PageXml(tmp_path, splits={"train": 3, "val": 2, "test": 4}, split=split) for split in
             ("train", "val", "test")}  # fmt: skip
    ids = [id for part in parts.values() for id in part.ids]
    assert [len(part) for part in parts.values()] == [3, 2, 4]
    assert len(set(ids)) == 9
    for part in parts.values():
        assert [skipped.kind for skipped in part.skipped] == ["line that no split takes"] * 3
    assert len(PageXml(tmp_path, splits={"train": None, "val": 2, "test": 4}, split="train")) == 6
    with pytest.raises(InputError, match=r"12 lines, but .* takes 16"):
        PageXml(tmp_path, splits={"train": 10, "val": 2, "test": 4}, split="train")
    with pytest.raises(InputError, match="give counts of lines"):
        PageXml(tmp_path, splits={"train": None, "val": None, "test": 4}, split="train")


# ---- the config and the command


@pytest.fixture(scope="module")
def replayable(best: Path) -> None:
    offer(str(best))
    offer_replay(["replay"])


@pytest.mark.usefixtures("replayable")
@pytest.mark.parametrize("data", names("data"))
def test_every_data_config_can_be_replayed_beside_another(data: str) -> None:
    config = OmegaConf.to_container(composed("data=page_xml", f"replay={data}", "++replay.root=OLD"), resolve=True)
    check_keys(config)
    assert config["data"]["replay"] == config["replay"]
    assert config["replay"]["root"] == "OLD"
    assert config["data"]["root"] is None
    assert config["replay"]["preprocess"] == config["model"]["preprocess"]


def test_a_checkpoint_gives_model_optimizer_and_scheduler_and_the_rest_can_be_changed(best: Path) -> None:
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
def test_the_experiment_composes_and_replays_copiste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = OmegaConf.to_container(composed("experiments=tessier_fine_tune", "data.root=LETTERS"), resolve=True)
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


def test_what_cannot_be_is_refused_in_one_line(best: Path, htr: Callable[..., Outcome], tmp_path: Path) -> None:
    folder = f"hydra.run.dir={tmp_path}/run"
    refused(htr("fine-tune", tmp_path / "none.ckpt", "data=synthetic", folder), "none.ckpt: no such checkpoint")
    refused(htr("fine-tune", best, "data=synthetic", "model=mlp", folder), "the model is the checkpoint's")
    refused(htr("fine-tune", best, "data=synthetic", f"start={best}x", folder), "the model is the checkpoint's")
    refused(htr("fine-tune", best, "data=synthetic", "optimizer.rate=1", folder), "optimizer.rate", "no such key")
    refused(htr("fine-tune", best, "data=synthetic", "replay=nothing", folder), "replay/nothing")
    refused(htr("fine-tune", best, folder), "data")


def test_a_checkpoint_whose_optimizer_is_no_optimizer_is_refused(best: Path, tmp_path: Path) -> None:
    for target in ("os.system", "htr_lightning.optim.math.exp", "torch.hub.load", "htr_lightning.optim.rank_zero_only"):
        content = checkpoint.read(best)
        content["htr"]["training"]["optimizer"]["_target_"] = target
        torch.save(content, tmp_path / "odd.ckpt")
        with pytest.raises(InputError, match=r"odd.ckpt: names"):
            offer(str(tmp_path / "odd.ckpt"))


def command(best: Path, folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "htr_lightning", "fine-tune", str(best), *DATA, *OLD, *overrides]
    return subprocess.run([*words, f"hydra.run.dir={folder}"], cwd=ROOT, capture_output=True, text=True, timeout=280)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_from_start_to_end_and_its_checkpoint_in_a_fresh_process(best: Path, tmp_path: Path, ranks: int) -> None:
    several = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"] if ranks == 2 else []
    folder = tmp_path / "run"
    done = command(best, folder, "data=synthetic_french", "trainer.max_epochs=2", "optimizer=sam", *several)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "an epoch is 96 lines of the data and 96 replayed ones, drawn from 30" in text
    assert "added" in text.partition("é")[0]
    assert "30 replay" in text
    figures = json.loads((folder / "summary.json").read_text())
    assert figures["test_lines"] == 24
    assert {"best.ckpt", "last.ckpt"} <= {path.name for path in (folder / "checkpoints").iterdir()}
    new = folder / "checkpoints" / "best.ckpt"
    assert set(checkpoint.load(best).codec.alphabet) < set(checkpoint.load(new).codec.alphabet)
    assert len(data_for(checkpoint.load(new)).lines("train")) == 96
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
def test_frozen_layers_stand_still_on_two_ranks(best: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = command(
        best, folder, "data=synthetic", "trainer.max_steps=4", "callbacks.head_first.share=0.99", "data.replay=null",
        "trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    old, new = (checkpoint.load(path) for path in (best, folder / "checkpoints" / "last.ckpt"))
    found = [layers(r.net, len(r.codec)) for r in (old, new)]
    for there, here in zip(*found, strict=True):
        same = [torch.equal(a, b) for one, other in zip(there.modules, here.modules, strict=True)
                for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)]  # fmt: skip
        assert all(same) == (there.name != "head"), there.name
