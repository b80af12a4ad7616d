"""A report opens in a browser from disk: no error, no request, no horizontal scrolling, usable by keyboard."""

from pathlib import Path

import pytest

from evidence.test_report import HOSTILE, predicted, reading
from htr_lightning.evidence.page import page, rows
from htr_lightning.transcription import Prediction

sync_api = pytest.importorskip("playwright.sync_api")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    hostile = [Prediction(f"{text} {i}", text, f"{text}x", 0.5, text * 9) for i, text in enumerate(HOSTILE)]
    runs = [reading(hostile + predicted(500), name=HOSTILE[0]), reading(predicted(100, seed=1), "B")]
    runs[0] = runs[0]._replace(lines=runs[0].lines + runs[0].lines[len(hostile) :] * 19)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(runs, {}, rows(runs)), encoding="utf-8")
    return path


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_a_report_of_10_000_hostile_lines_works(
    browser: "sync_api.Browser", report: Path, width: int, scheme: str
) -> None:
    view = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    faults: list[str] = []
    view.on("console", lambda message: faults.append(message.text))
    view.on("pageerror", lambda error: faults.append(str(error)))
    view.on("dialog", lambda dialog: faults.append(dialog.message))
    view.on("request", lambda request: faults.extend([request.url] if request.url != report.as_uri() else []))
    view.goto(report.as_uri())
    cards = view.locator("#sheet article")
    assert cards.count() == 30
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    dark = view.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")

    view.locator("#filter").focus()
    view.keyboard.type(HOSTILE[0])
    assert cards.count() == 1
    assert HOSTILE[0] in cards.first.inner_text()
    view.locator("#filter").fill("")
    view.locator("input[value=all]").focus()
    view.keyboard.press("Space")
    assert "30 of " in view.locator("#count").inner_text()
    view.locator("#more").focus()
    view.keyboard.press("Enter")
    assert cards.count() == 60

    view.locator("#by-group summary").focus()
    view.keyboard.press("Enter")
    heading = view.locator("#by-group th button", has_text="lines").first
    heading.focus()
    view.keyboard.press("Enter")
    assert view.locator("#by-group th[aria-sort=descending]").count() == 1

    edit = view.locator("button.edit").first
    edit.focus()
    view.keyboard.press("Enter")
    assert view.locator("#clear").is_visible()
    assert cards.count() == 30
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    assert faults == []
    view.close()
