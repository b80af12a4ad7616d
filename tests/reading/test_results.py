"""Files of results that an interrupted command leaves, and goes on with."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from htr_lightning.data.page.page import Line
from htr_lightning.errors import InputError
from htr_lightning.output import empty_folder, filling, replacing
from htr_lightning.reading.journal import Journal
from htr_lightning.reading.results import format_line, growing, part_of, resume
from htr_lightning.reading.sources import Source
from htr_lightning.reading.transcribe import TranscribedLine
from htr_lightning.transcription import Transcription

NAMES = ["a.png", "a.png#1.png", "é\tb#l0.png", "p#1.xml", "p.xml", "z\udce9.png"]  # with # and odd characters


def transcribed(source: Source) -> list[TranscribedLine]:
    read = Transcription(f"text of\t{source.path.stem}".replace("\udce9", "e"), 0.5)
    if not source.is_page:
        return [TranscribedLine(source, None, read)]
    lines = [Line(f"l#{n}", "", [], [], "r") for n in range(3)]
    return [TranscribedLine(source, line, read) for line in lines]


def rows(sources: list[Source], form: str) -> bytes:
    lines = [line for source in sources for line in transcribed(source)]
    return "".join(format_line(line, form) + "\n" for line in lines).encode()


SOURCES = [Source(Path(name), Path(name), name.endswith(".xml")) for name in NAMES]


@pytest.mark.parametrize("form", ["tsv", "jsonl"])
def test_wherever_a_run_stops_the_file_becomes_the_same(tmp_path: Path, form: str) -> None:
    whole, out = rows(SOURCES, form), tmp_path / "out"
    for stop in range(len(whole) + 1):
        out.unlink(missing_ok=True)
        part_of(out).write_bytes(whole[:stop])
        left = resume(out, form, SOURCES)
        assert len(SOURCES) - len(left) >= whole[:stop].count(b"\n") // 3 - 1  # at most the last file is repeated
        with growing(out) as write:
            write(rows(left, form).decode())
        assert out.read_bytes() == whole
        assert not part_of(out).exists()


@pytest.mark.parametrize("form", ["tsv", "jsonl"])
def test_a_finished_file_is_extended_by_new_files(tmp_path: Path, form: str) -> None:
    out = tmp_path / "out"
    out.write_bytes(rows(SOURCES[:4], form))
    left = resume(out, form, SOURCES)
    assert left == SOURCES[3:]  # the last page is read again
    with growing(out) as write:
        write(rows(left, form).decode())
    assert out.read_bytes() == rows(SOURCES, form)


def test_a_file_of_another_kind_is_not_touched(tmp_path: Path) -> None:
    out = tmp_path / "out"
    part_of(out).write_text("some notes\n")
    with pytest.raises(InputError, match=r"out\.part: contains a row that htr transcribe did not write"):
        resume(out, "jsonl", SOURCES)
    assert part_of(out).read_text() == "some notes\n"


def test_a_journal_keeps_whole_rows_of_the_same_conditions(tmp_path: Path) -> None:
    path, given = tmp_path / "journal", [["val", n, "é\n" * n] for n in range(4)]
    journal = Journal(path, {"checkpoint": "a"})
    journal.add(given)
    whole = path.read_bytes()
    head = whole.index(b"\n") + 1
    for stop in range(len(whole) + 1):
        path.write_bytes(whole[:stop])
        again = Journal(path, {"checkpoint": "a"})
        count = whole[head:stop].count(b"\n")
        assert again.rows == given[:count]
        again.add(given[count:])
        assert path.read_bytes() == whole
    assert Journal(path, {"checkpoint": "b"}).rows == []
    assert Journal(path, {"checkpoint": "a"}).rows == []


def test_a_file_is_whole_or_as_before(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    with replacing(path) as beside:
        beside.write_text("old")
        assert not path.exists()
    with pytest.raises(InputError, match="choose another --out"):
        _fill_a_disk(path)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def _fill_a_disk(path: Path) -> None:
    with replacing(path) as beside:
        beside.write_text("n")
        raise OSError(28, "No space left on device")


def test_an_interrupted_folder_counts_as_empty(tmp_path: Path) -> None:
    with filling(tmp_path) as inside:
        (inside / "a").write_text("left by a process that was killed")
        (tmp_path / ".part" / "b").mkdir()
        with filling(tmp_path) as other:
            assert not list(other.iterdir())
            (other / "c").write_text("whole")
        inside.mkdir()
    assert [one.name for one in tmp_path.iterdir()] == ["c"]
    with pytest.raises(InputError, match="the folder is not empty"):
        empty_folder(tmp_path)


def test_records_are_json(tmp_path: Path) -> None:
    for source in SOURCES:
        for line in transcribed(source):
            plain = json.loads(format_line(line, "jsonl"))
            assert plain["file"] == str(source.path)
            assert plain["line"] == (line.line.id if line.line else None)


def test_a_file_of_results_goes_on_and_is_the_same(htr, write_page: Callable[..., Path], tmp_path: Path) -> None:
    for stem in "012":
        write_page(tmp_path / "in", [f"un {stem}", "deux"], stem)
    (tmp_path / "in" / "1b.xml").write_text("<PcGts")
    given = ["transcribe", "latin-modern", tmp_path / "in", "--format", "tsv"]
    printed = htr(*given)
    out = tmp_path / "deep" / "out.tsv"
    done = htr(*given, "--out", out)
    assert (printed.code, done.code, done.stdout) == (1, 1, f"{out}\n")  # the broken page
    assert "1b.xml: not well-formed" in done.stderr
    assert out.read_text() == printed.stdout
    rows = printed.stdout.splitlines(keepends=True)
    assert len(rows) == 6
    refused = htr(*given, "--out", out)
    assert (refused.code, "file already exists" in refused.stderr) == (1, True)
    out.rename(out.with_name("out.tsv.part"))
    out.with_name("out.tsv.part").write_text("".join(rows[:3]) + rows[3][:5])
    assert "out.tsv.part: file already exists" in htr(*given, "--out", out).stderr
    again = htr(*given, "--out", out, "--skip-existing")
    assert again.code == 1
    assert "1b.xml: not well-formed" in again.stderr
    assert out.read_text() == printed.stdout
    assert [path.name for path in out.parent.iterdir()] == ["out.tsv"]
