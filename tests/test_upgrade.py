"""Every setting of a format 1 checkpoint is converted, and transcriptions stay the same."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Outcome
from test_conf import HYDRA_KEYS, PARTIAL, nodes, parameters

from htr_lightning import checkpoint
from htr_lightning.data.image import read_image
from htr_lightning.errors import InputError
from htr_lightning.upgrade import CLASSES, GONE, KEYS, renamed, upgrade

OLD: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "format_1.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", OLD)
def test_every_setting_in_an_old_config_is_a_parameter_of_the_new_class(name: str) -> None:
    new = renamed(OLD[name], "old.ckpt")
    for path, node in nodes(new):
        accepted, required, open_ended = parameters(node["_target_"])
        keys = set(node) - HYDRA_KEYS
        assert open_ended or keys <= accepted, f"{path}: {keys - accepted}"
        later = {"preprocess", "normalizer"} | (PARTIAL if node.get("_partial_") else set())
        assert not required - keys - later, path


def test_every_table_entry_is_used() -> None:
    found: dict[str, set[str]] = {}
    for config in OLD.values():
        for _, node in nodes(config):
            found.setdefault(node["_target_"].removeprefix("htr_lightning."), set()).update(node)
    training = {"data.datamodule.LineDataModule": {"augment"}, "data.reader.casia.CasiaCharacters": set(KEYS[
        "data.reader.casia.CasiaCharacters"])}  # fmt: skip
    for name, keys in KEYS.items():
        assert set(keys) <= found.get(name, set()) | training.get(name, set()), name
    assert set(CLASSES) <= set(found) | {"optim.OneCycle"}


def test_values_are_kept() -> None:
    assert renamed(OLD["normalized"], "") == {
        "_target_": "htr_lightning.data.preprocess.NormalizeHandwriting", "height": 32, "margin": 8, "width_scale": 1.0,
        "max_width": 8192, "polarity": "auto", "x_height": 9.6, "x_height_center": 0.53, "stroke_spacing": 0.9,
        "spacing_strength": 0.8, "min_scale": 0.6, "max_scale": 1.7,
    }  # fmt: skip
    assert renamed(OLD["copiste"], "")["reader"]["rotate"] == "deskew"
    assert renamed(OLD["trocr_pretrained"], "")["preprocess"]["keep_aspect"] is False


def aged(path: Path, best: Path) -> Path:
    """Write a checkpoint as in format 1."""
    content = torch.load(best, weights_only=True)
    card = content["htr"]
    card["format"] = 1
    preprocess = card["model"]["preprocess"]
    preprocess["_target_"] = "htr_lightning.data.preprocess.FitCore"
    for old, new in KEYS["data.preprocess.FitCore"].items():
        preprocess[old] = preprocess.pop(str(new))
    data = card["training"]["data"]
    for old, new in KEYS["data.datamodule.LineDataModule"].items():
        if new is not None and new in data:
            data[old] = data.pop(new)
    for old, new in KEYS["data.reader.synthetic.Synthetic"].items():
        data["reader"][old] = "error" if new is None else data["reader"].pop(new)
    card["calibration"] = [1.5, 0.25]
    torch.save(content, path)
    return path


def test_an_old_checkpoint_is_rejected_until_converted_and_then_transcribes_the_same(
    htr: Callable[..., Outcome], best: Path, line_image: Path, tmp_path: Path
) -> None:
    old = aged(tmp_path / "old.ckpt", best)
    outcome = htr("transcribe", old, line_image)
    assert outcome.code == 1
    assert (
        outcome.stderr == f"error: {old}: expected format 2, got 1; convert it with htr upgrade {old} --out NEW.ckpt\n"
    )
    new = tmp_path / "new.ckpt"
    assert htr("upgrade", old, "--out", new).code == 0
    recognizer = checkpoint.load(new)
    image = read_image(line_image)
    assert recognizer.read([image])[0].text == checkpoint.load(best).read([image])[0].text
    assert recognizer.calibration.line == (1.5, 0.25)
    before, after = (htr("evaluate", path, "--out", tmp_path / path.stem).stdout for path in (best, new))
    assert before.split(" -> ")[0] == after.split(" -> ")[0]
    assert "this checkpoint needs no conversion" in htr("upgrade", new, "--out", tmp_path / "twice.ckpt").stderr


@pytest.mark.parametrize("name", GONE)
def test_unsupported_models_are_rejected_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match=r"old\.ckpt: .*no longer supported"):
        renamed({"model": {"_target_": f"htr_lightning.{name}"}}, "old.ckpt")
    with pytest.raises(InputError, match="without texts"):
        upgrade({"htr": {"alphabet": []}}, "old.ckpt")
