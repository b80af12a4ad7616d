"""Files that come into a watched folder are read once each, when they are whole."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Outcome

from htr_lightning.reading.watch import new_files

ROOT = Path(__file__).parent.parent.parent


def watched(folder: Path, steps: list[Callable[[], object]]) -> list[list[str]]:
    """Return the names that are yielded while one step happens before each further look at the folder."""
    waiting = iter(steps)
    looks = new_files(folder, 0.0, lambda _: next(waiting)())
    found: list[list[str]] = []
    with pytest.raises(RuntimeError, match="StopIteration"):
        found.extend([str(path.relative_to(folder)) for path in paths] for paths in looks)
    return found


def test_each_file_comes_once_when_it_stops_growing(tmp_path: Path) -> None:
    growing = tmp_path / "b.png"
    (tmp_path / "a.jpg").write_bytes(b"x")

    def wait() -> None: ...

    def grow() -> None:
        with growing.open("ab") as file:
            file.write(b"more")

    found = watched(tmp_path, [wait, grow, grow, wait, wait, grow, wait, wait])
    assert found == [["a.jpg"], ["b.png"]]


def test_subfolders_are_watched_and_other_files_are_not(tmp_path: Path) -> None:
    def add() -> None:
        (tmp_path / "new").mkdir()
        for name in ("new/page.xml", "new/page.PNG", "new/notes.txt", ".hidden.png", "new/empty.png"):
            (tmp_path / name).write_bytes(b"" if "empty" in name else b"x")

    def remove() -> None:
        (tmp_path / "new/page.PNG").unlink()

    def wait() -> None: ...

    assert watched(tmp_path, [add, wait, wait]) == [["new/page.PNG", "new/page.xml"]]
    assert watched(tmp_path, [remove, wait]) == [["new/page.xml"]]


def test_the_command_reads_what_comes_until_it_is_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    digit = np.full((40, 40), 255, np.uint8)
    digit[5:35, 18:22] = 0
    program = (  # a shell lets programs that it starts in the background ignore Ctrl-C, the tests included
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from htr_lightning.cli import app; app()"
    )
    watching = subprocess.Popen(
        [sys.executable, "-c", program, "transcribe", "digits", folder, "--watch", "--format", "tsv"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert watching.stdout is not None
    try:
        for number in range(3):
            cv2.imwrite(str(folder / f"{number}.png"), digit)
            assert watching.stdout.readline().split("\t")[:2] == [str(folder / f"{number}.png"), "1"]
        (folder / "broken.png").write_bytes(b"no image")
        cv2.imwrite(str(folder / "next.png"), digit)
        assert watching.stdout.readline().startswith(str(folder / "next.png"))
        watching.send_signal(signal.SIGINT)
        rest, errors = watching.communicate(timeout=20)
    finally:
        watching.kill()
    assert (watching.returncode, rest) == (0, "")
    assert errors.count("error: ") == errors.count("broken.png") == 1
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["line.png"], "watches one folder"),
        (["scans", "more"], "watches one folder"),
        (["scans", "--adapt"], "without --adapt"),
        (["scans", "--format", "page"], "add --out FOLDER"),
    ],
)
def test_what_cannot_be_watched_is_said(
    arguments: list[str], expected: str, tmp_path: Path, htr: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("scans", "more"):
        (tmp_path / name).mkdir()
    (tmp_path / "line.png").touch()
    found = htr("transcribe", "digits", *arguments, "--watch")
    assert found.code == 1
    assert expected in found.stderr
