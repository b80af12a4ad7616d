"""Determine the polygon and the reading direction of a line, using baselines to repair polygons where necessary."""

import math
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from htr_lightning.data.page.page import Line, Page, Points, baseline_angle, page_box
from htr_lightning.data.page.xml import short

ABOVE, BELOW = 0.7, 0.3  # extent of a polygon from its baseline, in line distances; vertical columns extend by 0.5
SLIVER = 0.2  # thickness in line distances below which a polygon is too thin to contain a line
MAX_PAIRS = 1_000_000  # approximate maximum number of baseline pairs to compare; pages with more are subsampled
MIN_INSIDE = 0.95  # fraction of points that must lie on the page
TALL = 1.5  # height-to-width ratio above which a box is a vertical column, as in PaddleOCR


class Outline(NamedTuple):
    """A line that is ready to be cropped, or the reason why it cannot be cropped."""

    line: Line
    repaired: str = ""  # how the polygon, baseline or orientation differs from the one in the file
    fault: str = ""  # why the line cannot be cropped
    detail: str = ""  # the value that is at fault


def outline(page: Page) -> list[Outline]:
    """Return the lines of a page, repairing their polygons where necessary.

    If a polygon is missing, invalid, or thinner than a fifth of the line distance, it is replaced by the area from 0.7
    line distances above the baseline to 0.3 line distances below it (see `line_distance`). If most baselines on a page
    lie apart from their polygons, baselines and polygons are assumed to use different scales, and those that fit on the
    page are kept. If most baselines that run from right to left have polygons that are too thin, these baselines are
    assumed to have been drawn in the wrong direction and are reversed; otherwise, their lines are assumed to be upside
    down. Invalid baselines are ignored, as are orientations that contradict the baseline. On a page of a single scale,
    a polygon or baseline is also invalid if it extends beyond the page by more than half of the size of the page.
    """
    lines = [line._replace(orientation=0.0) if _contradicts(line) else line for line in page.lines]
    distance = line_distance(lines)
    both = [line for line in lines if _length(line.baseline) and len(line.polygon) > 2]
    apart = {id(line) for line in both if _apart(line, distance)}
    fit = None
    if 2 * len(apart) > len(both):
        apart = {id(line) for line in both}  # near the origin, lines overlap whatever the scale
        fit = _fits([x.polygon for x in both], page), _fits([x.baseline for x in both], page)
    back = [line for line in both if abs(wrap(reading_angle(line) + line.orientation)) > 135]
    slivers = [line for line in back if _is_sliver(line, distance)]
    wrong = {id(line) for line in back if 2 * len(slivers) > len(back)}
    found = [_outline(line, page, distance, id(line) in apart, fit, id(line) in wrong) for line in lines]
    for index, (line, given) in enumerate(zip(lines, page.lines, strict=True)):
        if line.orientation != given.orientation and not found[index].repaired:
            found[index] = found[index]._replace(repaired="orientation contradicts the baseline, ignored")
    return found


def line_distance(lines: Sequence[Line]) -> float:
    """Return the typical distance between neighbouring baselines in pixels, or 0 if it cannot be determined.

    This is the median distance from a baseline to the nearest parallel one above or below it, limited to a third of the
    median line length, since on a page with few lines the nearest baseline may be far away. On a page without
    neighbouring baselines, it is the median thickness of the polygons.
    """
    ends = np.array([[*line.baseline[0], *line.baseline[-1]] for line in lines if _length(line.baseline)])
    gaps = _gaps(ends.reshape(-1, 4))
    if gaps:
        lengths = np.hypot(ends[:, 2] - ends[:, 0], ends[:, 3] - ends[:, 1])
        return float(min(np.median(gaps), np.median(lengths) / 3))
    thick = [_thickness(line) for line in lines if len(line.polygon) > 2]
    return float(np.median(thick)) if thick else 0.0


def reading_angle(line: Line) -> float:
    """Return the direction in which a line is read, in degrees clockwise from the x axis, between -180 and 180.

    Baselines normally run in the reading direction, with the top of the writing on their left. There are three
    exceptions: vertical columns of Chinese, Japanese or Korean are read downwards even if the baseline runs upwards or
    is missing; baselines of right-to-left scripts may run from right to left without the line being upside down; and a
    steep baseline is ignored if it is shorter than the thickness of its polygon. These exceptions, and lines without a
    baseline, are examined after the region has been turned upright by its orientation.
    """
    angle = wrap(baseline_angle(line.baseline) + line.orientation)
    if not _length(line.baseline):
        angle = 90.0 if _is_vertical_script(line) and _is_tall(line) else 0.0
    elif 45 <= abs(angle) <= 135:
        if _is_vertical_script(line):
            angle = angle + 180 if angle < 0 else angle
        elif len(line.polygon) > 2 and _area(line.polygon) > _length(line.baseline) ** 2:
            angle = 0.0  # shorter than the thickness of the polygon, so drawn by mistake
    elif abs(angle) > 135 and _is_right_to_left(line):
        angle -= math.copysign(180, angle)
    return wrap(angle - line.orientation)


def wrap(angle: float) -> float:
    """Return the equivalent of an angle in degrees that is greater than -180 and at most 180."""
    return angle if -180 < angle <= 180 else 180 - (180 - angle) % 360


def _outline(
    line: Line, page: Page, distance: float, apart: bool, fit: tuple[bool, bool] | None, wrong: bool
) -> Outline:
    """Repair a line where necessary, and check that it can be cropped.

    Args:
        line: line as given in the file.
        page: the page that contains the line.
        distance: line distance in pixels (see `line_distance`).
        apart: whether the polygon and the baseline are apart.
        fit: whether the polygons and the baselines, respectively, fit on the page, if they use different scales.
        wrong: whether the baseline was drawn in the wrong direction.
    """
    if fit is None:
        line = _without_strays(line, page)
    repaired, bad = "", line.bad_polygon
    if wrong and line.baseline:
        line, repaired = _surrounded(line._replace(baseline=line.baseline[::-1]), distance), "baseline reversed"
    elif apart and fit == (True, False):
        line, repaired = line._replace(baseline=[]), "baseline not in page coordinates, ignored"
    elif apart and fit == (False, True):
        line, repaired = _surrounded(line, distance), "polygon not in page coordinates, replaced using the baseline"
    elif apart and line.polygon and line.baseline:
        if fit is not None or _apart(line, distance, reach=1.0):
            return Outline(line, fault="polygon and baseline do not overlap")
        line, repaired = line._replace(baseline=[]), "baseline outside the polygon, ignored"
    elif _length(line.baseline) and len(line.polygon) < 3:
        repaired = "invalid polygon, replaced using the baseline" if bad else "polygon created from the baseline"
        line = _surrounded(line, distance)
    elif _is_sliver(line, distance):
        line, repaired = _surrounded(line, distance), "polygon too thin, replaced using the baseline"
    elif line.polygon and bad:
        repaired = "invalid polygon, replaced by the box"
    elif line.polygon and line.bad_baseline:
        repaired = "invalid baseline, ignored"
    if not line.polygon and (bad or line.bad_baseline):
        return Outline(line, repaired, "invalid polygon" if bad else "invalid baseline", bad or line.bad_baseline)
    if not line.polygon:
        return Outline(line, repaired, "line without a polygon or box")
    if len(line.polygon) < 3:
        return Outline(line, repaired, f"polygon with {len(line.polygon)} point{'s' if len(line.polygon) > 1 else ''}")
    left, top, right, bottom = _box(line.polygon)
    if right == left or bottom == top:
        return Outline(line, repaired, "polygon without an area")
    if page.height and page.width:
        left, top, right, bottom = page_box([(left, top), (right, bottom)], (page.height, page.width))
        if right <= left or bottom <= top:
            return Outline(line, repaired, "polygon outside the page")
    return Outline(line, repaired)


def _without_strays(line: Line, page: Page) -> Line:
    """Return the line without its polygon or baseline if these extend far beyond the page, as invalid ones."""
    if _is_stray(line.polygon, page):
        line = line._replace(polygon=[], bad_polygon=f"'{_shown(line.polygon)}': outside the page")
    if _is_stray(line.baseline, page):
        line = line._replace(baseline=[], bad_baseline=f"'{_shown(line.baseline)}': outside the page")
    return line


def _is_stray(points: Points, page: Page) -> bool:
    if not (points and page.width and page.height):
        return False
    left, top, right, bottom = _box(points)
    width, height = page.width / 2, page.height / 2
    return left < -width or top < -height or right > 3 * width or bottom > 3 * height


def _shown(points: Points) -> str:
    return short(" ".join(f"{x:g},{y:g}" for x, y in points[:20]))


def _contradicts(line: Line) -> bool:
    """Return whether the orientation of a line would turn its writing away from the horizontal along the baseline."""
    angle = reading_angle(line) + line.orientation
    vertical = _is_vertical_script(line)
    return abs(line.orientation) > 45 and _length(line.baseline) > 0 and not vertical and abs(wrap(angle)) > 45


def _surrounded(line: Line, distance: float) -> Line:
    """Return the line with a polygon created from its baseline."""
    distance = distance or _length(line.baseline) / 10  # a page with a single line has no line distance
    angle = math.radians(reading_angle(line._replace(polygon=[])))
    steep = abs(math.sin(angle + math.radians(line.orientation))) > 0.7
    above, below = (0.5, 0.5) if _is_vertical_script(line) and steep else (ABOVE, BELOW)
    x, y = math.sin(angle) * distance, -math.cos(angle) * distance  # towards the top of the writing
    upper = [(px + above * x, py + above * y) for px, py in line.baseline]
    lower = [(px - below * x, py - below * y) for px, py in reversed(line.baseline)]
    return line._replace(polygon=upper + lower)


def _gaps(ends: ndarray) -> list[float]:
    """Return the distance from each baseline (x0, y0, x1, y1) to its nearest parallel neighbour, if it has one."""
    step = ends[:, 2:] - ends[:, :2]
    length = np.hypot(*step.T)
    along, middle = step / length[:, None], (ends[:, :2] + ends[:, 2:]) / 2
    some = np.arange(0, len(ends), len(ends) ** 2 // MAX_PAIRS + 1)
    offset = middle[None] - middle[some, None]
    (x, y), (dx, dy) = along[some].T[:, :, None], np.moveaxis(offset, 2, 0)
    beside = np.abs(dx * x + dy * y) < (length + length[some, None]) / 2
    parallel = np.abs(along[some] @ along.T) > math.cos(math.radians(20))
    across = np.abs(dy * x - dx * y)
    near = np.where(beside & parallel & (across > 4), across, np.inf)  # closer baselines are segments of the same line
    nearest = near.min(axis=1, initial=np.inf)
    return [float(gap) for gap in nearest[np.isfinite(nearest)]]


def _apart(line: Line, distance: float, reach: float = 0.5) -> bool:
    """Return whether the polygon and the baseline of a line are apart.

    They are not apart if the projections onto the direction of the baseline overlap by at least half of the shorter
    one, since either may extend beyond the other, and the projections onto the perpendicular direction overlap. All of
    this applies within a margin of half of the line distance or `reach` times the thickness of the polygon.
    """
    (x0, y0), (x1, y1), length = line.baseline[0], line.baseline[-1], _length(line.baseline)
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    along_and_across = np.array([(dx, -dy), (dy, dx)])
    polygon, baseline = np.array(line.polygon) @ along_and_across, np.array(line.baseline) @ along_and_across
    (left, top), (right, bottom) = polygon.min(0).tolist(), polygon.max(0).tolist()
    (start, highest), (end, lowest) = baseline.min(0).tolist(), baseline.max(0).tolist()
    margin = max(reach * min(right - left, bottom - top), 0.5 * distance, 5)
    overlap = min(right + margin, end) - max(left - margin, start)
    return overlap < min(right - left, end - start) / 2 or lowest < top - margin or highest > bottom + margin


def _fits(outlines: list[Points], page: Page) -> bool:
    """Return whether nearly all points lie on the page, which is always true if the page size is unknown."""
    corners = np.array([point for points in outlines for point in points]).reshape(-1, 2)
    size = np.array([page.width or np.inf, page.height or np.inf])
    return not len(corners) or bool(((corners > -0.01 * size) & (corners < 1.01 * size)).all(1).mean() >= MIN_INSIDE)


def _thickness(line: Line) -> float:
    """Return the area of the polygon divided by its length."""
    left, top, right, bottom = _box(line.polygon)
    diagonal = math.hypot(right - left, bottom - top)
    length = min(_length(line.baseline) or diagonal, diagonal)
    return _area(line.polygon) / length if length else 0.0


def _is_sliver(line: Line, distance: float) -> bool:
    """Return whether a line has a baseline and a polygon that is too thin to contain the writing."""
    return _length(line.baseline) > 0 and len(line.polygon) > 2 and _thickness(line) <= SLIVER * distance


def _box(points: Points) -> tuple[float, float, float, float]:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return min(xs), min(ys), max(xs), max(ys)


def _area(polygon: Points) -> float:
    x, y = np.array([*polygon, polygon[0]]).T
    return float(abs(x[1:] @ y[:-1] - x[:-1] @ y[1:]) / 2)


def _length(baseline: Points) -> float:
    """Return the distance from the first to the last point in pixels, or 0 if it is less than one pixel."""
    length = math.dist(baseline[0], baseline[-1]) if len(baseline) > 1 else 0.0
    return length if length >= 1 else 0.0


def _is_tall(line: Line) -> bool:
    """Return whether a polygon is taller than wide after its region has been turned upright."""
    if len(line.polygon) < 3:
        return False
    left, top, right, bottom = _box(line.polygon)
    width, height = right - left, bottom - top
    return width > TALL * height if round(line.orientation / 90) % 2 else height > TALL * width


def _is_vertical_script(line: Line) -> bool:
    """Return whether most characters are full-width, as in Chinese, Japanese and Korean.

    If the line has no text, this is whether the file states that it is read from top to bottom.
    """
    letters = [c for c in line.text if not c.isspace()]
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in letters)
    return 2 * wide > len(letters) if letters else line.direction == "top-to-bottom"


def _is_right_to_left(line: Line) -> bool:
    """Return whether most letters belong to a right-to-left script, or the file states so and there are no letters."""
    classes = [unicodedata.bidirectional(c) for c in line.text]
    right_to_left, left_to_right = sum(c in ("R", "AL") for c in classes), classes.count("L")
    if right_to_left == left_to_right == 0:
        return line.direction == "right-to-left"
    return right_to_left > left_to_right
