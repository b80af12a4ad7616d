"""Whatever file names and texts contain, what is printed stays in its row and leaves the terminal alone."""

import json
import shutil
from collections.abc import Callable
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import pytest
from conftest import Outcome
from rich.console import Console

from htr_lightning import command
from htr_lightning.cli import arguments
from htr_lightning.errors import printable
from htr_lightning.evidence.evaluate import Line as Evaluated
from htr_lightning.evidence.evaluate import compare, write
from htr_lightning.reading.results import format_line
from htr_lightning.reading.sources import Source
from htr_lightning.reading.transcribe import TranscribedLine
from htr_lightning.transcription import Transcription

UNSAFE = "a\tb\nc\rd\x1b[31me\u202ef\x85g\u2028h\x9bi"
Htr = Callable[..., Outcome]


def rows(text: str) -> list[str]:
    """The rows of an output, which contains nothing but text."""
    assert text.replace("\t", "").replace("\n", "").isprintable()
    return text.splitlines()


@pytest.mark.parametrize("format", ["text", "tsv", "jsonl"])
def test_names_are_escaped_in_the_output_of_transcribe(
    htr: Htr, best: Path, line_image: Path, tmp_path: Path, format: str
) -> None:
    folder = tmp_path / UNSAFE
    folder.mkdir()
    shutil.copy(line_image, folder / f"{UNSAFE}.png")
    (folder / f"{UNSAFE}-2.png").write_bytes(b"no image")
    (folder / "\udcff.png").write_bytes(b"no image")  # a name in another encoding
    (folder / f"{UNSAFE}.xml").write_text("<TEI/>")
    done = htr("transcribe", best, folder, "--format", format)
    assert done.code == 1
    (row,) = rows(done.stdout)
    if format == "tsv":
        assert row.split("\t")[0] == printable(str(folder / f"{UNSAFE}.png"))
        assert len(row.split("\t")) == 3
    if format == "jsonl":
        assert json.loads(row)["file"] == str(folder / f"{UNSAFE}.png")
    note, *errors = rows(done.stderr)
    assert note.startswith("note: ")
    assert len(errors) == 2
    assert all(error.startswith("error: ") and "not an image" in error for error in errors)


@pytest.mark.parametrize("format", ["text", "tsv", "jsonl"])
def test_texts_are_escaped_in_the_output_of_transcribe(format: str) -> None:
    line = TranscribedLine(Source(Path("x.png"), Path("x.png")), None, Transcription(UNSAFE, 0.5, ()))
    (row,) = rows(format_line(line, format))
    if format == "jsonl":
        assert json.loads(row)["text"] == UNSAFE
    else:
        assert row == {"text": "{}", "tsv": "x.png\t{}\t0.5000"}[format].format(printable(UNSAFE))


def test_predictions_are_a_row_each_with_the_exact_texts(tmp_path: Path) -> None:
    lines = [Evaluated("x", UNSAFE, "g"), Evaluated("y", "\udcff می\u200cخواهم", "g")]
    write(tmp_path, compare([(line, Transcription(UNSAFE, 0.5, ())) for line in lines]), {})
    content = (
        (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").replace("\u200c", "")
    )  # not printable, but kept
    found = [json.loads(row) for row in rows(content)]
    assert [one["reference"] for one in found] == [UNSAFE, "\udcff میخواهم"]
    assert [one["hypothesis"] for one in found] == [UNSAFE, UNSAFE]


@pytest.mark.parametrize("title", ["[/nothing]", "[red]", UNSAFE])
def test_the_title_of_a_progress_bar_is_no_markup(title: str) -> None:
    screen = Console(file=StringIO(), width=500)
    screen.print(arguments._progress(title, 1).get_renderable())
    assert printable(title) in screen.file.getvalue()  # type: ignore[attr-defined]


class Terminal(BytesIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [False, True])
def test_text_in_any_script_can_be_printed_in_any_locale(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    monkeypatch.delenv("PYTHONIOENCODING", raising=False)
    content = Terminal() if terminal else BytesIO()
    stream = TextIOWrapper(content, encoding="cp1252")
    monkeypatch.setattr("sys.stdout", stream)
    command.run(lambda: print("é ѣ א 漢"))
    stream.flush()
    assert content.getvalue().decode("cp1252" if terminal else "utf-8").rstrip() == (
        r"é \u0463 \u05d0 \u6f22" if terminal else "é ѣ א 漢"
    )
