"""Pages whose lines are known, drawn as bars that a stand-in for the detector sees."""

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from numpy import ndarray

from htr_lightning.data.page.page import Line
from htr_lightning.reading.segment import page as module

PAPER, INK = 235, 35
THICK = 24  # pixels of a bar, the middle zone of a line


def bar(left: float, right: float, y: float, slope: float = 0.0) -> Line:
    """Return a line whose baseline is the lower edge of a bar."""
    y += THICK / 2
    return Line("", "", [], [(float(left), y), (float(right), y + slope * (right - left))], "")


def draw(lines: Sequence[Line], size: tuple[int, int] = (2000, 1500)) -> ndarray:
    """Return a page with a bar above each baseline, and a thin tick on the upper side of its start."""
    image = np.full(size, PAPER, np.uint8)
    for line in lines:
        (x0, y0), (x1, y1) = line.baseline
        cv2.line(image, (round(x0), round(y0 - THICK / 2)), (round(x1), round(y1 - THICK / 2)), INK, THICK)
        tick = round(x0 + 20), round(y0 - THICK)
        cv2.line(image, tick, (tick[0], tick[1] - THICK), INK, 4)
    return image


@pytest.fixture(autouse=True)
def sees_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a detector that sees bars, but no ticks, in place of the real one."""

    def find_writing(image: ndarray) -> ndarray:
        dark = (image < 70).astype(np.uint8)
        return cv2.morphologyEx(dark, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)).astype(np.float32)

    monkeypatch.setattr(module, "find_writing", find_writing)
    monkeypatch.setattr(module, "detector", lambda: "bars")


def sure(images: Sequence[ndarray]) -> float:
    """Return the fraction of lines whose ticks are on the upper side, of which a recognizer would be surer."""
    rows = [np.nonzero(image < 100)[0] for image in images]
    return float(np.mean([np.median(one) - one.min() > 1.3 * (one.max() - np.median(one)) for one in rows]))
