"""Lines are found on pages whatever their direction, and in reading order."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy import ndarray

from htr_lightning.data.page.baseline import outline
from htr_lightning.data.page.crop import crop_line
from htr_lightning.data.page.page import Line, Page, baseline_angle
from htr_lightning.evidence.segmentation import score_lines
from htr_lightning.reading.segment.page import find_page
from htr_lightning.reading.segment.view import find_sheet, look
from reading.segment.conftest import PAPER, bar, draw, sure

LINES = [bar(300, 1200 - 100 * (n % 3), 300 + 90 * n, 0.01) for n in range(14)]


def found(image: ndarray, reference: Sequence[Line]) -> Page:
    """Return the page in an image, on which exactly the reference lines are found, in this order."""
    page = find_page(Path("a/page.jpg"), image, sure)
    assert page is not None
    assert score_lines(reference, page.lines) == (len(reference), len(reference), len(reference))
    for line, other in zip(page.lines, reference, strict=True):
        assert score_lines([other], [line]).matched == 1, (line, other)
    return page


def moved(image: ndarray, lines: Sequence[Line], how: ndarray, size: tuple[int, int]) -> tuple[ndarray, list[Line]]:
    """Move an image and its lines by a homography."""
    picture = cv2.warpPerspective(image, how, size, flags=cv2.INTER_AREA, borderValue=PAPER)
    points = [cv2.perspectiveTransform(np.array([line.baseline], np.float64), how)[0].tolist() for line in lines]
    return picture, [line._replace(baseline=[tuple(p) for p in some]) for line, some in zip(lines, points, strict=True)]


def test_lines_are_found_with_baselines_and_outlines_that_contain_them() -> None:
    image = draw(LINES)
    page = found(image, LINES)
    assert (page.image, page.width, page.height) == ("page.jpg", 1500, 2000)
    assert [line.id for line in page.lines] == [f"line_{n}" for n in range(1, 15)]
    assert {line.region for line in page.lines} == {"region_1"}
    assert not [one for one in outline(page) if one.fault or one.repaired]  # as lines of a file that is in order
    for line, reference in zip(page.lines, LINES, strict=True):
        assert np.abs(np.subtract(line.baseline[0], reference.baseline[0])).max() < 40
        crop = crop_line(image, line, rotate="reading")
        assert (crop < 140).sum() == pytest.approx(24 * np.ptp([x for x, _ in reference.baseline]), rel=0.1)


@pytest.mark.parametrize("angle", [90, 180, 270, 25, -40])
def test_a_turned_page_is_read_as_when_it_is_upright(angle: int) -> None:
    height, width = 2000, 1500
    how = np.vstack([cv2.getRotationMatrix2D((width / 2, height / 2), -angle, 0.8), (0, 0, 1)])
    how[:2, 2] += 500, 300
    image, lines = moved(draw(LINES), LINES, how, (2500, 2500))
    page = found(image, lines)
    for line in page.lines:
        assert (baseline_angle(line.baseline) - angle + 180) % 360 == pytest.approx(180, abs=3)
    assert sure([crop_line(image, line, rotate="reading") for line in page.lines]) == 1


def test_a_sheet_on_a_table_is_cut_out_and_straightened() -> None:
    rng = np.random.default_rng(0)
    image, lines = draw(LINES), LINES
    corners = np.array([(0, 0), (1500, 0), (1500, 2000), (0, 2000)], np.float32)
    there = np.array([(700, 300), (2300, 500), (2100, 2500), (400, 2200)], np.float32)
    how = cv2.getPerspectiveTransform(corners, there)
    texture = cv2.GaussianBlur(rng.normal(0, 1, (350, 375)).astype(np.float32), (0, 0), 2)
    table = (105 + 60 * cv2.resize(texture, (3000, 2800))).clip(80, 130).astype(np.uint8)
    photo, lines = moved(image, LINES, how, (3000, 2800))
    inside = cv2.fillPoly(np.zeros((2800, 3000), np.uint8), [there.astype(np.int32)], 1)
    photo = np.where(inside, photo, table)
    corners_found = find_sheet(photo)
    assert corners_found is not None
    assert np.abs(corners_found - there).max() < 150  # with a margin
    view = look(photo, 960, corners_found)
    back = cv2.perspectiveTransform(np.array([[*map(tuple, corners_found)]]), np.linalg.inv(view.to_page))[0]
    assert np.abs(back[0]).max() < 20  # the corners of the sheet are those of the view
    found(photo, lines)
    assert find_sheet(image) is None


def test_columns_are_read_one_after_the_other_below_what_spans_them() -> None:
    title, end = bar(200, 1300, 150), bar(200, 1300, 1700)
    columns = [[bar(left, left + 500, 300 + 90 * n) for n in range(12)] for left in (150, 800)]
    page = found(draw([title, *columns[0], *columns[1], end]), [title, *columns[0], *columns[1], end])
    regions = [line.region for line in page.lines]
    assert len(set(regions[1:13])) == len(set(regions[13:25])) == 1
    assert regions[1] != regions[13]


def test_writing_in_the_margin_is_turned_apart_from_the_page() -> None:
    image, note = draw(LINES), [bar(250, 900, 75), bar(250, 1100, 150)]
    margin = draw(note, (240, 1500))
    both = np.concatenate([np.rot90(margin, 1), image[:1500]], axis=1)  # read upwards, on the left of the page
    lines = [
        *(one._replace(baseline=[(y, 1500 - x) for x, y in one.baseline]) for one in note),
        *(one._replace(baseline=[(x + 240, y) for x, y in one.baseline]) for one in LINES),
    ]
    page = find_page(Path("page.jpg"), np.ascontiguousarray(both), sure)
    assert page is not None
    assert score_lines(lines, page.lines) == (16, 16, 16)


def test_light_writing_on_dark_paper_is_found() -> None:
    found(255 - draw(LINES), LINES)


def test_a_line_is_no_page_unless_it_is_said_to_be_one() -> None:
    for lines, size in (([bar(100, 1400, 300)], (600, 1500)), ([bar(100, 900, 80)], (120, 1000)), ([], (1000, 1000))):
        image = draw(lines, size)
        assert find_page(Path("line.png"), image, pages=None) is None
        assert find_page(Path("line.png"), image, pages=False) is None
        page = find_page(Path("line.png"), image, pages=True)
        assert page is not None
        assert len(page.lines) == len(lines)
    three = draw([bar(100, 1400, y) for y in (200, 350, 500)], (700, 1500))
    assert find_page(Path("page.png"), three, pages=None) is not None
    assert find_page(Path("page.png"), three, pages=False) is None


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (31, 33), (9000, 7200)])
def test_any_size_takes_little(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    from htr_lightning.reading.segment import page as module

    seen, before = [], module.find_writing
    monkeypatch.setattr(module, "find_writing", lambda image: seen.append(image.shape) or before(image))
    assert find_page(Path("x.png"), np.full(size, PAPER, np.uint8)) is not None
    for shape in seen:
        assert max(shape) <= 1920 + 32
        assert all(side % 32 == 0 for side in shape)
