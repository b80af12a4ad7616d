"""The store of corrections: what was accepted stays, which text counts, and what is held out stays held out."""

import pickle
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Outcome
from hypothesis import given
from hypothesis import strategies as st

from htr_lightning.data.corrected import Correction, Row, StoredLine, is_held_out, splits, stored_lines
from htr_lightning.data.corrections import CorrectionStore, Event, StoreError, current_version
from htr_lightning.data.reader.corrections import Corrections
from htr_lightning.data.sample import Reader
from htr_lightning.errors import InputError


def line(number: int, text: str | None = "un", group: str = "", source: str = "page.xml") -> Correction:
    image = np.random.default_rng(number).integers(0, 256, (12, 40 + number), dtype=np.uint8)
    return Correction(image, text, "vn", 0.5, source, f"l{number}", group)


@pytest.fixture
def store(tmp_path: Path) -> CorrectionStore:
    return CorrectionStore(tmp_path / "corrections.db", create=True)


@contextmanager
def tampering(path: Path) -> Iterator[sqlite3.Connection]:
    with sqlite3.connect(path) as database:
        yield database
    database.close()


# ---- storing


def test_what_is_added_is_there_when_the_file_is_opened_again(store: CorrectionStore) -> None:
    given = [line(number, f"e\u0301t\u00e9 {number} ") for number in range(3)]
    assert store.add(given, "anna", "latin-modern", "abc")[:2] == (3, 0)
    found = CorrectionStore(store.path).lines()
    assert [one.texts for one in found] == [(f"été {number}",) for number in range(3)]  # composed, without end spaces
    for before, after in zip(given, found, strict=True):
        assert np.array_equal(CorrectionStore(store.path).image(after.image), before.image)
        (row,) = after.rows
        assert (row.who, row.model, row.model_sha256, row.before, row.confidence) == (
            "anna",
            "latin-modern",
            "abc",
            "vn",
            0.5,
        )
        assert (row.place, after.group, after.height, after.width) == (
            f"page.xml#{before.line}",
            "page",
            *before.image.shape,
        )


def test_nothing_is_changed_or_deleted(store: CorrectionStore) -> None:
    store.add([line(0)])
    store.record(Event(0, "", "", "start", 0, None, "", 0, "", {}), 0)
    for table, column in (("images", "png"), ("corrections", "text"), ("events", "reason")):
        for change in (f"UPDATE {table} SET {column} = ''", f"DELETE FROM {table}"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"), tampering(store.path) as database:
                database.execute(change)


def test_a_commit_waits_for_the_disk(store: CorrectionStore) -> None:
    with store._open(write=True) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: each commit is synchronised


@pytest.mark.parametrize("text", ["", " \n", "un\ndeux", "\ud800"])
def test_a_bad_text_is_refused_with_all_that_came_with_it(store: CorrectionStore, text: str) -> None:
    with pytest.raises(InputError, match=r"page\.xml#l1: "):
        store.add([line(0), line(1, text)])
    assert not store.lines()


def test_several_threads_create_and_fill_one_file(tmp_path: Path) -> None:
    def work(number: int) -> None:
        store = CorrectionStore(tmp_path / "all.db", create=True)
        for one in range(5):
            store.add([line(10 * number + one)], str(number))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert len(CorrectionStore(tmp_path / "all.db").lines()) == 30
    assert [path.name for path in tmp_path.iterdir() if "-" not in path.name] == ["all.db"]


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np
from htr_lightning.data.corrected import Correction
from htr_lightning.data.corrections import CorrectionStore
path, kills = Path(sys.argv[1]), int(sys.argv[2])
accepted, rng = set(), random.Random(0)
CorrectionStore(path, create=True)
for kill in range(kills):
    ours, theirs = os.pipe()
    if not (child := os.fork()):
        for number in range(10_000):
            image = np.full((30, 400), number % 251, np.uint8)
            image[0, :2] = kill, number // 251
            CorrectionStore(path).add([Correction(image, f"{kill} {number}", source=f"{kill}/{number}")])
            os.write(theirs, f"{kill} {number}\\n".encode())
        os._exit(1)
    os.close(theirs)
    with os.fdopen(ours) as told:
        accepted.add(told.readline().strip())  # at work
        time.sleep(rng.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        accepted |= {line.strip() for line in told}
found = CorrectionStore(path).lines()
missing = accepted - {text for line in found for text in line.texts}
for line in found:
    CorrectionStore(path).image(line.image)
with CorrectionStore(path)._open() as database:
    state = database.execute("PRAGMA integrity_check").fetchone()[0]
print(len(accepted), len(found), len(missing), state)
"""


@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_no_accepted_correction_is_lost_when_processes_are_killed(kills: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path / "killed.db"), str(kills)],
        capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    accepted, found, missing, state = done.stdout.split()
    print(f"{kills} kills: {accepted} accepted, {found} stored, {missing} lost")
    assert (missing, state) == ("0", "ok")
    assert int(found) >= int(accepted) >= kills


# ---- which text counts

TEXTS = st.sampled_from([None, "un", "deux"])
BATCH = st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from("xy"), TEXTS, st.booleans()), min_size=1, max_size=3)
ROWS = st.lists(BATCH, max_size=5)  # batches of who, place, text and whether it settles


@given(ROWS)
def test_the_texts_that_count_follow_the_rules(batches: list) -> None:
    said: dict[tuple[str, str], list] = defaultdict(list)
    rows: list[Row] = []
    for batch, several in enumerate(batches, start=1):
        if any(settles for *_, settles in several):
            said.clear()
        for key in {(who, place) for who, place, *_ in several}:
            said[key] = [text for *other, text, _ in several if tuple(other) == key]
        for who, place, text, settles in several:
            rows.append(Row(len(rows), batch, "", who, "i", text, None, None, "", "", place, "", "g", settles, 1, 1))
    expected = {text for texts in said.values() for text in texts} - {None}
    found = stored_lines(rows)
    assert {text for one in found for text in one.texts} == expected
    assert len(found) == bool(expected)
    assert list(splits(found)) == ["i"] * (len(expected) == 1)  # contradictions are in no split


def test_duplicates_and_contradictions_are_told_and_settled(store: CorrectionStore) -> None:
    store.add([line(0), line(1)], "anna")
    assert store.add([line(0)], "anna")[:2] == (1, 1)  # sent again, as after a lost answer
    assert store.status().corrections == 2
    assert store.add([line(0)], "bob")[:2] == (1, 1)
    added = store.add([line(1, "deux")], "bob")
    (contradiction,) = added.contradictions
    assert contradiction.told == "page.xml#l1: 'un' (anna), 'deux' (bob)"
    now = store.status()
    assert (now.corrections, now.lines, now.duplicates, len(now.contradictions), now.people) == (4, 1, 1, 1, 2)
    assert store.add([line(1, "deux")], "anna").contradictions == []  # who agrees settles it
    store.add([line(1, "trois")], "eva")
    assert store.add([line(1, "deux")], "eva", settle=True).contradictions == []
    assert [one.texts for one in store.lines()] == [("un",), ("deux",)]
    store.add([line(2, "un"), line(2, "deux")], "eva")
    assert len(store.status().contradictions) == 1
    assert store.add([line(2, "un")], "eva").contradictions == []  # who wrote both means this one
    store.add([line(1, None), line(2, None)], "eva")
    assert [one.texts for one in store.lines()] == [("un",)]  # withdrawn


# ---- splits


def stored(count: int, group: Callable[[int], str]) -> list[StoredLine]:
    row = Row(0, 1, "", "", "", "un", None, None, "", "", "", "", "", 0, 1, 1)
    return [StoredLine(f"{n:04}", 1, 1, group(n), ("un",), (row._replace(number=n),)) for n in range(count)]


def test_held_out_groups_stay_held_out_whatever_comes_in() -> None:
    lines = stored(300, lambda n: f"writer {n % 30}")
    whole = splits(lines)
    assert {*whole.values()} == {"train", "val", "test"}
    for count in (2, 10, 100, 299):
        part = splits(lines[:count])
        assert {one for one in part if part[one] == "test"} == {one for one in part if whole[one] == "test"}
        assert not {one.group for one in lines[:count] if part[one.image] == "test"} & {
            one.group for one in lines[:count] if part[one.image] != "test"}  # fmt: skip
    assert 0.22 < sum(is_held_out(f"page {n}") for n in range(2000)) / 2000 < 0.28


# ---- the reader


def test_it_is_a_reader_that_opens_no_image_before_it_must(
    store: CorrectionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add([line(n, f"text {n}", f"writer {n % 8}") for n in range(40)], "anna")
    store.add([line(3, "other")], "bob")
    with monkeypatch.context() as patch:
        patch.setattr(CorrectionStore, "image", lambda *_: pytest.fail("opens an image"))
        readers = {split: Corrections(store.path, split) for split in ("train", "val", "test")}
        for reader in readers.values():
            assert isinstance(reader, Reader)
            assert len(reader.ids) == len(reader.texts) == len(reader.groups) == len(reader.sizes) == len(reader)
    assert sum(map(len, readers.values())) == 39
    ids = [id for reader in readers.values() for id in reader.ids]
    assert len({*ids}) == 39
    assert [one.kind for one in readers["train"].skipped] == ["contradictory corrections"]
    assert not {*readers["train"].groups, *readers["val"].groups} & {*readers["test"].groups}
    for reader in map(pickle.loads, map(pickle.dumps, readers.values())):
        for sample, size in zip(reader, reader.sizes, strict=True):
            number = int(sample.text.split()[1])
            assert np.array_equal(sample.image, line(number).image)
            assert sample.image.shape == size


@pytest.mark.slow
def test_corrections_are_a_data_set_like_any_other(
    store: CorrectionStore, htr: Callable[..., Outcome], tmp_path: Path
) -> None:
    store.add([line(n, "mimi", f"writer {n % 8}", f"{n}.png") for n in range(24)], "anna")
    given = ["data=corrections", f"data.root={store.path}", "model=cnn"]
    packed = htr("pack", *given, "--out", tmp_path / "c.htr")
    assert packed.code == 0, packed.stderr
    assert "train: " in packed.stdout
    audited = htr("audit", *given[:2], "--html", tmp_path / "audit.html")
    assert "corrections" in audited.stdout


# ---- faults


def foreign(path: Path) -> None:
    with tampering(path) as database:
        database.execute("CREATE TABLE corrections (x)")


def newer(path: Path) -> None:
    CorrectionStore(path, create=True)
    with tampering(path) as database:
        database.execute("PRAGMA user_version = 9")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file of corrections"),
        (lambda path: path.mkdir(), "is a folder; name a file of corrections first"),
        (lambda path: path.write_text("no database " * 99), "not a file of corrections"),
        (lambda path: path.write_bytes(b""), "not a file of corrections"),
        (foreign, "not a file of corrections"),
        (newer, "unsupported format 9"),
    ],
)
def test_another_file_is_refused_by_name(make: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    make(path)
    with pytest.raises(InputError, match=rf"x\.db: {message}"):
        Corrections(path)


def test_faults_name_the_file_and_the_remedy(store: CorrectionStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.root is not set"):
        Corrections()
    with pytest.raises(StoreError, match="cannot be created"):
        CorrectionStore(store.path / "x.db", create=True)
    store.add([line(0, group="a")])
    with pytest.raises(InputError, match="split 'test' is empty; correct lines of more pages or writers"):
        Corrections(store.path, "test")
    key = store.lines()[0].image
    with tampering(store.path) as database:
        database.executescript("DROP TRIGGER images_UPDATE; UPDATE images SET png = (SELECT zeroblob(9))")
    with pytest.raises(InputError):
        store.image(key)
    other = CorrectionStore(tmp_path / "other.db", create=True)
    other.add([line(5)])
    with tampering(tmp_path / "other.db") as database:
        png = database.execute("SELECT png FROM images").fetchone()[0]
    with tampering(store.path) as database:
        database.execute("UPDATE images SET png = ?", (png,))
    with pytest.raises(InputError, match="missing or corrupted"):
        store.image(key)


# ---- the audit trail


def test_a_decision_that_is_based_on_an_old_state_is_refused(store: CorrectionStore) -> None:
    start = Event(0, "", "anna", "start", 0, None, "a", 0, "registered", {})
    store.record(start, 0)
    with pytest.raises(InputError, match="in the meantime"):
        store.record(start, 0)
    store.record(start._replace(kind="promoted", version=1, parent=0, until=7, figures={"new": 1}), 1)
    store.record(start._replace(kind="refused", version=None, parent=1), 2)
    events = store.events()
    assert [(one.number, one.kind, one.version) for one in events] == [
        (1, "start", 0),
        (2, "promoted", 1),
        (3, "refused", None),
    ]
    assert events[1].figures == {"new": 1}
    assert current_version(events) == events[1]
    store.record(events[0]._replace(kind="rollback", parent=1), 3)
    assert current_version(store.events()) == events[0]
    assert current_version([]) is None
