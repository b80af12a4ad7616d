"""A `data.root` that cannot be used is refused in one line, by every data config and before any network is tried."""

import socket
from functools import cache
from pathlib import Path
from typing import Any

import pooch
import pytest

from htr_lightning.config import compose_data, conf_dir, make, plain
from htr_lightning.errors import InputError

DRAWN, DOWNLOADED = "synthetic", ("copiste", "htr_united", "huggingface")
FILE = "corrections"  # not a folder
CONFIGS = sorted(
    path.stem for path in (conf_dir() / "data").glob("*.yaml") if not path.stem.startswith(DRAWN) and path.stem != FILE
)
SOURCES = {  # how to get the data; with the others, they are the user's own
    "mnist": "data.reader.download=true",
    "emnist": "data.reader.download=true",
    "kmnist": "data.reader.download=true",
    "qmnist": "data.reader.download=true",
    "casia_characters": "https://nlpr.ia.ac.cn/",
    "casia_lines": "https://nlpr.ia.ac.cn/",
    "copiste": "remove data.root",
    "htr_united": "remove data.root",
    "huggingface": "data.repo",
    "iam": "https://fki.tic.heia-fr.ch/",
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the network was tried")

    monkeypatch.setattr(pooch, "retrieve", fail)
    monkeypatch.setattr(socket, "create_connection", fail)


@cache
def settings(name: str) -> dict[str, Any]:
    return plain(compose_data([f"data={name}"]).data)


def refusal(name: str, root: Path | None) -> str:
    with pytest.raises(InputError) as error:
        make(settings(name) | {"root": None if root is None else str(root)}, "data").open("train")
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_root_that_is_missing_or_empty_or_wrong_is_named_with_what_belongs_there(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "notes.txt").write_text("nothing to read here")
    for folder in ("nowhere", "empty", "wrong"):
        message = refusal(name, tmp_path / folder)
        assert message.startswith(f"{tmp_path / folder}: ")
        assert "containing" in message or "unpack" in message
        assert SOURCES.get(name, "") in message
    assert "no such folder" in refusal(name, tmp_path / "nowhere")
    assert (
        "not a folder" in (message := refusal(name, tmp_path / "wrong" / "notes.txt")) or "neither a folder" in message
    )


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in DOWNLOADED])
def test_a_root_that_is_not_set_is_asked_for(name: str) -> None:
    message = refusal(name, None)
    assert message.startswith("data.root is not set; ")
    assert "data.root=FOLDER" in message
    assert SOURCES.get(name, "") in message


def test_a_file_that_is_missing_or_wrong_or_not_set_is_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing to read here")
    for path in (tmp_path / "nowhere", tmp_path, tmp_path / "notes.txt"):
        assert refusal(FILE, path).startswith(f"{path}: ")
    assert f"htr feedback add {tmp_path / 'nowhere'}" in refusal(FILE, tmp_path / "nowhere")
    assert "data.root=FILE" in refusal(FILE, None)
