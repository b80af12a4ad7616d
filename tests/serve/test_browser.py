"""The page in a real browser: digits are drawn and read, and a page is corrected with the keyboard alone."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from htr_lightning.data.corrections import CorrectionStore
from serve.conftest import running

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
CHROMIUM = os.environ.get("HTR_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="the browser tests need chromium, or HTR_BROWSER")


def arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> list[tuple[float, float]]:
    """Return points on an ellipse; angles are in degrees, clockwise from the right."""
    return [(x + rx * np.cos(t), y + ry * np.sin(t)) for t in np.radians(np.linspace(start, end, 20))]


STROKES: Sequence[list[list[tuple[float, float]]]] = [
    [arc(0.5, 0.5, 0.18, 0.3, -90, 270)],
    [[(0.5, 0.2), (0.5, 0.8)]],
    [[*arc(0.5, 0.35, 0.17, 0.15, 190, 380), (0.33, 0.78), (0.7, 0.78)]],
    [[*arc(0.48, 0.35, 0.16, 0.15, 200, 450), *arc(0.48, 0.65, 0.18, 0.16, -90, 150)]],
    [[(0.42, 0.2), (0.32, 0.55), (0.7, 0.55)], [(0.62, 0.25), (0.6, 0.82)]],
    [[(0.68, 0.22), (0.4, 0.22), (0.37, 0.47), *arc(0.48, 0.62, 0.18, 0.17, -110, 140)]],
    [[(0.58, 0.18), (0.42, 0.4), *arc(0.5, 0.64, 0.14, 0.15, 180, 540)]],
    [[(0.3, 0.25), (0.7, 0.25), (0.45, 0.8)]],
    [[*arc(0.5, 0.35, 0.14, 0.14, 90, 450), *arc(0.5, 0.65, 0.17, 0.16, -90, 270)]],
    [[*arc(0.5, 0.37, 0.15, 0.16, 0, 360), (0.65, 0.37), (0.6, 0.82)]],
]  # of the digits 0 to 9, as fractions of the canvas


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running("digits") as (_, port):
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def open_page(browser: Any, server: str) -> Iterator[Callable[..., Any]]:
    """A function that opens the page; afterwards, no request has left it, and there is no error in its console."""
    faults: list[str] = []
    contexts = []

    def make(**settings: Any) -> Any:
        contexts.append(browser.new_context(**settings))
        page = contexts[-1].new_page()
        page.on("console", lambda one: faults.append(one.text) if one.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda one: None if one.url.startswith((server, "blob:")) else faults.append(one.url))
        page.goto(server)
        page.wait_for_selector("#model option", state="attached")
        return page

    yield make
    for context in contexts:
        context.close()
    assert not faults


def draw(page: Any, strokes: list[list[tuple[float, float]]]) -> str:
    """Draw on the canvas and return what was read."""
    if page.is_enabled("#stroke-clear"):
        page.click("#stroke-clear")
    box = page.locator("#canvas").bounding_box()
    for stroke in strokes:
        points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point)
        page.mouse.up()
    page.wait_for_selector("#keep:not([disabled])")
    return page.inner_text("#reading strong")


def test_drawn_digits_are_read(open_page: Callable[..., Any]) -> None:
    page = open_page(viewport={"width": 1280, "height": 900})
    found = [draw(page, strokes) for strokes in STROKES]
    assert sum(text == str(digit) for digit, text in enumerate(found)) >= 9, found
    page.click("#keep")
    assert page.input_value(".line textarea") == found[-1]


def test_a_page_is_corrected_with_the_keyboard_alone(
    open_page: Callable[..., Any], write_page: Callable[..., Path], tmp_path: Path
) -> None:
    page = open_page(viewport={"width": 1280, "height": 900})
    xml = write_page(tmp_path, ["7", "3", "1"])
    page.set_input_files("#files", [xml, xml.with_suffix(".png")])
    page.wait_for_selector(".line textarea:focus")
    keys = page.keyboard
    read = [one.input_value() for one in page.locator(".line textarea").all()]

    def state() -> tuple[list[str], list[int]]:
        lines = page.locator(".line").all()
        texts = [line.locator("textarea").input_value() for line in lines]
        return texts, [number for number, line in enumerate(lines) if "confirmed" in line.get_attribute("class")]

    keys.press("Enter")
    assert state() == (read, [0])
    keys.press("ControlOrMeta+a")
    keys.type("quatre <b>")
    keys.press("Enter")
    assert state() == ([read[0], "quatre <b>", read[2]], [0, 1])
    keys.press("Escape")  # not confirmed again, and back in the line
    assert state() == ([read[0], "quatre <b>", read[2]], [0])
    keys.press("Escape")  # as it was read
    assert state() == (read, [0])
    keys.press("Alt+1")
    second = state()[0][1]
    assert second != read[1]
    keys.press("Enter")
    keys.press("ArrowUp")
    keys.press("ArrowUp")
    keys.press("Tab")
    keys.press("ArrowDown")
    assert page.evaluate("document.querySelector('polygon.active') === document.querySelectorAll('polygon')[2]")
    keys.type("<i>")
    keys.press("Enter")
    assert state() == ([read[0], second, f"{read[2]}<i>"], [0, 1, 2])
    assert page.evaluate("document.activeElement.dataset.format") == "text"
    with page.expect_download() as text:
        keys.press("Enter")
    assert Path(text.value.path()).read_text() == f"{read[0]}\n{second}\n{read[2]}<i>\n"
    keys.press("Tab")  # over the searchable PDF
    keys.press("Tab")
    with page.expect_download() as exported:
        keys.press("Enter")
    content = Path(exported.value.path()).read_text()
    assert f"<Unicode>{read[2]}&lt;i&gt;</Unicode>" in content
    lines = [one for one in ElementTree.fromstring(content).iter() if one.tag.endswith("}TextLine")]
    assert [float(line.find("{*}TextEquiv").attrib["conf"]) for line in lines] == [1, 1, 1]
    for _ in range(3):  # over ALTO and hOCR
        keys.press("Tab")
    with page.expect_download() as listed:
        keys.press("Enter")
    last = json.loads(Path(listed.value.path()).read_text().splitlines()[2])
    assert (last["line"], last["text"], last["recognized"]) == ("l2", f"{read[2]}<i>", read[2])


@pytest.mark.parametrize("settings", [{}, {"has_touch": True, "is_mobile": True, "color_scheme": "dark"}])
def test_nothing_overflows_on_a_phone(
    settings: dict[str, Any], open_page: Callable[..., Any], write_page: Callable[..., Path], tmp_path: Path
) -> None:
    page = open_page(viewport={"width": 400, "height": 800}, locale="zh-CN", **settings)
    assert page.get_attribute("html", "lang") == "zh-CN"
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not page.evaluate(wide)
    xml = write_page(tmp_path, ["7", "3"], stem="a_long_name_" * 12)
    page.set_input_files("#files", [xml, xml.with_suffix(".png")])
    page.wait_for_selector(".line textarea:focus")
    page.keyboard.type("w" * 200)
    page.click("#toggle-draw")
    assert not page.evaluate(wide)
    page.click("polygon >> nth=0", force=True)
    page.click("#language")
    assert page.get_attribute("html", "lang") == "en"
    assert page.inner_text("#choose") in ("", "Choose files")


def test_what_cannot_be_read_is_said(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page()
    (tmp_path / "page.xml").write_text("<PcGts/>")
    page.set_input_files("#files", [tmp_path / "page.xml"])
    page.wait_for_selector(".message")
    assert "page.xml" in page.inner_text(".message")
    assert page.is_visible("#drop")


@pytest.mark.slow
def test_confirmed_lines_are_stored_and_withdrawn(
    browser: Any, write_page: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "corrections.db"
    xml = write_page(tmp_path, ["un", "deux"])
    faults: list[str] = []
    with running("latin-modern", "--corrections", str(path)) as (_, port):
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("console", lambda one: faults.append(one.text) if one.type in ("error", "warning") else None)
        page.goto(f"http://127.0.0.1:{port}/")
        page.click("#open-corrections")
        page.fill("#who", "anna")
        page.click("#corrections .primary")
        page.set_input_files("#files", [xml, xml.with_suffix(".png")])
        page.wait_for_selector(".line textarea:focus")
        for text in ("UN", "DEUX"):
            page.keyboard.press("ControlOrMeta+a")
            page.keyboard.type(text)
            page.keyboard.press("Enter")
        page.locator(".state", has_text="stored").nth(1).wait_for()
        lines = CorrectionStore(path).lines()
        assert [(line.texts, line.rows[0].who, line.rows[0].place) for line in lines] == [
            (("UN",), "anna", "page.xml#l0"), (("DEUX",), "anna", "page.xml#l1")]  # fmt: skip
        page.click(".line textarea >> nth=1")
        page.keyboard.press("Escape")
        page.locator("#open-corrections b", has_text="1").wait_for()
        assert [line.texts for line in CorrectionStore(path).lines()] == [("UN",)]
        page.click("#open-corrections")
        assert "wait for training: 1" in page.inner_text("#collected")
        page.keyboard.press("Escape")
        page.click(".line textarea >> nth=0")
        page.keyboard.type("x")  # the text that was confirmed is withdrawn at once, not when another one is confirmed
        page.locator("#open-corrections b", has_text="0").wait_for()
        assert not CorrectionStore(path).lines()
        page.close()
    assert not faults
