"""Transfer of weights to a recognizer with a different alphabet."""

from pathlib import Path

import pytest
import torch
from conftest import SMALL, run_train
from hydra import compose

from htr_lightning import build as building
from htr_lightning import checkpoint
from htr_lightning.errors import InputError
from htr_lightning.hydra_version import initialize_config_dir
from htr_lightning.model.base import Recognizer
from htr_lightning.training.transfer import class_weights, transfer

CONF = str(Path(__file__).parent.parent.parent / "conf")


def build(*overrides: str) -> Recognizer:
    with initialize_config_dir(CONF):
        composed = compose("train", overrides=["run_dir=runs/test", "name=test", *SMALL, *overrides])
    return building.build(composed)[1].eval()


def logits(recognizer: Recognizer) -> torch.Tensor:
    images = torch.rand(2, 1, 32, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return recognizer.net(images, torch.tensor([96, 80]))[0]


def test_kept_characters_keep_their_logits_and_changes_are_reported(best: Path) -> None:
    old = checkpoint.load(best)
    alphabet = "".join(c for c in old.codec.alphabet if c not in "xq")
    recognizer = build(f"data.alphabet={['é', *reversed(alphabet), 'ß']!r}", "model.unknown=skip")
    report = transfer(recognizer, best)
    assert (report.added, sorted(report.dropped)) == (["é", "ß"], ["q", "x"])
    assert sorted(report.kept) == sorted(alphabet)
    assert str(report) == f"{len(alphabet)} characters kept, 2 added (é ß), 2 dropped (q x)"
    before, after = logits(old), logits(recognizer)
    assert torch.equal(before[..., 0], after[..., 0])  # the blank
    for character in alphabet:
        there, here = (r.codec.encode(character)[0] for r in (old, recognizer))
        assert torch.equal(before[..., there], after[..., here]), character


def test_only_the_heads_grow_with_the_alphabet(best: Path) -> None:
    heads = {"net.head.weight", "net.head.bias", "net.shortcut.weight", "net.shortcut.bias"}
    assert class_weights(checkpoint.load(best)) == heads


def test_a_different_network_is_rejected(best: Path) -> None:
    with pytest.raises(InputError, match=r"best.ckpt: its network is different \(net\..*: expected \(.*, got .*\)"):
        transfer(build("model.net.hidden=24"), best)


def test_start_and_resume_together_are_rejected(tmp_path: Path, best: Path) -> None:
    with pytest.raises(InputError, match="start= and resume= cannot be combined"):
        run_train(tmp_path, f"start={best}", f"resume={best}")
