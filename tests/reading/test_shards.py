"""Transcription in parts: each line exactly once, whatever is killed, and whoever takes part."""

import json
import os
import signal
from multiprocessing import active_children
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_lightning.errors import InputError
from htr_lightning.reading import engines
from htr_lightning.reading.shards import Job, Part, prepare, share, split
from htr_lightning.reading.sources import Source, find_sources


def some(count: int) -> list[Source]:
    return [Source(Path(f"{n}.png"), Path(f"{n}.png")) for n in range(count)]


@given(st.integers(1, 3000), st.one_of(st.none(), st.integers(1, 200)), st.integers(1, 70))
def test_every_file_is_in_one_part_and_every_part_in_one_shard(files: int, parts: int | None, machines: int) -> None:
    sources = some(files)
    every = split(sources, parts)
    assert [source for part in every for source in part.sources] == sources
    assert [part.number for part in every] == list(range(1, len(every) + 1))
    assert all(1 <= len(part.sources) <= -(-files // len(every)) for part in every)
    shards = [share(every, f"{n}/{machines}") for n in range(1, machines + 1)]
    assert sorted(part.number for shard in shards for part in shard) == [part.number for part in every]


@pytest.mark.parametrize("shard", ["0/16", "17/16", "3", "3/0", "a/b", "-1/2", "1/2/3"])
def test_invalid_shards_are_refused(shard: str) -> None:
    with pytest.raises(InputError, match=r"--shard .*--array=1-16"):
        share(split(some(3)), shard)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A folder with twelve digits and a file that is no image."""
    folder = tmp_path / "lines"
    folder.mkdir()
    for number in range(12):
        image = np.full((40, 30), 230, np.uint8)
        cv2.putText(image, str(number % 10), (5, 32), cv2.FONT_HERSHEY_SIMPLEX, 1, 20, 2)
        cv2.imwrite(str(folder / f"{number:02}.png"), image)
    (folder / "07.png").write_bytes(b"no image")
    return folder


def rows(folder: Path) -> list[dict]:
    files = sorted(folder.glob("part-*.jsonl"))
    return [json.loads(row) for file in files for row in file.read_text(encoding="utf-8").splitlines()]


def job_of(folder: Path, form: str = "jsonl", **settings: object) -> Job:
    return Job(folder, form, ["digits"], **settings)  # type: ignore[arg-type]


def test_a_killed_process_costs_its_part_and_every_line_is_there_once(digits: Path, tmp_path: Path) -> None:
    sources = find_sources([str(digits)]).sources
    alone, several = job_of(tmp_path / "alone"), job_of(tmp_path / "several")
    found = engines.run(alone, prepare(alone, sources, 4, None, False))
    assert (found.lines, found.faults) == (12, 1)
    assert "07.png" in (found.first or "")
    read = rows(alone.folder)
    assert [row["id"] for row in read] == [str(source.path) for source in sources]
    assert [bool(row["error"]) for row in read] == [number == 7 for number in range(12)]
    parts = prepare(several, sources, 4, None, False)
    done = []
    for part, _ in engines.in_processes(several, parts, 2):
        if not done:
            os.kill(next(child.pid for child in active_children() if child.pid), signal.SIGKILL)
        done.append(part.number)
    assert sorted(done) == [1, 2, 3, 4]
    assert rows(several.folder) == read
    assert not active_children()


def test_machines_share_a_folder_and_what_is_written_stays(digits: Path, tmp_path: Path, htr) -> None:
    out = tmp_path / "out"
    given = ["transcribe", "digits", digits, "--format", "jsonl", "--out", out, "--parts", 5]
    (digits / "07.png").unlink()
    assert htr(*given, "--shard", "2/2").code == 0
    assert sorted(path.name for path in out.glob("part*")) == ["part-00002-of-00005.jsonl", "part-00004-of-00005.jsonl"]
    refused = htr(*given)
    assert refused.code == 1
    assert "contains 2 of 5 parts; add --skip-existing" in refused.stderr
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    outcome = htr(*given, "--skip-existing")
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout == f"11 lines of 11 files in 5 parts -> {out}\n"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [row["file"] for row in rows(out)] == [str(path) for path in sorted(digits.iterdir())]
    cv2.imwrite(str(digits / "new.png"), np.full((40, 30), 230, np.uint8))
    changed = htr(*given, "--skip-existing")
    assert changed.code == 1
    assert "files was 11, not 12" in changed.stderr


def test_a_part_that_is_interrupted_leaves_no_file(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    def stops(*_: object, **__: object):
        raise Stopped
        yield

    job = job_of(tmp_path / "out")
    (part,) = prepare(job, find_sources([str(digits)]).sources, 1, None, False)
    monkeypatch.setattr("htr_lightning.reading.shards.transcribe", stops)
    with pytest.raises(Stopped):
        job.transcribe(job.load(), part)
    assert [path.name for path in job.folder.iterdir()] == ["_plan.json"]


def test_parquet_has_the_same_rows(digits: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    sources = find_sources([str(digits)]).sources
    counts = []
    for form in ("jsonl", "parquet"):
        job = job_of(tmp_path / form, form, n_best=2)
        parts = prepare(job, sources, 3, None, False)
        counts.append(engines.run(job, parts))
        assert engines.run(job, prepare(job, sources, 3, None, True)) == counts[-1]  # counted, not transcribed
    assert counts[0] == counts[1]
    table = parquet.read_table(tmp_path / "parquet").to_pylist()  # also finds no other files in the folder
    assert [{key: value for key, value in row.items() if value is not None} for row in table] == [
        {key: value for key, value in row.items() if value is not None} for row in rows(tmp_path / "jsonl")
    ]
    assert len(table[0]["alternatives"]) == 2


def test_pages_are_written_in_parts_and_existing_ones_stay(tmp_path: Path, write_page, htr) -> None:
    for stem in "abc":
        write_page(tmp_path / "in", [stem, "2"], stem)
    out = tmp_path / "out"
    given = ["transcribe", "latin-modern", tmp_path / "in", "--format", "page", "--out", out]
    assert htr(*given, "--parts", 2, "--shard", "1/2").code == 0
    assert [path.name for path in sorted(out.glob("*.xml"))] == ["a.xml"]
    first = (out / "a.xml").read_bytes()
    assert htr(*given, "--parts", 2, "--skip-existing").code == 0
    assert [path.name for path in sorted(out.glob("*.xml"))] == ["a.xml", "b.xml", "c.xml"]
    (out / "b.xml").unlink()
    assert "file already exists" in htr(*given).stderr
    again = htr(*given, "--skip-existing")
    assert again.code == 0
    assert again.stdout == f"{out / 'b.xml'}\n"
    assert (out / "a.xml").read_bytes() == first


def test_a_part_that_kills_every_process_is_told(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(tmp_path / "out")
    (part,) = prepare(job, find_sources([str(digits)]).sources, 1, None, False)
    monkeypatch.setattr(engines, "_work", _die)
    with pytest.raises(InputError, match=r"part-00001-of-00001: 3 processes died of this part \(exit code 7\)"):
        list(engines.in_processes(job, [part], 1))


def _die(*_: object) -> None:
    os._exit(7)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--workers", 2], "add --format parquet"),
        (["--workers", 2, "--format", "tsv", "--out", "o"], "add --format parquet"),
        (["--format", "parquet"], "--out FOLDER"),
        (["--skip-existing"], "--skip-existing: needs --out"),
        (["--skip-existing", "--out", "o"], "a format other than text"),
    ],
)
def test_invalid_combinations_are_refused(digits: Path, htr, given: list[str], message: str) -> None:
    outcome = htr("transcribe", "digits", digits, *given)
    assert outcome.code == 1
    assert message in outcome.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray itself
def test_ray_gives_the_same_rows(digits: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    sources = find_sources([str(digits)]).sources
    alone, several = job_of(tmp_path / "alone"), job_of(tmp_path / "several")
    counts = engines.run(alone, prepare(alone, sources, 4, None, False))
    assert engines.run(several, prepare(several, sources, 4, None, False), "ray", 2) == counts
    assert rows(several.folder) == rows(alone.folder)


def test_ray_is_asked_for_by_name(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match=r"install htr-lightning\[ray\], or use --workers"):
        next(engines.with_ray(job_of(tmp_path), [Part(1, 1, some(1))]))
