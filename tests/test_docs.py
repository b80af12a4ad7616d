"""The documentation is built without a broken link or reference, and its pages load nothing from elsewhere."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_site_is_whole_and_stays_offline(tmp_path: Path) -> None:
    options = ["--nitpicky", "--fail-on-warning", "--keep-going", "--quiet"]  # as in the Makefile
    build = [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(tmp_path)]
    done = subprocess.run(build, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "reference" / "htr_lightning.net.html").is_file()
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium is installed")
    faults: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 400, "height": 800})
        view.on("console", lambda message: faults.append(message.text))
        view.on("pageerror", lambda error: faults.append(str(error)))
        view.on("request", lambda request: faults.extend([request.url] * (not request.url.startswith("file:"))))
        for name in ("index", "data", "new-model", "paper", "results", "reference/htr_lightning.net", "zh/first-steps"):
            view.goto((tmp_path / f"{name}.html").as_uri())
            assert view.evaluate("document.documentElement.scrollWidth") <= 400, name
        view.goto((tmp_path / "search.html").as_uri() + "?q=alphabet")
        view.locator("#search-results li").first.wait_for()
        browser.close()
    assert faults == []
