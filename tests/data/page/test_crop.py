"""Lines are cropped out of pages and rotated."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from htr_lightning.data.page.baseline import outline
from htr_lightning.data.page.crop import ROTATE, crop_line, crop_polygon
from htr_lightning.data.page.document import read_page
from htr_lightning.data.page.page import Points


def test_what_lies_outside_the_polygon_is_painted_as_paper() -> None:
    page = np.full((100, 200), 220, np.uint8)
    page[20:30, 60:70] = 10  # ink of an adjacent line in the bounding box
    page[50:55, 90:110] = 40  # ink of the line
    triangle = [(40.0, 60.0), (160.0, 60.0), (160.0, 10.0)]
    crop = crop_polygon(page, triangle)
    assert crop.shape == (50, 120)
    assert crop.min() == 40
    assert (crop == 40).sum() == 5 * 20
    np.testing.assert_array_equal(page[20:30, 60:70], 10)  # the page is not modified


def test_a_box_is_cropped_as_it_is() -> None:
    page = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)
    box = [(10.0, 5.0), (50.0, 5.0), (50.0, 25.0), (10.0, 25.0)]
    np.testing.assert_array_equal(crop_polygon(page, box), page[5:25, 10:50])


def test_a_box_over_the_edge_is_clipped_to_the_page() -> None:
    page = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)
    box = [(-10.0, -5.0), (500.0, -5.0), (500.0, 25.0), (-10.0, 25.0)]
    np.testing.assert_array_equal(crop_polygon(page, box), page[:25])


def test_a_slanted_edge_over_the_page_keeps_its_slant() -> None:
    page = np.full((120, 120), 220, np.uint8)
    page[60:64, 40:44] = 10  # inside the triangle, whose lower edge runs through (0, 50) and (50, 75)
    crop = crop_polygon(page, [(-100.0, 0.0), (100.0, 0.0), (100.0, 100.0)])
    assert (crop == 10).sum() == 16


@pytest.mark.parametrize("angle", [-30.0, -8.0, 3.0, 8.0, 30.0])
def test_a_sloping_line_is_deskewed(angle: float) -> None:
    page = np.full((400, 400), 230, np.uint8)
    slope = float(np.tan(np.radians(angle)))
    left, right = (60.0, 200 - 140 * slope), (340.0, 200 + 140 * slope)
    cv2.line(page, tuple(map(round, left)), tuple(map(round, right)), 0, 5, cv2.LINE_AA)
    polygon = [(x, y + dy) for (x, y), dy in [(left, -25), (right, -25), (right, 25), (left, 25)]]
    crop = crop_polygon(page, polygon, angle)
    columns = np.flatnonzero((crop < 120).any(0))
    middles = np.array([np.flatnonzero(crop[:, column] < 120).mean() for column in columns])
    assert len(columns) > 0.9 * 280 / np.cos(np.radians(angle)) * 0.95
    assert np.ptp(middles[10:-10]) <= 2


BOX = [(10.0, 5.0), (50.0, 5.0), (50.0, 25.0), (10.0, 25.0)]


@pytest.mark.parametrize("angle", [-180, -90, 90, 180, 270])
def test_quarter_turns_only_move_pixels(angle: int) -> None:
    page = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)
    np.testing.assert_array_equal(crop_polygon(page, BOX, float(angle)), np.rot90(page[5:25, 10:50], angle // 90))


@pytest.mark.parametrize("angle", [-170.0, -120.0, -95.0, -60.0, 50.0, 80.0, 100.0, 130.0, 175.0])
def test_a_line_of_any_direction_is_rotated_to_read_from_left_to_right(angle: float) -> None:
    page = np.full((600, 600), 230, np.uint8)
    along = np.array((np.cos(np.radians(angle)), np.sin(np.radians(angle))))
    up = np.array((along[1], -along[0]))
    start, end = 300 - 150 * along, 300 + 150 * along
    cv2.line(page, tuple(map(round, start)), tuple(map(round, end)), 0, 5, cv2.LINE_AA)
    dot = start + 20 * along + 25 * up  # above the beginning
    cv2.circle(page, tuple(map(round, dot)), 5, 0, -1, cv2.LINE_AA)
    corners = [start - 15 * up, start + 40 * up, end + 40 * up, end - 15 * up]
    crop = crop_polygon(page, [(float(x), float(y)) for x, y in corners], angle)
    ys, xs = np.nonzero(crop < 120)
    assert np.ptp(xs) == pytest.approx(300, abs=8)
    above = ys < np.median(ys) - 10
    assert 30 < above.sum() < 120
    assert xs[above].mean() == pytest.approx(xs.min() + 20, abs=5)


def test_a_steep_line_takes_the_same_pixels_as_on_a_page_that_lies_on_its_side() -> None:
    page = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (300, 400), dtype=np.uint8), (0, 0), 3)
    corners = [(180.0, 30.0), (220.0, 40.0), (200.0, 280.0), (160.0, 270.0)]
    lying = [(y, 400 - x) for x, y in corners]
    ours = crop_polygon(page, corners, 95.0).astype(int)
    theirs = crop_polygon(np.ascontiguousarray(np.rot90(page)), lying, 5.0).astype(int)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 2


@pytest.mark.parametrize("angle", [0.0, 5.0, -40.0])
@pytest.mark.parametrize("place", [(-300.0, 20.0), (20.0, -300.0), (900.0, 20.0), (20.0, 900.0)])
def test_a_polygon_off_the_page_is_refused(angle: float, place: tuple[float, float]) -> None:
    x, y = place
    with pytest.raises(ValueError, match="page"):
        crop_polygon(np.zeros((100, 100), np.uint8), [(x, y), (x + 60, y), (x + 60, y + 30), (x, y + 30)], angle)


@pytest.mark.parametrize("angle", [0.0, 5.0, 30.0])
def test_a_polygon_far_over_the_edge_takes_no_more_than_the_page(angle: float) -> None:
    page = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)
    crop = crop_polygon(page, [(10.0, 10.0), (9e6, 10.0), (9e6, 8e6), (10.0, 8e6)], angle)
    assert np.hypot(*crop.shape) <= 2 * np.hypot(*page.shape)


@pytest.mark.parametrize("angle", [0.0, 5.0])
@pytest.mark.parametrize("polygon", [[], [(1.0, 1.0)], [(1.0, 1.0), (50.0, 30.0)]])
def test_fewer_than_three_corners_are_refused(polygon: list[tuple[float, float]], angle: float) -> None:
    with pytest.raises(ValueError, match=f"expected a polygon with at least 3 points, got {len(polygon)}"):
        crop_polygon(np.zeros((100, 100), np.uint8), polygon, angle)


WIDTH, HEIGHT = 420, 300
LINES = {  # text, polygon and baseline on the upright page
    "level": ("abc", [(20, 20), (400, 20), (400, 60), (20, 60)], [(20, 50), (400, 50)]),
    "sloping": ("abc", [(20, 90), (390, 120), (390, 165), (20, 130)], [(20, 120), (390, 152)]),
    "a column": ("春秋曰", [(30, 160), (70, 160), (70, 290), (30, 290)], [(50, 160), (50, 290)]),
    "drawn backwards": ("رعاية", [(200, 180), (400, 180), (400, 220), (200, 220)], [(400, 212), (200, 212)]),
    "upside down": ("abc", [(200, 240), (400, 240), (400, 280), (200, 280)], [(400, 252), (200, 252)]),
}


def turn(points: Points, quarters: int) -> Points:
    """Turn points with their page counter-clockwise, as `np.rot90` turns its pixels."""
    width, height = WIDTH, HEIGHT
    for _ in range(quarters % 4):
        points, width, height = [(y, width - x) for x, y in points], height, width
    return points


def written(points: Points) -> str:
    return " ".join(f"{x},{y}" for x, y in points)


def as_page(lines: list[tuple[str, Points, Points]], region: str, page: str, line: str) -> str:
    inner = "".join(
        f'<TextLine id="l{n}" {line}><Coords points="{written(polygon)}"/><Baseline points="{written(baseline)}"/>'
        f"<TextEquiv><Unicode>{text}</Unicode></TextEquiv></TextLine>"
        for n, (text, polygon, baseline) in enumerate(lines)
    )
    return f'<PcGts><Page {page}><TextRegion id="r" {region}>{inner}</TextRegion></Page></PcGts>'


def as_alto(lines: list[tuple[str, Points, Points]], block: str, page: str) -> str:
    inner = "".join(
        f'<TextLine ID="l{n}" BASELINE="{written(baseline)}"><Shape><Polygon POINTS="{written(polygon)}"/></Shape>'
        f'<String CONTENT="{text}"/></TextLine>'
        for n, (text, polygon, baseline) in enumerate(lines)
    )
    return f'<alto><Layout><Page {page}><TextBlock ID="b" {block}>{inner}</TextBlock></Page></Layout></alto>'


def crops(path: Path, xml: str, image: np.ndarray, rotate: str) -> list[np.ndarray]:
    path.write_text(xml, encoding="utf-8")
    return [crop_line(image, each.line, rotate) for each in outline(read_page(path)) if not each.fault]


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
@pytest.mark.parametrize("rotate", ROTATE)
@pytest.mark.parametrize("baselines", [True, False])
def test_a_turned_page_gives_the_crops_of_the_upright_page(
    tmp_path: Path, quarters: int, rotate: str, baselines: bool
) -> None:
    upright = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    kinds = [kind for kind in LINES if kind != "upside down" or rotate == "reading"]  # "deskew" never turns it
    lines = [(text, polygon, baseline if baselines else []) for text, polygon, baseline in map(LINES.get, kinds)]
    expected = crops(tmp_path / "p.xml", as_page(lines, "", "", ""), upright, rotate)
    assert len(expected) == len(lines)
    image = np.ascontiguousarray(np.rot90(upright, quarters))
    lying = [(text, turn(polygon, quarters), turn(baseline, quarters)) for text, polygon, baseline in lines]
    angle = {0: 0, 1: 90, 2: 180, 3: -90}[quarters]
    given = f'orientation="{angle}"'
    for xml in (
        as_page(lying, given, "", ""),
        as_page(lying, "", given, ""),
        as_page(lying, given, 'orientation="45"', ""),
        as_page(lying, f'readingOrientation="{angle - 30}"', 'orientation="30"', ""),
        as_page(lying, f'orientation="{angle + 20}"', "", 'orientation="-20"'),
        as_alto(lying, f'ROTATION="{angle}"', ""),
        as_alto(lying, "", f'ROTATION="{angle + 360}"'),
        as_alto(lying, f'ROTATION="{angle}"', 'ROTATION="45"'),
    ):
        found = crops(tmp_path / "p.xml", xml, image, rotate)
        for kind, ours, theirs in zip(kinds, found, expected, strict=True):
            assert ours.shape == theirs.shape
            rounding = 1 if kind == "sloping" and baselines else 0  # only slopes are interpolated
            assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= rounding, kind


@pytest.mark.parametrize("rotate", ROTATE)
def test_the_skew_of_a_region_without_baselines_is_removed(tmp_path: Path, rotate: str) -> None:
    image = np.full((400, 400), 230, np.uint8)
    cv2.line(image, (60, 170), (340, 230), 0, 5, cv2.LINE_AA)
    lines = [("abc", [(60, 140), (340, 200), (340, 260), (60, 200)], [])]
    skew = -np.degrees(np.arctan2(60, 280))
    (crop,) = crops(tmp_path / "p.xml", as_page(lines, f'orientation="{skew}"', "", ""), image, rotate)
    assert np.flatnonzero((crop < 120).any(1)).size <= 9
    assert np.flatnonzero((crop < 120).any(0)).size > 280


@pytest.mark.parametrize("rotate", ROTATE)
@pytest.mark.parametrize("angle", ["90", "180", "-90", "0", "nan", "left"])
def test_a_baseline_outweighs_an_orientation_that_contradicts_it(tmp_path: Path, rotate: str, angle: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    lines = [LINES["level"], LINES["sloping"]]
    expected = crops(tmp_path / "p.xml", as_page(lines, "", "", ""), image, rotate)
    found = crops(tmp_path / "p.xml", as_page(lines, f'orientation="{angle}"', "", ""), image, rotate)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
