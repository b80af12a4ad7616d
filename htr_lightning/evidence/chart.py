"""Charts of a report as SVG: curves, points, bars and matrices that a page shows in its own colours."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from htr_lightning.html import visible

Number = int | float

WIDTH, HEIGHT = 400, 230  # of the view box
LEFT, RIGHT, TOP, BOTTOM = 46, 22, 10, 38  # margins around curves and points
ROW, LABEL, VALUE = 15, 132, 86  # of bars: height of a bar, width of its label and of its value
CELL, HEAD = 19, 24  # of matrices
LONGEST = 22  # characters of a label
DENSE = 40  # number of points from which a curve has no circles


class Series(NamedTuple):
    """The points of a curve, or one value for each label."""

    name: str
    x: Sequence[Number]
    y: Sequence[Number]
    notes: Sequence[str] = ()  # what a pointer over a point shows
    intervals: Sequence[tuple[float, float] | None] = ()
    areas: Sequence[float] = ()  # relative, of points


class Chart(NamedTuple):
    """A chart, with a name for its files.

    Attributes:
        kind: "curves", "points", "bars" or "matrix".
        labels: of bars, or of the columns of a matrix, whose rows are the series.
        colours: index of the colour of each series.
        diagonal: whether a line marks where x equals y.
    """

    name: str
    title: str
    kind: str
    x_title: str
    y_title: str
    series: Sequence[Series]
    labels: Sequence[str] = ()
    colours: Sequence[int] = ()
    percent: bool = True
    log_x: bool = False
    diagonal: bool = False
    x_percent: bool = False

    def colour(self, index: int) -> int:
        return self.colours[index] if self.colours else index


def ticks(low: Number, high: Number, count: int = 5) -> list[Number]:
    """Return round numbers at equal distances from `low` to `high`."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw * 0.999)
    return [round(step * k, 12) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def format_tick(value: Number, percent: bool) -> str:
    """Return a number on an axis as text."""
    if percent:
        return f"{100 * value:g} %"
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"


def limits(chart: Chart) -> tuple[Number, Number, Number, Number]:
    """Return the smallest and largest x and y on the axes of curves or points; y starts at 0."""
    xs = [x for one in chart.series for x in one.x]
    ys = [y for one in chart.series for y in one.y]
    if chart.diagonal:
        return 0, 1, 0, 1
    top = max(ys, default=1) or 1
    if not chart.log_x:
        return min(xs, default=0), max(xs, default=1), 0, top
    return min(xs, default=1), max(*xs, 10) if xs else 10, 0, top


def svg(chart: Chart) -> str:
    """Return a chart as an SVG element."""
    draw = {"curves": _axes, "points": _axes, "bars": _bars, "matrix": _matrix}[chart.kind]
    width, height, body = draw(chart)
    title = f"{chart.title}: {chart.y_title}" + (f" by {chart.x_title}" if chart.x_title else "")
    return (
        f'<svg class="chart {chart.kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{_text(title)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(body)}</svg>'
    )


def _axes(chart: Chart) -> tuple[int, int, list[str]]:
    first, last, low, high = limits(chart)
    scale: Callable[[Number], float] = math.log10 if chart.log_x else float
    start, span = scale(first), scale(last) - scale(first) or 1

    def place(x: Number, y: Number) -> tuple[float, float]:
        across, up = (scale(x) - start) / span, (y - low) / (high - low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    body = []
    for value in ticks(low, high):
        _, y = place(first, value)
        body += [f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>',
                 _label(LEFT - 5, y + 4, format_tick(value, chart.percent), "end")]  # fmt: skip
    for value in log_ticks(first, last) if chart.log_x else ticks(first, last):
        x, _ = place(value, low)
        body.append(_label(x, HEIGHT - BOTTOM + 15, format_tick(value, chart.x_percent), "middle"))
    body.append(_label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, chart.x_title, "middle", "axis"))
    if chart.diagonal:
        (x0, y0), (x1, y1) = place(0, 0), place(1, 1)
        body.append(f'<path class="diagonal" d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"/>')
    for index, one in enumerate(chart.series):
        colour = f"s{chart.colour(index) % 6}"
        points = [place(x, y) for x, y in zip(one.x, one.y, strict=True)]
        if chart.kind == "curves" and points:
            style = " dense" * (len(points) > DENSE) + " dashed" * (index >= 6)
            d = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            body.append(f'<path class="curve {colour}{style}" d="{d}"/>')
        marked = chart.kind == "points" or len(points) <= DENSE
        for number, (x, y) in enumerate(points if marked else []):
            radius = 2 + 7 * math.sqrt(one.areas[number]) if one.areas else 3
            note = f"<title>{_text(one.notes[number])}</title>" if one.notes else ""
            body.append(f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">{note}</circle>')
    return WIDTH, HEIGHT, body


def log_ticks(first: Number, last: Number) -> list[float]:
    """Return the powers of ten from `first` to `last`."""
    return [10.0**k for k in range(math.ceil(math.log10(first)), math.floor(math.log10(last)) + 1)]


def _bars(chart: Chart) -> tuple[int, int, list[str]]:
    """Draw a group of bars for each label, one for each series, with values and intervals."""
    tops = [high for one in chart.series for each in one.intervals if each for high in each[1:]]
    most = max([*(y for one in chart.series for y in one.y if not math.isnan(y)), *tops], default=0) or 1
    # an interval of a few lines would leave no room for the bars
    most = min(most, 1.5 * max((y for one in chart.series for y in one.y if not math.isnan(y)), default=1) or 1)
    room, bottom = WIDTH - LABEL - VALUE, 4
    body = []
    for row, label in enumerate(chart.labels):
        known = [(index, one) for index, one in enumerate(chart.series) if not math.isnan(one.y[row])]
        top, bottom = bottom, bottom + ROW * max(1, len(known)) + 7
        body.append(_label(LABEL - 7, (top + bottom) / 2, _cut(label), "end", note=label))
        for place, (index, one) in enumerate(known):
            value, y = one.y[row], top + place * ROW
            note = f"<title>{_text(one.notes[row])}</title>" if one.notes else ""
            width = max(1.0, value / most * room)
            body.append(f'<rect class="s{chart.colour(index) % 6}" x="{LABEL}" y="{y}" width="{width:.1f}" '
                        f'height="{ROW - 3}">{note}</rect>')  # fmt: skip
            end = width
            if one.intervals and (interval := one.intervals[row]):
                low, high = (min(1.0, each / most) * room for each in interval)
                end = max(end, high)
                body.append(f'<path class="whisker" d="M{LABEL + low:.1f} {y + ROW / 2 - 1.5}H{LABEL + high:.1f}"/>')
            body.append(_label(LABEL + end + 5, y + ROW - 4, f"{100 * value:.1f} %" if chart.percent else f"{value:g}"))
    return WIDTH, bottom, body


def _matrix(chart: Chart) -> tuple[int, int, list[str]]:
    """Draw a matrix, in which a cell is the darker, the larger its value is relative to the largest one."""
    columns, rows = len(chart.labels), len(chart.series)
    most = max((y for one in chart.series for y in one.y if not math.isnan(y)), default=0) or 1
    left = top = 2 * HEAD
    body = [_label(left + columns * CELL / 2, 14, chart.x_title, "middle", "axis"),
            f'<text class="axis" text-anchor="middle" transform="translate(14 {top + rows * CELL / 2}) rotate(-90)">'
            f"{_text(chart.y_title)}</text>"]  # fmt: skip
    for column, label in enumerate(chart.labels):
        body.append(_label(left + (column + 0.5) * CELL, top - 6, label, "middle"))
    for row, one in enumerate(chart.series):
        y = top + row * CELL
        body.append(_label(left - 7, y + CELL - 5, one.name, "end"))
        for column, value in enumerate(one.y):
            x, note = left + column * CELL, f"<title>{_text(one.notes[column])}</title>" if one.notes else ""
            size = f'x="{x}" y="{y}" width="{CELL - 1}" height="{CELL - 1}"'
            if math.isnan(value):
                body.append(f'<rect class="same" {size}>{note}</rect>')
            else:
                shade = f'<rect class="cell" {size} fill-opacity="{math.sqrt(value / most):.3f}">{note}</rect>'
                body.append(f'<rect class="empty" {size}>{note}</rect>{shade if value else ""}')
    return left + columns * CELL + 4, top + rows * CELL + 4, body


def _label(x: Number, y: Number, text: str, anchor: str = "", style: str = "", note: str = "") -> str:
    attributes = (f' class="{style}"' if style else "") + (f' text-anchor="{anchor}"' if anchor else "")
    title = f"<title>{_text(note)}</title>" if note and note != text else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{_text(text)}{title}</text>'


def _cut(text: str) -> str:
    """Leave out the middle of a long label."""
    half = (LONGEST - 1) // 2
    return text if len(text) <= LONGEST else f"{text[:half]}…{text[-half:]}"


def _text(text: str) -> str:
    return escape(visible(text))
