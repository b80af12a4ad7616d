"""Write the charts of a report as SVG and PNG files, and its tables as Markdown and LaTeX."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from htr_lightning.evidence import confidence, provenance, sections
from htr_lightning.evidence.chart import DENSE, Chart, format_tick
from htr_lightning.evidence.sections import Reading
from htr_lightning.evidence.table import Table, latex, markdown
from htr_lightning.html import visible
from htr_lightning.output import writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0b57a4", "#d55e00", "#00795a", "#a3417f", "#8a6d00", "#56707f")  # as on the page
FONTS = ("DejaVu Sans", "Noto Sans", "Noto Sans CJK SC", "Noto Sans Arabic", "Noto Sans Hebrew")  # if installed
STYLE = {
    "text.parse_math": False,  # a label may contain dollars
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "htr-lightning",  # the same file each time
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 100,
    "savefig.dpi": 200,
}


def write_assets(folder: Path, readings: Sequence[Reading]) -> list[Path]:
    """Write all charts and tables of a report to a folder, and return the paths of the files.

    Raises:
        InputError: if a file cannot be written.
    """
    parts = [*sections.breakdowns(readings), sections.characters(readings), confidence.confidence(readings),
             provenance.training(readings), provenance.speed(readings), provenance.card(readings)]  # fmt: skip
    charts = [*sections.confusion_charts(readings), *(chart for part in parts for chart in part.charts)]
    tables = [*(table for table, _ in sections.frequent_edits(readings)),
              *(table for part in parts for table in part.tables), sections.summary(readings)]  # fmt: skip
    paths = []
    with writing(folder, "--assets"):
        folder.mkdir(parents=True, exist_ok=True)
        for table in tables:
            paths += _write_table(folder, table)
        for chart in charts:
            paths += _write_chart(folder, chart, [f"{one.letter} {one.name}" for one in readings])
    return paths


def _write_table(folder: Path, table: Table) -> list[Path]:
    formats: dict[str, Callable[[Table], str]] = {"md": markdown, "tex": latex}
    paths = []
    for ending, form in formats.items():
        paths.append(folder / f"{table.name}.{ending}")
        paths[-1].write_text(form(table), encoding="utf-8")
    return paths


def _write_chart(folder: Path, chart: Chart, names: Sequence[str]) -> list[Path]:
    paths = [folder / f"{chart.name}.{ending}" for ending in ("svg", "png")]
    with _styled():
        drawn = figure(chart, names)
        for path in paths:
            drawn.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


@contextmanager
def _styled() -> Iterator[None]:
    import matplotlib
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    settings: Any = STYLE | {"font.family": [name for name in FONTS if name in installed]}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a PNG shows a box; an SVG contains the text
        yield


def figure(chart: Chart, names: Sequence[str] = ()) -> "Figure":
    """Draw a chart as a figure of matplotlib.

    Args:
        chart: chart to draw.
        names: names for a legend, by colour; a single one needs no legend.
    """
    import matplotlib
    from matplotlib.figure import Figure

    draw = {"curves": _axes, "points": _axes, "bars": _bars, "matrix": _matrix}[chart.kind]
    rows = len(chart.labels) * max(1, len(chart.series))
    height = {"bars": 1 + 0.22 * rows, "matrix": 5.5}.get(chart.kind, 3.2)
    with _styled():
        drawn = Figure((5.5, height), layout="constrained")
        axes = drawn.subplots()
        draw(axes, chart)
        axes.set_title(chart.title, fontsize="medium")
        if len(names) > 1 and chart.kind != "matrix":
            used = dict.fromkeys(chart.colour(index) for index in range(len(chart.series)))
            handles = [matplotlib.lines.Line2D([], [], color=COLOURS[index % 6], marker="s", linestyle="")
                       for index in used]  # fmt: skip
            axes.legend(handles, [visible(names[index]) for index in used], frameon=False, fontsize="small")
    return drawn


def _axes(axes: Any, chart: Chart) -> None:
    for index, one in enumerate(chart.series):
        colour = COLOURS[chart.colour(index) % 6]
        if chart.kind == "curves":
            style: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.6} if len(one.x) > DENSE else {"marker": "o"}
            axes.plot(one.x, one.y, color=colour, markersize=3, **style)
        else:
            axes.scatter(one.x, one.y, color=colour, s=12, alpha=0.6, linewidths=0)
    if chart.diagonal:
        axes.plot([0, 1], [0, 1], color="#888", linestyle="--", linewidth=0.8)
    if chart.log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: format_tick(value, False))
    axes.set_ylim(bottom=0)
    axes.set_xlabel(chart.x_title)
    axes.set_ylabel(chart.y_title)
    for axis, percent in ((axes.yaxis, chart.percent), (axes.xaxis, chart.x_percent)):
        if percent:
            axis.set_major_formatter(lambda value, _: f"{100 * value:g} %")


def _bars(axes: Any, chart: Chart) -> None:
    count = len(chart.series)
    for index, one in enumerate(chart.series):
        places = [row + (index + 0.5) / count * 0.8 - 0.4 for row in range(len(chart.labels))]
        values = [0 if math.isnan(value) else value for value in one.y]
        bounds = one.intervals or [None] * len(values)
        errors = [[value - low, high - value] for value, (low, high) in
                  ((value, found or (value, value)) for value, found in zip(values, bounds, strict=True))]  # fmt: skip
        drawn = axes.barh(places, values, 0.75 / count, color=COLOURS[chart.colour(index) % 6],
                          xerr=list(zip(*errors, strict=True)), error_kw={"linewidth": 0.8})  # fmt: skip
        texts = ["" if math.isnan(value) else f"{100 * value:.1f} %" for value in one.y]
        axes.bar_label(drawn, texts, padding=3, fontsize="small")
    axes.set_yticks(range(len(chart.labels)), [visible(label) for label in chart.labels])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(chart.y_title)
    axes.set_ylabel(chart.x_title)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")


def _matrix(axes: Any, chart: Chart) -> None:
    values = [[math.nan if math.isnan(value) else math.sqrt(value) for value in one.y] for one in chart.series]
    axes.imshow(values or [[0]], cmap="Oranges")
    axes.set_facecolor("#ddd")
    axes.set_xticks(range(len(chart.labels)), chart.labels)
    axes.set_yticks(range(len(chart.series)), [one.name for one in chart.series])
    axes.set_xlabel(chart.x_title)
    axes.set_ylabel(chart.y_title)
