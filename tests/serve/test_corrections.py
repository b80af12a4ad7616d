"""Confirmed lines are stored before the answer comes, as they were read, and nothing else is stored."""

import json
import random
import sqlite3
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Timer
from typing import Any

import httpx2
import numpy as np
import pytest
from starlette.testclient import TestClient

from htr_lightning.adapt.corrected_files import read_corrections
from htr_lightning.data.corrections import Added, CorrectionStore, Event
from htr_lightning.data.image import read_image
from htr_lightning.data.page.document import read_page
from htr_lightning.reading.open import load_all
from htr_lightning.reading.transcribe import open_to_read
from htr_lightning.serve import corrections
from htr_lightning.serve.app import make_app
from htr_lightning.serve.batching import Batcher
from htr_lightning.serve.limits import Limits
from htr_lightning.serve.uploads import Served
from serve.conftest import picture, running
from serve.test_app import files, ok

TOKEN = "correct horse battery"


@pytest.fixture(scope="module")
def lines_reader() -> Served:
    recognizer = load_all(["latin-modern"], "cpu")
    return Served("latin-modern", recognizer, Batcher([recognizer.read]), True, "0abc")


@pytest.fixture
def store(tmp_path: Path) -> CorrectionStore:
    return CorrectionStore(tmp_path / "private" / "corrections.db", create=True)


@pytest.fixture
def collecting(lines_reader: Served, digits: Served, store: CorrectionStore) -> Iterator[Callable[..., TestClient]]:
    """A function that returns a client of a server that stores corrections."""
    opened = []

    def make(limits: Limits | None = None, token: str | None = None) -> TestClient:
        served = [one._replace(batcher=Batcher([one.recognizer.read])) for one in (lines_reader, digits)]
        client = TestClient(make_app(served, limits, token=token, store=store), "http://127.0.0.1",
                            raise_server_exceptions=False)  # fmt: skip
        opened.append(client.__enter__())
        return client

    yield make
    for client in opened:
        client.__exit__()


def lines(**texts: str | None) -> dict[str, str]:
    return {
        "lines": json.dumps([{"id": id, "text": text, "before": "vn", "confidence": 0.5} for id, text in texts.items()])
    }


def test_lines_of_a_page_are_on_the_disk_when_the_answer_comes(
    collecting: Callable[..., TestClient], store: CorrectionStore, write_page: Callable[..., Path], tmp_path: Path
) -> None:
    xml = write_page(tmp_path, ["un", "deux", "trois"])
    client = collecting()
    given = files(xml, tmp_path / "page.png")
    answer = ok(client.post("/api/corrections", files=given, data=lines(l0="UN", l2="<b>") | {"who": "anna"}))
    assert answer == {"accepted": 2, "duplicates": 0, "contradictions": []}
    found = CorrectionStore(store.path).lines()
    assert [(one.rows[0].place, one.texts, one.group) for one in found] == [
        ("page.xml#l0", ("UN",), "page"), ("page.xml#l2", ("<b>",), "page")]  # fmt: skip
    row = found[0].rows[0]
    assert (row.who, row.model, row.model_sha256, row.before, row.confidence) == (
        "anna",
        "latin-modern",
        "0abc",
        "vn",
        0.5,
    )
    # the image is that of `htr feedback add`, so that a line that comes both ways is one line
    assert store.add(next(read_corrections([str(xml)], Counter())), "bob").contradictions[0].image == found[0].image
    again = ok(client.post("/api/corrections", files=given, data=lines(l0="UN") | {"who": "anna"}))
    assert (again["accepted"], again["duplicates"]) == (1, 1)
    assert again["contradictions"] == ["page.xml#l0: 'UN' (anna), 'un' (bob)"]
    ok(client.post("/api/corrections", files=given, data=lines(l0=None) | {"who": "anna"}))  # taken back
    assert {one.texts for one in store.lines()} == {("un",), ("deux",), ("<b>", "trois")}


def test_an_image_of_one_line(collecting: Callable[..., TestClient], store: CorrectionStore, line_image: Path) -> None:
    ok(collecting().post("/api/corrections", files=files(line_image), data=lines(line_1="ligne") | {"group": "eva"}))
    (line,) = store.lines()
    assert (line.rows[0].place, line.texts, line.group) == ("line.png", ("ligne",), "eva")
    assert np.array_equal(store.image(line.image), read_image(line_image))


def test_the_first_line_of_a_plain_page_is_not_the_whole_image(
    collecting: Callable[..., TestClient], store: CorrectionStore, write_page: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    page = read_page(write_page(tmp_path, ["un", "deux"]))
    found = page._replace(lines=[line._replace(id=f"line_{n}") for n, line in enumerate(page.lines, start=1)])
    monkeypatch.setattr("htr_lightning.reading.transcribe.find_page", lambda *_: found)
    ok(
        collecting().post(
            "/api/corrections", files=files(tmp_path / "page.png"), data=lines(line_1="un", line_2="deux")
        )
    )
    assert [line.rows[0].place for line in store.lines()] == ["page.png#line_1", "page.png#line_2"]


def test_only_images_of_lines_that_are_sent_are_kept_in_memory(
    collecting: Callable[..., TestClient], store: CorrectionStore, write_page: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    xml = write_page(tmp_path, ["un", "deux", "trois", "quatre"])
    cropped: list[weakref.ref] = []
    kept: list[int] = []

    def opened(*args: Any, **settings: Any) -> Iterator[tuple[Any, Any]]:
        for line, image in open_to_read(*args, **settings):
            cropped.append(weakref.ref(image))
            yield line, image

    def add(*args: Any) -> Added:
        kept.append(sum(one() is not None for one in cropped))
        return CorrectionStore.add(store, *args)

    monkeypatch.setattr(corrections, "open_to_read", opened)
    monkeypatch.setattr(store, "add", add)
    client, given = collecting(), files(xml, tmp_path / "page.png")
    ok(client.post("/api/corrections", files=given, data=lines(l1="deux")))
    assert (len(cropped), kept) == (4, [1])
    pixels = store.image(store.lines()[0].image).size
    monkeypatch.setattr(corrections, "MAX_PIXELS", pixels * 3 // 2)
    answer = client.post("/api/corrections", files=given, data=lines(l1="deux", l2="trois"))
    assert (answer.status_code, "send fewer lines" in answer.json()["error"]) == (422, True)
    monkeypatch.setattr(corrections, "LINE_PIXELS", pixels - 1)
    answer = client.post("/api/corrections", files=given, data=lines(l1="deux"))
    assert (answer.status_code, f"'l1': {pixels:,} pixels" in answer.json()["error"]) == (422, True)
    xml.write_text(xml.read_text().replace('"l0"', '"l1"'))
    monkeypatch.setattr(corrections, "LINE_PIXELS", pixels)
    answer = client.post("/api/corrections", files=files(xml, tmp_path / "page.png"), data=lines(l1="deux"))
    assert (answer.status_code, "'l1': more than once" in answer.json()["error"]) == (422, True)


def test_what_waits_and_what_the_last_training_gained(
    collecting: Callable[..., TestClient], store: CorrectionStore, line_image: Path
) -> None:
    client = collecting()
    assert ok(client.get("/api/models"))["corrections"] is True
    nothing = {"lines": 0, "waiting": 0, "duplicates": 0, "contradictions": [], "version": None, "last": None}
    assert ok(client.get("/api/corrections")) == nothing
    ok(client.post("/api/corrections", files=files(line_image), data=lines(line_1="ligne")))
    gain = {"before": 9, "after": 5, "characters": 70, "lines": 3}
    start = Event(0, "", "", "start", 0, None, "", 0, "", {})
    store.record(start, 0)
    store.record(start._replace(kind="promoted", version=1, parent=0, reason="better", figures={"new": gain}), 1)
    answer = ok(client.get("/api/corrections"))
    assert (answer["waiting"], answer["version"]) == (1, 1)
    assert (answer["last"]["promoted"], answer["last"]["new"], answer["last"]["old"]) == (True, gain, None)


HOSTILE = [
    (lines(l9="un"), 422, "line 'l9': not in page.xml"),
    (lines(l0=""), 422, "page.xml#l0: line without text"),
    (lines(l0="un\ndeux"), 422, "control character u+000a"),
    (lines(l0="x" * 10_001), 422, "at most 10000 characters"),
    (lines(l0="un") | {"who": "a\0b"}, 422, "control character"),
    (lines(l0="un") | {"model": "digits"}, 422, "single characters"),
    (lines(l0="un") | {"model": "../x"}, 422, "not served here"),
    (lines(**{f"l{n}": "un" for n in range(4)}), 422, "4 lines in one request (maximum 3)"),
    ({"lines": "[" * 5000}, 422, "lines"),
    ({"lines": '[{"id": "l0"}]'}, 422, "text: field required"),
    ({"lines": '[{"id": "l0", "text": "un", "confidence": 7}]'}, 422, "confidence"),
    ({}, 422, "lines: field required"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "status", "message"), HOSTILE)
def test_bad_requests_store_nothing(
    data: dict[str, str], status: int, message: str, collecting: Callable[..., TestClient], store: CorrectionStore,
    write_page: Callable[..., Path], tmp_path: Path,
) -> None:  # fmt: skip
    xml = write_page(tmp_path, ["un", "deux"])
    answer = collecting(Limits(lines=3)).post("/api/corrections", files=files(xml, tmp_path / "page.png"), data=data)
    assert (answer.status_code, "\n" in answer.json()["error"]) == (status, False)
    assert message in answer.json()["error"]
    assert not store.lines()


def test_other_files_store_nothing(
    collecting: Callable[..., TestClient], store: CorrectionStore, write_page: Callable[..., Path], tmp_path: Path
) -> None:
    client = collecting()
    xml = write_page(tmp_path, ["un"])
    two: Any = [("files", (f"{n}.png", picture("7"))) for n in "ab"]
    for given in (files(xml), two, [("files", ("a.png", b"x"))], [("files", ("../a.png", picture("7")))]):
        answer = client.post("/api/corrections", files=given, data=lines(line_1="un"))
        assert answer.status_code == 422, answer.text
        assert str(tmp_path) not in answer.text
    assert not store.lines()


def test_the_guard_is_that_of_the_other_posts(
    collecting: Callable[..., TestClient], client: TestClient, store: CorrectionStore, line_image: Path
) -> None:
    given, data = files(line_image), lines(line_1="un")
    guarded = collecting(token=TOKEN)
    assert guarded.post("/api/corrections", files=given, data=data).status_code == 401
    assert guarded.get("/api/corrections").status_code == 401
    headers = {"Authorization": f"Bearer {TOKEN}"}
    foreign = headers | {"Origin": "http://evil.example"}
    assert guarded.post("/api/corrections", files=given, data=data, headers=foreign).status_code == 403
    small = collecting(Limits(body_bytes=1000))
    assert small.post("/api/corrections", files=given, data=data).status_code == 413
    assert not store.lines()
    assert ok(guarded.post("/api/corrections", files=given, data=data, headers=headers))["accepted"] == 1
    assert client.post("/api/corrections", files=given, data=data).status_code == 404  # a server that stores nothing
    assert ok(client.get("/api/models"))["corrections"] is False


def test_a_store_that_fails_is_no_fault_of_the_client(
    collecting: Callable[..., TestClient], store: CorrectionStore, line_image: Path, tmp_path: Path
) -> None:
    client = collecting()
    for path in store.path.parent.iterdir():
        with suppress(FileNotFoundError):
            path.unlink()
    answer = client.post("/api/corrections", files=files(line_image), data=lines(line_1="un"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert "not stored" in answer.json()["error"]
    assert str(tmp_path) not in answer.text


@pytest.mark.slow
def test_no_line_that_the_server_accepted_is_lost_when_it_is_killed(tmp_path: Path, line_image: Path) -> None:
    path, rng, accepted = tmp_path / "corrections.db", random.Random(0), []
    for kill in range(10):
        with running("latin-modern", "--corrections", str(path)) as (process, port):
            address = f"http://127.0.0.1:{port}/api/corrections"
            timer = Timer(rng.uniform(0.2, 1), process.kill)
            for number in count():
                text = f"{kill} {number}"
                try:
                    answer = httpx2.post(address, files=files(line_image), data=lines(line_1=text), timeout=60)
                except httpx2.TransportError:
                    break  # killed
                assert ok(answer)["accepted"] == 1
                accepted.append(text)
                if not number:
                    timer.start()
    with sqlite3.connect(path) as database:
        found = {text for (text,) in database.execute("SELECT text FROM corrections")}
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    print(f"10 kills: {len(accepted)} accepted, {len(found)} stored")
    assert {*accepted} <= found
