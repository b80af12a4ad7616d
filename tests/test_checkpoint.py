"""A checkpoint is plain data: no code in it is run, and other files are rejected."""

import os
import pickle
import random
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from htr_lightning.build import build
from htr_lightning.checkpoint import FORMAT, check_target, load, read, targets
from htr_lightning.config import fast_precision
from htr_lightning.errors import InputError
from htr_lightning.training.module import TrainingModule

CONF = Path(__file__).parent.parent / "conf"
GOOD = {"htr": {"format": FORMAT, "alphabet": ["a"]}, "state_dict": {"w": torch.zeros(3)}}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "target",
    [
        "htr_lightning.errors.InputError",
        "htr_lightning.model.ctc.CTCRecognizer",
        "htr_lightning.net.crnn.CRNN",
        "htr_lightning.data.preprocess.FitHeight",
    ],
)
def test_classes_defined_in_the_package_are_allowed(target: str) -> None:
    check_target(target, (), "x.ckpt")


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "posix.system",
        "builtins.eval",
        "subprocess.Popen",
        "htr_lightning.checkpoint.os.system",
        "htr_lightning.checkpoint.os",
        "htr_lightning.checkpoint.subprocess.run",
        "htr_lightning.checkpoint.import_module",
        "htr_lightning.checkpoint.instantiate",
        "htr_lightning.checkpoint.torch.load",
        "htr_lightning.checkpoint.Path",
        "htr_lightning.checkpoint.PACKAGE",
        "htr_lightning.checkpoint.nothing",
        "htr_lightning.nothing.at_all",
        "htr_lightning.checkpoint",
        "htr_lightning",
        "htr_lightning_evil.code",
        "htr_lightning..os",
        ".os.system",
        "system",
        "",
        None,
        1,
        ["os.system"],
        {"_target_": "os.system"},
    ],
)
def test_other_targets_are_rejected_with_the_file_name(target: Any) -> None:
    with pytest.raises(InputError, match=r"x\.ckpt: uses"):
        check_target(target, (), "x.ckpt")


def test_a_package_is_allowed_by_its_exact_name() -> None:
    check_target("collections.OrderedDict", ["collections"], "x.ckpt")
    with pytest.raises(InputError):
        check_target("collections.OrderedDict", ["collect"], "x.ckpt")
    with pytest.raises(InputError):
        check_target("os.system", ["collections"], "x.ckpt")


def test_targets_are_found_at_any_depth() -> None:
    evil = {"_target_": "os.system"}
    assert list(targets({"a": [{"b": evil}]})) == ["os.system"]
    assert list(targets({"_target_": "x.y", "net": {"_target_": "z", "parts": [[evil], 1, None]}})) == [
        "x.y",
        "z",
        "os.system",
    ]
    assert list(targets(OrderedDict(a=evil))) == ["os.system"]
    assert list(targets({"a": ({"b": (evil,)},)})) == ["os.system"]
    assert list(targets("os.system")) == list(targets(None)) == []


@pytest.mark.parametrize(
    "part",
    [
        lambda path: {"_target_": "os.mkdir", "path": path},
        lambda path: [{"_target_": "os.mkdir", "path": path}],
        lambda path: ({"_target_": "os.mkdir", "path": path},),
        lambda path: f'${{oc.create:{{_target_:os.mkdir,path:"{path}"}}}}',
        lambda path: {"_target_": "${evil}", "path": path},
        lambda path: {"_target_": "htr_lightning.checkpoint.os.mkdir", "path": path},
    ],
    ids=["dict", "list", "tuple", "resolver", "interpolated name", "through the package"],
)
def test_a_checkpoint_with_foreign_code_is_rejected_without_running_it(tmp_path: Path, part: Any) -> None:
    made = tmp_path / "made"
    model = {
        "_target_": "htr_lightning.text.codec.Codec",
        "_partial_": True,
        "specials": part(str(made)),
        "evil": "os.mkdir",
    }
    path = saved(tmp_path / "evil.ckpt", GOOD | {"htr": GOOD["htr"] | {"model": model}})
    with pytest.raises(InputError, match=r"evil\.ckpt"):
        load(path)
    assert not made.exists()


class Runs:
    """An object that runs code when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("writer", ["pickle", "torch", "legacy torch"])
def test_pickled_objects_are_rejected_without_running_them(tmp_path: Path, writer: str) -> None:
    content = GOOD | {"evil": Runs(str(tmp_path / "made"))}
    path = tmp_path / "evil.ckpt"
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")
    with pytest.raises(InputError, match=r"evil\.ckpt"):
        read(path)
    assert not (tmp_path / "made").exists()


def test_a_written_checkpoint_is_read_back(tmp_path: Path) -> None:
    content = read(saved(tmp_path / "good.ckpt", GOOD))
    assert content["htr"] == GOOD["htr"]
    assert torch.equal(content["state_dict"]["w"], torch.zeros(3))


def test_a_newer_format_is_rejected_with_both_numbers(tmp_path: Path) -> None:
    path = saved(tmp_path / "new.ckpt", GOOD | {"htr": {"format": FORMAT + 1}})
    with pytest.raises(InputError, match=f"format {FORMAT + 1} .* up to {FORMAT}\\); upgrade"):
        read(path)


@pytest.mark.parametrize(
    "content", [{}, [], 3, None, {"htr": None}, {"htr": {}}, {"htr": {"format": "1"}}, {"state_dict": {}}]
)
def test_a_checkpoint_from_another_program_is_rejected(tmp_path: Path, content: Any) -> None:
    with pytest.raises(InputError, match="not written by htr_lightning"):
        read(saved(tmp_path / "other.ckpt", content))


def test_a_missing_file_and_a_folder_are_rejected_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.ckpt: checkpoint not found"):
        read(tmp_path / "nothing.ckpt")
    with pytest.raises(InputError, match=r"is a folder; choose a checkpoint file"):
        read(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"text\n", b"\x80\x02", b"\x80\x02.", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n", b"K\x01.", b"0"]
)
def test_other_files_are_rejected_with_the_file_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.ckpt").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.ckpt"):
        read(tmp_path / "bad.ckpt")


def test_random_bytes_are_rejected(tmp_path: Path) -> None:
    dice, path = random.Random(0), tmp_path / "bad.ckpt"
    for size in [1, 2, 3, 5, 10, 100, 1000] * 40:
        path.write_bytes(dice.choice([b"", b"\x80\x02", b"}", b"("]) + dice.randbytes(size))
        with pytest.raises(InputError, match=r"bad\.ckpt"):
            read(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_corrupted_checkpoint_is_either_read_or_rejected(tmp_path: Path, zipped: bool) -> None:
    good, path, dice = tmp_path / "good.ckpt", tmp_path / "bad.ckpt", random.Random(0)
    torch.save(GOOD, good, _use_new_zipfile_serialization=zipped)
    content = good.read_bytes()
    refused: list[str] = []
    for attempt in range(150):
        damaged = bytearray(content[: dice.randrange(len(content))] if attempt < 50 else content)
        for _ in range(0 if attempt < 50 else 3):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        path.write_bytes(damaged)
        try:
            assert read(path)["htr"]["format"] <= FORMAT
        except InputError as error:
            refused.append(str(error))
    assert refused
    assert all("bad.ckpt" in message for message in refused)


def test_direction_and_mirrored_characters_survive(tmp_path: Path, write_page: Callable[..., Path]) -> None:
    write_page(tmp_path / "pages", ["(אב", "גב"])
    overrides = ["data=page_xml", f"data.root={tmp_path / 'pages'}", "data.reader.splits=null", "model.direction=rtl"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=["run_dir=runs/test", "name=test", *overrides])
    _, recognizer = build(config)
    assert recognizer.codec.alphabet == ["(", "א", "ב", "ג", ")"]
    loaded = load(saved(tmp_path / "x.ckpt", {"htr": recognizer.card, "state_dict": recognizer.state_dict()}))
    assert loaded.codec.alphabet == recognizer.codec.alphabet
    assert loaded.direction == "rtl"
    checkpoint: dict[str, Any] = {"state_dict": recognizer.state_dict()}
    module = TrainingModule(recognizer)
    module.on_save_checkpoint(checkpoint)
    module.on_load_checkpoint(checkpoint)  # resuming takes it


@pytest.mark.parametrize(("bf16", "amx"), [(False, False), (True, False), (False, True)])
def test_bfloat16_is_used_if_the_processor_supports_it(monkeypatch: pytest.MonkeyPatch, bf16: bool, amx: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a GPU is no reason where training is on the CPU
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert fast_precision("cpu") == ("bf16-mixed" if bf16 or amx else "32-true")
    assert fast_precision("gpu") == "bf16-mixed"
