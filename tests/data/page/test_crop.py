"""Lines are cropped out of pages and rotated."""

import cv2
import numpy as np
import pytest

from htr_lightning.data.page.crop import crop_polygon


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
