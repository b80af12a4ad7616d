"""What a command has read is written when Ctrl-C stops it, and it says so; nothing is left out without a word."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome
from PIL import Image

from htr_lightning.reading import transcribe as module
from htr_lightning.reading.results import part_of
from htr_lightning.reading.sources import Source
from htr_lightning.reading.write import UntilInterrupted

SOURCES = [Source(Path(name), Path(name)) for name in "abcd"]


@pytest.fixture(autouse=True)
def with_ctrl_c() -> Iterator[None]:
    """Python's own handler, which what a shell starts in the background does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_after_ctrl_c_no_source_is_begun_and_a_second_one_stops_at_once() -> None:
    told: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with UntilInterrupted(SOURCES, told.append) as some:
        sources = iter(some)
        assert [next(sources), next(sources)] == SOURCES[:2]
        assert some.left == 0
        signal.raise_signal(signal.SIGINT)
        assert list(sources) == []
        assert (some.opened, some.left) == (2, 2)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert len(told) == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_without_ctrl_c_all_sources_come() -> None:
    with UntilInterrupted(SOURCES, print) as some:
        assert list(some) == SOURCES
        assert some.left == 0


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Send Ctrl-C when the second file is opened."""
    whole, count = module.open_to_read, iter(range(99))

    def opened(*arguments: Any) -> Iterator[Any]:
        if next(count) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        yield from whole(*arguments)

    return lambda: monkeypatch.setattr(module, "open_to_read", opened)


@pytest.fixture
def images(line_image: Path, tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{stem}.png" for stem in "abcd"]
    for path in paths:
        Image.open(line_image).save(path)
    return paths


@pytest.mark.parametrize("form", ["jsonl", "page"])
def test_ctrl_c_keeps_what_was_begun_and_the_command_goes_on(
    form: str, best: Path, htr: Callable[..., Outcome], images: list[Path], tmp_path: Path,
    stopping: Callable[[], None],
) -> None:  # fmt: skip
    out, command = tmp_path / "out", ["transcribe", best, *images, "--format", form]
    whole = htr(*command, "--out", tmp_path / "whole")
    assert whole.code == 0
    stopping()
    outcome = htr(*command, "--out", out)
    assert outcome.code == 130
    first, last = outcome.stderr.splitlines()
    kept = out if form == "page" else part_of(out)
    assert first.startswith("note: stopping after the lines that were begun")
    assert (
        last
        == f"stopped: 2 of 4 files are transcribed and kept in {kept}; repeat the command with --skip-existing to go on"
    )
    done = sorted(path.stem for path in kept.iterdir()) if form == "page" else kept.read_text().splitlines()
    assert len(done) == 2
    assert htr(*command, "--out", out, "--skip-existing").code == 0
    if form == "page":
        assert sorted(path.name for path in out.iterdir()) == ["a.xml", "b.xml", "c.xml", "d.xml"]
    else:
        assert out.read_text() == (tmp_path / "whole").read_text()


def test_ctrl_c_says_how_many_files_were_printed(
    best: Path, htr: Callable[..., Outcome], images: list[Path], stopping: Callable[[], None]
) -> None:
    stopping()
    outcome = htr("transcribe", best, *images, "--format", "tsv")
    assert len(outcome.stdout.splitlines()) == 2
    assert outcome.stderr.splitlines()[-1] == "stopped: 2 of 4 files are transcribed and printed"


def test_ctrl_c_names_what_could_not_be_read(
    best: Path, htr: Callable[..., Outcome], images: list[Path], stopping: Callable[[], None]
) -> None:
    images[0].write_bytes(b"no image")
    stopping()
    outcome = htr("transcribe", best, *images, "--format", "tsv")
    assert (outcome.code, len(outcome.stdout.splitlines())) == (130, 1)
    _, error, last = outcome.stderr.splitlines()
    assert error.startswith(f"error: {images[0]}: ")
    assert last == "stopped: 1 of 4 files are transcribed and printed"


def test_images_without_a_picture_are_told(
    best: Path, htr: Callable[..., Outcome], images: list[Path], tmp_path: Path
) -> None:
    outcome = htr("transcribe", best, *images, "--show", tmp_path / "shown")
    assert f"{images[0]}: no picture, since it is read as one line or has none, the first of 4" in outcome.stderr
    assert not (tmp_path / "shown").exists()


def test_a_page_that_is_read_as_a_line_is_told(
    best: Path, htr: Callable[..., Outcome], write_page: Callable[..., Path], tmp_path: Path
) -> None:
    image = write_page(tmp_path, ["un mot dans la page"] * 9).with_suffix(".png")
    image.with_suffix(".xml").unlink()
    told = f"note: {image}: looks like a page, but is read as one line; remove --lines"
    assert told in htr("transcribe", best, image, "--lines").stderr
    assert told not in htr("transcribe", best, image).stderr
