"""Polygons made from baselines, and the direction in which a line is read."""

import math
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from htr_lightning.data.page.baseline import ABOVE, BELOW, line_distance, outline, reading_angle
from htr_lightning.data.page.page import Line, Page, Points


def line(text: str = "abc", polygon: Points = (), baseline: Points = ()) -> Line:
    corners, base = ([(float(x), float(y)) for x, y in points] for points in (polygon, baseline))
    return Line("l", text, corners, base, "r")


def box(left: float, top: float, right: float, bottom: float) -> Points:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def page(*lines: Line, width: int = 1000, height: int = 1000) -> Page:
    return Page(Path("p.xml"), "p.png", width, height, list(lines))


def turned(points: Points, degrees: float, about: tuple[float, float] = (500, 500)) -> Points:
    """Rotate points clockwise, as seen on the page."""
    c, s, (mx, my) = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), about
    return [(mx + c * (x - mx) - s * (y - my), my + s * (x - mx) + c * (y - my)) for x, y in points]


ROWS = [100, 150, 200, 260]  # distances 50, 50, 60: the nearest of each is 50, 50, 50, 60


def test_a_baseline_alone_gets_the_polygon_of_the_documented_rule() -> None:
    found = outline(page(*(line(baseline=[(100, y), (500, y)]) for y in ROWS)))
    for y, (made, repaired, fault, _) in zip(ROWS, found, strict=True):
        top, bottom = y - ABOVE * 50, y + BELOW * 50
        assert made.polygon == [(100, top), (500, top), (500, bottom), (100, bottom)]
        assert repaired == "polygon created from the baseline"
        assert not fault


def test_a_bent_baseline_gives_a_bent_polygon() -> None:
    bent = [(100, 100), (300, 120), (500, 100)]
    made = outline(page(line(baseline=bent), line(baseline=[(100, 150), (500, 150)])))[0].line
    assert made.polygon == [(x, y - ABOVE * 50) for x, y in bent] + [(x, y + BELOW * 50) for x, y in reversed(bent)]


@given(st.floats(-44, 44), st.floats(0.3, 3))
def test_polygons_rotate_and_scale_with_the_page(degrees: float, scale: float) -> None:
    def moved(points: Points) -> Points:
        return [(scale * x, scale * y) for x, y in turned(points, degrees)]

    plain = [line(baseline=[(300, y), (700, y)]) for y in (400, 450, 500)]
    there = [each._replace(baseline=moved(each.baseline)) for each in plain]
    size = {"width": 0, "height": 0}
    for ours, theirs in zip(outline(page(*there, **size)), outline(page(*plain, **size)), strict=True):
        for our, their in zip(ours.line.polygon, moved(theirs.line.polygon), strict=True):
            assert our == pytest.approx(their, abs=1e-6)


def test_the_line_distance_is_that_of_parallel_neighbours_not_of_other_columns() -> None:
    left = [line(baseline=[(0, y), (300, y)]) for y in (100, 160, 220)]
    right = [line(baseline=[(400, y + 20), (700, y + 20)]) for y in (100, 160, 220)]
    pieces = [line(baseline=[(301, 101), (390, 101)])]  # continues the first line
    margin = [line(baseline=[(350, 100), (350, 300)])]
    assert line_distance([*left, *right, *pieces, *margin]) == 60


def test_the_line_distance_falls_back_on_polygons_and_then_on_nothing() -> None:
    assert line_distance([line(polygon=box(0, 0, 400, 40)), line(polygon=box(0, 60, 400, 80))]) == pytest.approx(
        (400 * 40 / math.hypot(400, 40) + 400 * 20 / math.hypot(400, 20)) / 2
    )
    assert line_distance([line()]) == 0
    alone = outline(page(line(baseline=[(100, 500), (500, 500)])))[0].line
    assert alone.polygon == box(100, 500 - 28, 500, 500 + 12)  # a tenth of the length


def test_a_sliver_is_widened_and_a_narrow_line_kept() -> None:
    rest = [line(polygon=box(100, y - 35, 500, y + 15), baseline=[(100, y), (500, y)]) for y in ROWS]
    narrow = box(100, 290, 500, 301)  # 11 of 50: more than a fifth
    thin = box(100, 298, 500, 302)
    kept = outline(page(*rest, line(polygon=narrow, baseline=[(100, 310), (500, 310)])))
    assert [each.repaired for each in kept] == [""] * 5
    assert kept[-1].line.polygon == narrow
    widened = outline(page(*rest, line(polygon=thin, baseline=[(100, 310), (500, 310)])))[-1]
    assert widened.repaired == "polygon too thin, replaced using the baseline"
    assert widened.line.polygon == box(100, 310 - 35, 500, 310 + 15)


def scaled(points: Points, factor: float) -> Points:
    return [(factor * x, factor * y) for x, y in points]


def in_two_scales(polygons: float = 1, baselines: float = 1, size: int = 1000) -> Page:
    lines = []
    for y in (40, 150, 260, 370):
        polygon, baseline = box(50, max(0, y - 40), 900, y + 20), [(50, y), (900, y)]
        lines.append(line(polygon=scaled(polygon, polygons), baseline=scaled(baseline, baselines)))
    return page(*lines, width=size, height=size)


def test_of_two_scales_the_one_that_fits_on_the_page_is_taken() -> None:
    plain = outline(in_two_scales())
    assert not any(each.repaired or each.fault for each in plain)
    found = outline(in_two_scales(baselines=3))
    assert [each.line.polygon for each in found] == [each.line.polygon for each in plain]
    assert {each.repaired for each in found} == {"baseline not in page coordinates, ignored"}
    assert {reading_angle(each.line) for each in found} == {0.0}
    found = outline(in_two_scales(polygons=3))
    assert {each.repaired for each in found} == {"polygon not in page coordinates, replaced using the baseline"}
    for (made, _, fault, _), (there, *_) in zip(found, plain, strict=True):
        assert not fault
        assert made.baseline == there.baseline
        assert min(y for _, y in made.polygon) < there.baseline[0][1] < max(y for _, y in made.polygon)


@pytest.mark.parametrize(("polygons", "baselines", "size"), [(0.25, 1, 1000), (1, 0.25, 1000), (3, 1, 0)])
def test_where_both_scales_fit_the_page_the_lines_are_refused(polygons: float, baselines: float, size: int) -> None:
    found = outline(in_two_scales(polygons, baselines, size))
    assert {each.fault for each in found} == {"polygon and baseline do not overlap"}


@given(
    polygon=st.tuples(st.floats(0, 800), st.floats(20, 800)),
    start=st.floats(0, 1),
    part=st.floats(0.02, 1),
    longer=st.sampled_from(["polygon", "baseline"]),
    degrees=st.floats(-180, 180),
    bend=st.floats(0, 15),
)
def test_a_polygon_and_a_baseline_of_which_one_is_longer_overlap(
    polygon: tuple[float, float], start: float, part: float, longer: str, degrees: float, bend: float
) -> None:
    left, length = polygon
    first = left + start * (1 - part) * length
    long, short = (left, left + length), (first, first + max(part * length, 2))
    (left, right), (start_x, end_x) = (long, short) if longer == "polygon" else (short, long)
    lines = []
    for y in range(100, 700, 60):
        base = [(start_x, y), ((start_x + end_x) / 2, y + bend), (end_x, y)]
        lines.append(line(polygon=turned(box(left, y - 40, right, y + 15), degrees), baseline=turned(base, degrees)))
    assert {each.fault for each in outline(page(*lines, width=0, height=0))} == {""}


@given(
    shift=st.tuples(st.floats(-1, 1), st.floats(-90, 70)),
    size=st.tuples(st.floats(50, 900), st.floats(50, 900)),
    degrees=st.floats(-180, 180),
)
@settings(max_examples=200)
def test_a_polygon_and_a_baseline_overlap_unless_they_are_apart_on_paper(
    shift: tuple[float, float], size: tuple[float, float], degrees: float
) -> None:
    """Count the pixels along the shorter one that are next to the other one, on a page of its own scale.

    A baseline that is too far away is ignored if it is closer than the polygon is thick; otherwise, one of the two
    belongs to another line.
    """
    (offset, y), (width, length) = shift, size
    x = offset * length if offset < 0 else offset * width
    polygon, baseline = box(0, -35, width, 15), [(x, y), (x + length, y)]
    rows = range(0, 450, 50)
    rest = [line(polygon=box(5000, y - 35, 5900, y + 15), baseline=[(5000, y), (5900, y)]) for y in rows]
    shorter = min(width, length)
    across = max(-35 - y, y - 15, 0)

    def near(margin: float) -> bool:
        assume(abs(beside(margin) - 0.5) > 0.05 and abs(across - margin) > 1)  # within a pixel of the limit
        return beside(margin) > 0.5 and across < margin

    def beside(margin: float) -> float:
        return sum(max(-margin, x) <= x0 <= min(width + margin, x + length) for x0 in range(-1000, 2000)) / shorter

    moved = line(polygon=turned(polygon, degrees), baseline=turned(baseline, degrees))
    found = outline(page(moved, *rest, width=0, height=0))[0]
    ignored = not near(25)  # half of the line distance, and of the thickness
    assert found.fault == ("" if near(50) else "polygon and baseline do not overlap")
    assert found.repaired == ("baseline outside the polygon, ignored" if ignored and near(50) else "")


def test_one_baseline_that_strayed_is_one_fault() -> None:
    rest = [line(polygon=box(100, y - 35, 500, y + 15), baseline=[(100, y), (500, y)]) for y in ROWS]
    found = outline(page(*rest, line(polygon=box(100, 700, 500, 750), baseline=[(100, 900), (500, 900)])))
    assert [each.fault for each in found] == [""] * 4 + ["polygon and baseline do not overlap"]


@pytest.mark.parametrize(
    ("polygon", "fault"),
    [
        ([], "line without a polygon or box"),
        ([(1, 1), (50, 50)], "polygon with 2 points"),
        (box(1100, 10, 1200, 40), "polygon outside the page"),
    ],
)
@pytest.mark.parametrize("baseline", [[], [(7, 7)], [(7, 7), (7, 7)]])
def test_without_a_usable_baseline_the_fault_of_the_polygon_is_reported(
    polygon: Points, fault: str, baseline: Points
) -> None:
    assert [each.fault for each in outline(page(line(polygon=polygon, baseline=baseline)))] == [fault]


def test_a_page_without_lines_has_no_outlines() -> None:
    assert outline(page()) == []


LEVEL = [(100, 500), (500, 500)]


@pytest.mark.parametrize("degrees", [-180, -135, -90, -60, -45, -10, 0, 10, 45, 60, 90, 135, 179])
def test_a_latin_line_is_read_along_its_baseline(degrees: float) -> None:
    angle = reading_angle(line("abc", baseline=turned(LEVEL, degrees)))
    assert (angle - degrees + 180) % 360 == pytest.approx(180)


@pytest.mark.parametrize("degrees", [60, 90, 120, -60, -90, -120])
def test_a_column_of_chinese_is_read_downwards_however_its_baseline_was_drawn(degrees: float) -> None:
    angle = reading_angle(line("春秋曰潛行逆流", baseline=turned(LEVEL, degrees)))
    assert 45 <= angle <= 135
    assert (angle - degrees + 90) % 180 == pytest.approx(90)


def test_a_horizontal_line_of_chinese_is_read_to_the_right() -> None:
    assert reading_angle(line("春秋曰潛行逆流", baseline=LEVEL)) == 0


def test_a_tall_box_of_chinese_is_a_column() -> None:
    tall, wide = box(0, 0, 40, 300), box(0, 0, 300, 40)
    assert reading_angle(line("春秋曰", polygon=tall)) == 90
    assert reading_angle(line("春秋曰", polygon=wide)) == 0
    assert reading_angle(line("abc", polygon=tall)) == 0


@pytest.mark.parametrize("text", ["رعاية و اخواتها", "שלום עולם"])
def test_a_line_of_a_right_to_left_script_is_not_upside_down_because_its_baseline_was_drawn_so(text: str) -> None:
    assert reading_angle(line(text, baseline=LEVEL)) == 0
    assert reading_angle(line(text, baseline=LEVEL[::-1])) == 0
    assert reading_angle(line(text, baseline=turned(LEVEL, 170))) == pytest.approx(-10)
    assert abs(reading_angle(line("abc", baseline=LEVEL[::-1]))) == 180


def test_where_there_are_no_letters_the_direction_in_the_file_counts() -> None:
    back = line("", baseline=turned(LEVEL, 175))._replace(direction="right-to-left")
    assert reading_angle(back) == pytest.approx(-5)
    assert reading_angle(back._replace(text="123 -")) == pytest.approx(-5)
    assert reading_angle(back._replace(text="abc")) == pytest.approx(175)
    assert reading_angle(back._replace(direction="")) == pytest.approx(175)
    column = line("", polygon=box(0, 0, 40, 300))._replace(direction="top-to-bottom")
    assert reading_angle(column) == 90
    assert reading_angle(column._replace(text="abc")) == 0
    assert reading_angle(column._replace(baseline=[(20.0, 300.0), (20.0, 0.0)])) == 90


@pytest.mark.parametrize("text", ["abc", "", "春秋曰潛行逆流", "رعاية و اخواتها"])
@pytest.mark.parametrize("quarters", [-90, 90, 180])
@pytest.mark.parametrize("baseline", [[], LEVEL, LEVEL[::-1], turned(LEVEL, 80), turned(LEVEL, -90), [(9, 9), (9, 12)]])
@pytest.mark.parametrize("polygon", [box(100, 450, 500, 520), box(100, 0, 170, 400)])
def test_a_line_is_read_as_on_the_page_that_its_orientation_turns_upright(
    text: str, quarters: int, baseline: Points, polygon: Points
) -> None:
    upright = line(text, polygon, baseline)
    lying = line(text, turned(polygon, -quarters), turned(baseline, -quarters))._replace(orientation=float(quarters))
    difference = reading_angle(lying) - (reading_angle(upright) - quarters)
    assert (difference + 180) % 360 == pytest.approx(180)


def test_an_orientation_that_contradicts_the_baseline_is_ignored_and_reported() -> None:
    rest = line(polygon=box(100, 465, 500, 515), baseline=LEVEL)
    for text, orientation, ignored in [
        *(("abc", 90, True), ("abc", 180, True), ("abc", -100, True), ("abc", 40, False), ("abc", 0, False)),
        # columns of Chinese, and baselines that run either way
        *(("春秋曰潛", 90, False), ("رعاية", 180, False), ("رعاية", 90, True)),
    ]:
        given = rest._replace(text=text, orientation=float(orientation))
        found = outline(page(given, rest))
        assert found[0].repaired == ("orientation contradicts the baseline, ignored" if ignored else "")
        assert found[0].line == given._replace(orientation=0.0 if ignored else float(orientation))
        assert found[1] == (rest, "", "", "")
    along = line(polygon=box(250, 300, 310, 700), baseline=turned(LEVEL, -90, (300, 500)))._replace(orientation=90.0)
    assert outline(page(along))[0] == (along, "", "", "")
    skewed = along._replace(orientation=20.0)
    assert outline(page(skewed))[0] == (skewed, "", "", "")
    without = rest._replace(baseline=[], orientation=90.0)
    assert outline(page(without))[0] == (without, "", "", "")


def test_upside_down_lines_that_the_orientation_announces_are_not_reversed() -> None:
    back = [line(polygon=box(100, y - 2, 500, y + 4), baseline=[(500, y), (100, y)]) for y in ROWS]
    found = outline(page(*(each._replace(orientation=180.0) for each in back)))
    assert {each.repaired for each in found} == {"polygon too thin, replaced using the baseline"}
    assert {abs(reading_angle(each.line)) for each in found} == {180.0}


def test_a_baseline_shorter_than_its_line_is_thick_gives_no_direction() -> None:
    assert reading_angle(line("abc", polygon=box(100, 100, 500, 150), baseline=[(300, 110), (300, 140)])) == 0


def test_baselines_from_right_to_left_with_slivers_were_drawn_in_the_wrong_direction() -> None:
    back = [line(polygon=box(100, y - 2, 500, y + 4), baseline=[(500, y), (100, y)]) for y in ROWS]
    found = outline(page(*back))
    assert {each.repaired for each in found} == {"baseline reversed"}
    assert {reading_angle(each.line) for each in found} == {0.0}
    assert found[0].line.polygon == box(100, 100 - 35, 500, 100 + 15)
    true = [line(polygon=box(100, y - 15, 500, y + 35), baseline=[(500, y), (100, y)]) for y in ROWS]
    found = outline(page(*true))
    assert {each.repaired for each in found} == {""}
    assert {abs(reading_angle(each.line)) for each in found} == {180.0}


def test_the_polygon_of_a_column_of_chinese_lies_on_both_sides_of_its_baseline() -> None:
    columns = [line("春秋曰潛", baseline=[(x, 100), (x, 500)]) for x in (100, 150, 200)]
    xs = [x for x, _ in outline(page(*columns))[1].line.polygon]
    assert (min(xs), max(xs)) == pytest.approx((125, 175))
