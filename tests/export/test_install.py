"""Where only what `pip install htr-lightning` installs is there, exported files read as everywhere."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from conftest import Outcome
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def page(write_page: Callable[..., Path], tmp_path: Path) -> Path:
    return write_page(tmp_path / "page")


def reading_set() -> list[metadata.Distribution]:
    """Return the packages that `pip install htr-lightning` installs."""
    found: dict[str, metadata.Distribution] = {}
    wanted = ["htr-lightning"]
    while wanted:
        distribution = metadata.distribution(wanted.pop())
        name = canonicalize_name(distribution.name)
        if name not in found:
            found[name] = distribution
            needed = map(Requirement, distribution.requires or [])
            wanted += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return [distribution for name, distribution in found.items() if name != "htr-lightning"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages that `pip install htr-lightning` installs, and no others."""
    folder = tmp_path_factory.mktemp("place")
    for distribution in reading_set():
        tops = {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            (folder / top).unlink(missing_ok=True)
            (folder / top).symlink_to(distribution.locate_file(top))
    assert not {"torch", "hydra", "lightning", "onnx"} & {path.name for path in folder.iterdir()}
    return folder


def run_there(place: Path, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    """Run `htr` with only the packages in a folder, i.e. without those installed beside the tests."""
    program = "from htr_lightning.cli import app\napp()"
    return subprocess.run(
        [sys.executable, "-S", "-c", program, *map(str, arguments)], capture_output=True,
        env={"PYTHONPATH": os.pathsep.join([str(place), str(ROOT)])}
        | {name: os.environ[name] for name in ("PATH", "SOURCE_DATE_EPOCH")},
    )  # fmt: skip


def test_where_torch_is_not_installed_a_page_reads_as_where_it_is(
    place: Path, page: Path, with_language: tuple[Path, Path], htr: Callable[..., Outcome], tmp_path: Path
) -> None:
    for path in with_language:  # with torch, the checkpoint and the exported file
        here = htr("transcribe", path, page, "--format", "jsonl")
        assert here.code == 0
    there = run_there(place, "transcribe", with_language[1], page, "--format", "jsonl")
    assert there.returncode == 0, there.stderr
    assert there.stdout == here.stdout.encode()
    assert len(here.stdout.splitlines()) == 2
    for form in ("text", "tsv", "page"):
        there = run_there(place, "transcribe", with_language[1], page, "--format", form)
        assert there.stdout == htr("transcribe", with_language[1], page, "--format", form).stdout.encode()


@pytest.mark.parametrize(
    "arguments",
    [["transcribe", "CHECKPOINT", "PAGE"], ["train"], ["evaluate", "CHECKPOINT"], ["pack", "data=mnist", "--out", "x"]],
)
def test_where_torch_is_not_installed_other_commands_say_what_to_install(
    arguments: list[str], place: Path, page: Path, best: Path
) -> None:
    names = {"CHECKPOINT": best, "PAGE": page}
    found = run_there(place, *(names.get(one, one) for one in arguments))
    assert (found.returncode, found.stdout) == (1, b"")
    assert b"htr-lightning[train]" in found.stderr
    assert len(found.stderr.splitlines()) == 1
