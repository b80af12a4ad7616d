"""The API gives what the same recognizer gives without a server, and refuses anything else in one line."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from time import sleep
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from htr_lightning.data.corrections import CorrectionStore
from htr_lightning.data.page.document import read_page
from htr_lightning.reading.open import load_all
from htr_lightning.reading.reader import Reader
from htr_lightning.serve import uploads
from htr_lightning.serve.answers import CorrectedLine
from htr_lightning.serve.app import make_app
from htr_lightning.serve.batching import Batcher
from htr_lightning.serve.limits import Limits
from htr_lightning.serve.uploads import Served, Upload
from htr_lightning.transcription import Transcription
from serve.conftest import picture

Files = list[tuple[str, tuple[str, bytes]]]


def ok(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def files(*paths: Path, field: str = "files") -> Files:
    return [(field, (path.name, path.read_bytes())) for path in paths]


def test_a_digit_is_read_as_without_a_server(client: TestClient, digits: Served, tmp_path: Path) -> None:
    (tmp_path / "seven.png").write_bytes(picture("7"))
    (expected,) = Reader(digits.recognizer).transcribe(tmp_path / "seven.png", n_best=10)
    assert expected.transcription is not None
    answer = client.post("/api/transcribe", files=files(tmp_path / "seven.png"), data={"n_best": "10"}).json()
    (file,) = answer["files"]
    assert (file["name"], file["xml"], file["width"], file["height"]) == ("seven.png", None, 70, 60)
    (line,) = file["lines"]
    assert line["text"] == expected.text == "7"
    assert line["confidence"] == expected.transcription.confidence
    assert line["box"] == [0, 0, 70, 60]
    assert [tuple(one.values()) for one in line["alternatives"]] == [
        (one.text, one.confidence) for one in expected.transcription.alternatives
    ]


@pytest.mark.parametrize("form", ["PAGE", "ALTO"])
def test_a_page_is_read_as_without_a_server(
    form: str, client: TestClient, digits: Served, tmp_path: Path, write_page: Callable[..., Path]
) -> None:
    xml = write_page(tmp_path, ["7", "3", "1"], form=form)
    expected = Reader(digits.recognizer).transcribe(xml)
    (file,) = ok(client.post("/api/transcribe", files=files(tmp_path / "page.png", xml)))["files"]
    assert [line["text"] for line in file["lines"]] == [one.text for one in expected]
    assert [line["confidence"] for line in file["lines"]] == [
        one.transcription and one.transcription.confidence for one in expected
    ]
    assert [line["id"] for line in file["lines"]] == ["l0", "l1", "l2"]
    assert file["lines"][1]["box"] == [2, 42, 238, 78]


def test_one_image_and_one_page_belong_together(
    client: TestClient, write_page: Callable[..., Path], tmp_path: Path
) -> None:
    xml = write_page(tmp_path, ["7"])
    given: Files = [
        ("files", ("photo.png", (tmp_path / "page.png").read_bytes())),
        ("files", ("a.xml", xml.read_bytes())),
    ]
    (file,) = ok(client.post("/api/transcribe", files=given))["files"]
    assert (file["name"], file["xml"], len(file["lines"])) == ("photo.png", "a.xml", 1)


def test_several_pages_find_their_images(client: TestClient, write_page: Callable[..., Path], tmp_path: Path) -> None:
    pages = [write_page(tmp_path, texts, stem) for stem, texts in (("b", ["7"]), ("a", ["3", "1"]))]
    (tmp_path / "line.png").write_bytes(picture("9"))
    given = files(*pages, tmp_path / "a.png", tmp_path / "b.png", tmp_path / "line.png")
    found = ok(client.post("/api/transcribe", files=given))["files"]
    assert {(one["name"], one["xml"], len(one["lines"])) for one in found} == {
        ("b.png", "b.xml", 1), ("a.png", "a.xml", 2), ("line.png", None, 1)
    }  # fmt: skip


def test_a_page_cannot_name_a_file_of_the_server(
    client: TestClient, write_page: Callable[..., Path], tmp_path: Path
) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture("7"))
    xml = write_page(tmp_path / "pages", ["7"])
    for name in (str(secret), "../secret.png", "../../../../../etc/hostname"):
        text = xml.read_text().replace("page.png", name)
        given: Files = [("files", ("x.xml", text.encode()))] + [("files", (f"{n}.png", picture("1"))) for n in "ab"]
        answer = client.post("/api/transcribe", files=given)
        assert answer.status_code == 422
        assert "no image" in answer.json()["error"]
        assert str(tmp_path) not in answer.json()["error"].replace(name, "")


def test_a_batch_keeps_its_order_and_names_what_cannot_be_read(client: TestClient) -> None:
    images: Files = [("images", (f"{n}.png", picture(n))) for n in "7310"]
    images[2] = ("images", ("broken.png", b"no image"))
    lines = ok(client.post("/api/batch", files=images))["lines"]
    assert [line["text"] for line in lines] == ["7", "3", "", "0"]
    assert [line["name"] for line in lines] == ["7.png", "3.png", "broken.png", "0.png"]
    assert [bool(line["error"]) for line in lines] == [False, False, True, False]
    assert lines[2]["error"].startswith("broken.png: not an image")
    refused = client.post("/api/batch", files=images[2:3])
    assert (refused.status_code, refused.json()["error"]) == (422, lines[2]["error"])


@pytest.mark.parametrize("form", ["PAGE", "ALTO"])
def test_corrected_lines_are_exported_as_page_xml(
    form: str, client: TestClient, write_page: Callable[..., Path], tmp_path: Path
) -> None:
    xml = write_page(tmp_path, ["un", "deux"], form=form)
    text = '<b onload="x()">&amp; l’été'
    lines = json.dumps([{"id": "l1", "text": text}])
    answer = client.post("/api/export", files=files(xml, field="file"), data={"lines": lines})
    assert answer.status_code == 200
    (tmp_path / "out.xml").write_bytes(answer.content)
    assert [line.text for line in read_page(tmp_path / "out.xml").lines] == ["un", text]
    assert [line.polygon for line in read_page(tmp_path / "out.xml").lines] == [
        line.polygon for line in read_page(xml).lines
    ]
    confidences = [e.get("conf") for e in ElementTree.fromstring(answer.content).iter() if "TextEquiv" in e.tag]
    assert confidences == [None, "1.0"]


FORMS = {"page": "application/xml", "alto": "application/xml", "hocr": "text/html", "pdf": "application/pdf"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("with_image", [False, True])
def test_pages_are_exported_in_all_formats(
    form: str, with_image: bool, client: TestClient, write_page: Callable[..., Path], tmp_path: Path
) -> None:
    xml = write_page(tmp_path, ["un", "deux"])
    lines = json.dumps([{"id": "l0", "text": "eins zwei", "confidence": 0.5}, {"id": "l1", "text": "drei"}])
    given = files(xml, field="file") + (files(xml.with_suffix(".png"), field="image") if with_image else [])
    answer = client.post("/api/export", files=given, data={"lines": lines, "format": form, "language": "de"})
    if form == "pdf" and not with_image:
        assert (answer.status_code, "send it as image" in answer.json()["error"]) == (422, True)
        return
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, FORMS[form])
    if form == "pdf":
        assert answer.content.startswith(b"%PDF-")
    elif form == "hocr":
        assert "".join(ElementTree.fromstring(answer.content).itertext()).count("drei") == 1
    else:
        (tmp_path / "out.xml").write_bytes(answer.content)
        assert [line.text for line in read_page(tmp_path / "out.xml").lines] == ["eins zwei", "drei"]
    for wrong in ({"format": "docx"}, {"language": "d e"}, {"language": "x" * 40}, {"model": "other"}):
        refused = client.post("/api/export", files=given, data={"lines": lines, "format": form} | wrong)
        assert (refused.status_code, list(refused.json())) == (422, ["error"])


def test_words_of_corrected_lines_are_found_in_the_image(write_page: Callable[..., Path], tmp_path: Path) -> None:
    xml, recognizer = write_page(tmp_path, ["un deux"]), load_all(["latin-modern"], "cpu")
    batcher = Batcher([recognizer.read])
    served = Served("latin-modern", recognizer, batcher, alternatives=True)
    with xml.open("rb") as page, xml.with_suffix(".png").open("rb") as image:
        sent = Upload(xml.name, page), Upload("page.png", image)
        line = CorrectedLine(id="l0", text="un deux")
        content = uploads.export(served, *sent, [line], "alto", "", Limits())
    batcher.close()
    words = [e for e in ElementTree.fromstring(content).iter() if e.tag.endswith("}String")]
    assert [(word.attrib["CONTENT"], word.attrib["WC"]) for word in words] == [("un", "1.0"), ("deux", "1.0")]
    ink = (np.asarray(Image.open(xml.with_suffix(".png"))) < 128).any(0).nonzero()[0]
    gap = np.diff(ink).argmax()
    places = [(int(word.attrib["HPOS"]), int(word.attrib["HPOS"]) + int(word.attrib["WIDTH"])) for word in words]
    assert places == [pytest.approx(pair, abs=4) for pair in ((ink[0], ink[gap]), (ink[gap + 1], ink[-1]))]


def test_an_id_that_occurs_twice_is_refused(
    client: TestClient, write_page: Callable[..., Path], tmp_path: Path
) -> None:
    xml = write_page(tmp_path, ["un", "deux", "trois"])
    xml.write_text(xml.read_text().replace('"l1"', '"l0"'))
    given = files(xml, field="file") + files(tmp_path / "page.png", field="image")
    for form in FORMS:
        answer = client.post(
            "/api/export", files=given, data={"lines": '[{"id": "l2", "text": "drei"}]', "format": form}
        )
        assert (answer.status_code, "'l0': more than once in page.xml" in answer.json()["error"]) == (422, True)


def test_an_image_of_an_image_is_refused(client_of: Callable[..., TestClient]) -> None:
    client = client_of(Limits(pixels=5000))  # one character is an image of 4200 pixels
    given = {"file": ("large.png", picture("71")), "image": ("small.png", picture("7"))}
    answer = client.post("/api/export", files=given, data={"lines": '[{"id": "line_1", "text": "71"}]'})
    assert (answer.status_code, "small.png: sent with large.png" in answer.json()["error"]) == (422, True)
    del given["image"]
    answer = client.post("/api/export", files=given, data={"lines": '[{"id": "line_1", "text": "71"}]'})
    assert (answer.status_code, "100 x 60" in answer.json()["error"]) == (422, True)


def test_an_export_ends_when_nobody_waits_for_it(
    make_recognizer: Callable, write_page: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    xml, recognizer, aligned = write_page(tmp_path, ["un", "deux", "trois"]), make_recognizer(), []

    def align(images: list[np.ndarray], texts: list[str]) -> list[tuple]:
        aligned.extend(texts)
        return [()]

    monkeypatch.setattr(recognizer, "align", align)
    monkeypatch.setattr(uploads, "monotonic", lambda: len(aligned))
    served = Served("lines", recognizer, Batcher([recognizer.read]), False)
    lines = [CorrectedLine(id=f"l{number}", text=f"text {number}") for number in range(3)]
    with xml.open("rb") as page, xml.with_suffix(".png").open("rb") as image:
        sent = Upload(xml.name, page), Upload("page.png", image)
        with pytest.raises(TimeoutError):
            uploads.export(served, *sent, lines, "page", "", Limits(), deadline=1.0)
    served.batcher.close()
    assert aligned == ["text 0", "text 1"]


def test_pages_are_turned_by_a_reader_that_no_other_thread_uses(
    make_recognizer: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer, lock, read = make_recognizer(), Lock(), []

    def worker(images: Sequence[np.ndarray], n_best: int = 0, boxes: bool = False) -> list[Transcription]:
        assert lock.acquire(blocking=False), "two threads"
        read.extend(images)
        sleep(0.002)
        lock.release()
        return [Transcription("un", 1.0, words=(1.0,)) for _ in images]

    def find_page(path: Path, image: np.ndarray, confidence: Callable, pages: bool | None) -> None:
        assert confidence([image, image]) == 1.0

    def not_here(*_: object) -> None:
        raise AssertionError("a reader that other threads use")

    monkeypatch.setattr("htr_lightning.reading.transcribe.find_page", find_page)
    monkeypatch.setattr(recognizer, "read", not_here)
    served = Served("lines", recognizer, Batcher([worker]), False)
    app = make_app([served], store=CorrectionStore(tmp_path / "corrections.db", create=True))
    with TestClient(app, "http://127.0.0.1") as client, ThreadPoolExecutor(4) as pool:
        given: Files = [("files", ("line.png", picture("71")))]
        data = {"lines": '[{"id": "line_1", "text": "un"}]'}
        calls = [("/api/transcribe", {}), ("/api/corrections", data)] * 3
        for answer in pool.map(lambda call: client.post(call[0], files=given, data=call[1]), calls):
            ok(answer)
    assert len(read) == 3 * 3 + 3 * 2


def test_a_line_is_exported_as_a_page(client: TestClient, tmp_path: Path) -> None:
    given = {"file": ("line.png", picture("71"))}
    answer = client.post("/api/export", files=given, data={"lines": '[{"id": "line_1", "text": "71"}]'})
    (tmp_path / "line.xml").write_bytes(answer.content)
    page = read_page(tmp_path / "line.xml")
    assert (page.image, page.width, page.height, [line.text for line in page.lines]) == ("line.png", 100, 60, ["71"])


def test_a_page_without_xml_is_read_and_exported_with_the_lines_found(
    make_recognizer: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_writing(image: np.ndarray) -> np.ndarray:
        return cv2.erode((image < 140).astype(np.float32), np.ones((5, 5), np.uint8))

    monkeypatch.setattr("htr_lightning.reading.segment.page.find_writing", find_writing)
    page = np.full((900, 700), 235, np.uint8)
    for y in range(100, 800, 50):
        page[y : y + 16, 100:600] = 40
        page[y - 8 : y + 8, 100:600:9] = 40
    Image.fromarray(page).save(tmp_path / "page.png")
    recognizer = make_recognizer()
    with TestClient(
        make_app([Served("lines", recognizer, Batcher([recognizer.read]), False)]), "http://127.0.0.1"
    ) as client:
        given = {"data": {"model": "lines"}}
        (file,) = ok(client.post("/api/transcribe", files=files(tmp_path / "page.png"), **given))["files"]
        assert (file["xml"], file["width"], file["height"], len(file["lines"])) == (None, 700, 900, 14)
        lines = [{key: line[key] for key in ("id", "polygon", "baseline", "region")} for line in file["lines"]]
        for number, line in enumerate(lines):
            line["text"] = f"text {number}"
        exported = client.post("/api/export", files=files(tmp_path / "page.png", field="file"),
                               data={"lines": json.dumps(lines)})  # fmt: skip
        assert exported.status_code == 200
        (tmp_path / "out.xml").write_bytes(exported.content)
        for line, other in zip(read_page(tmp_path / "out.xml").lines, lines, strict=True):
            assert (line.id, line.text, line.region) == (other["id"], other["text"], other["region"])
            assert [list(point) for point in line.baseline] == other["baseline"]
        for wrong in ({"baseline": [[1e9, 0], [5, 5]]}, {"region": "<b>"}, {"id": lines[1]["id"]},
                      {"polygon": [[0, "NaN"]]}, {"polygon": [[0, 0]] * 9999}):  # fmt: skip
            sent = json.dumps([lines[0] | wrong, *lines[1:]])
            refused = client.post("/api/export", files=files(tmp_path / "page.png", field="file"), data={"lines": sent})
            assert refused.status_code == 422, wrong
        limited = TestClient(
            make_app([Served("lines", recognizer, Batcher([recognizer.read]), False)], Limits(lines=9))
        )
        few = limited.post("http://127.0.0.1/api/transcribe", files=files(tmp_path / "page.png"), **given)
        assert (few.status_code, "14 lines in one request (maximum 9)" in few.json()["error"]) == (422, True)


def test_a_preview_is_an_image_for_any_browser(client: TestClient) -> None:
    answer = client.post("/api/preview", files={"file": ("page.tif", picture("7", "TIFF"))})
    assert answer.headers["content-type"] == "image/png"
    read = [ok(client.post("/api/batch", files={"images": ("a", content)}))["lines"][0]["confidence"]
            for content in (answer.content, picture("7"))]  # fmt: skip
    assert read[0] == read[1]


def test_limits_are_kept(client_of: Callable[..., TestClient], write_page: Callable[..., Path], tmp_path: Path) -> None:
    client = client_of(Limits(body_bytes=20_000, pixels=10_000, lines=2))
    xml = write_page(tmp_path, ["1", "2", "3"])
    refused = {
        413: client.post("/api/transcribe", files={"files": ("a.png", bytes(30_000))}),
        422: client.post("/api/transcribe", files=files(xml, tmp_path / "page.png")),  # 240 x 120 pixels
    }
    assert {answer.status_code for answer in refused.values()} == set(refused)
    assert "20,000" in refused[413].json()["error"]
    assert "240 x 120" in refused[422].json()["error"]
    images: Files = [("images", (f"{n}.png", picture("1"))) for n in range(3)]
    assert "maximum 2" in client.post("/api/batch", files=images).json()["error"]
    assert client.post("/api/batch", files=images[:2]).status_code == 200


def test_the_description_is_complete(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/health", "/metrics", "/api/models", "/api/transcribe", "/api/batch", "/api/export",
                          "/api/preview"}  # fmt: skip
    for path, methods in paths.items():
        for method, about in methods.items():
            assert about["summary"], path
            assert "4XX" in about["responses"], (path, method)


def test_the_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert "'unsafe" not in page.headers["content-security-policy"]
    for name in ("app.js", "api.js", "draw.js", "export.js", "i18n.js", "lines.js", "picture.js", "style.css"):
        answer = client.get(f"/static/{name}")
        assert answer.status_code == 200
        assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")  # a name, not an address
        assert "https://" not in answer.text
        assert "innerHTML" not in answer.text
    assert "style=" not in page.text
    assert "onclick=" not in page.text
    assert client.get("/static/../app.py").status_code == 404
    assert client.get("/static/%2e%2e%2fapp.py").status_code == 404


def test_metrics_count_requests_and_lines(client: TestClient) -> None:
    client.post("/api/batch", files=[("images", (f"{n}.png", picture("1"))) for n in range(3)])
    client.get("/etc/passwd")
    text = client.get("/metrics").text
    assert 'htr_lines_total{model="digits"} 3' in text
    assert 'htr_requests_total{path="/api/batch",status="200"} 1' in text
    assert 'htr_requests_total{path="other",status="404"} 1' in text
    assert "passwd" not in text
    counts = [
        int(row.split()[-1]) for row in text.splitlines() if row.startswith('htr_request_seconds_bucket{path="/api/b')
    ]
    assert counts == sorted(counts)
    assert counts[-1] == 1
    memory = next(row for row in text.splitlines() if row.startswith("process_resident_memory_bytes"))
    assert float(memory.split()[1]) > 1e7


def test_an_unexpected_failure_shows_no_traceback(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret path")

    monkeypatch.setattr("htr_lightning.serve.uploads.read_image", fail)
    answer = client.post("/api/batch", files={"images": ("a.png", picture("1"))})
    assert (answer.status_code, answer.json()) == (500, {"error": "the server failed (RuntimeError); see its log"})
