"""Charts and tables of a report are well formed, whatever texts they contain."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from evidence.test_report import HOSTILE, reading
from htr_lightning.evidence import confidence, provenance, sections
from htr_lightning.evidence.assets import write_assets
from htr_lightning.evidence.chart import svg, ticks
from htr_lightning.evidence.table import Column, Table, latex, markdown
from htr_lightning.transcription import Prediction


def test_charts_are_well_formed_and_mark_every_value() -> None:
    runs = [reading([Prediction(text, text, text + "z", 0.5, text) for text in HOSTILE])]
    parts = [
        *sections.breakdowns(runs),
        sections.characters(runs),
        confidence.confidence(runs),
        provenance.training(runs),
    ]
    charts = [chart for part in parts for chart in part.charts] + sections.confusion_charts(runs)
    for chart in charts:
        root = ElementTree.fromstring(svg(chart))
        counts = Counter(one.tag.rpartition("}")[2] for one in root.iter())
        values = sum(len(one.y) for one in chart.series)
        assert counts["rect" if chart.kind in ("bars", "matrix") else "circle"] >= values
        _, _, width, height = (float(v) for v in root.attrib["viewBox"].split())
        for one in root.iter():
            assert 0 <= float(one.attrib.get("x", one.attrib.get("cx", 0))) <= width
            assert 0 <= float(one.attrib.get("y", one.attrib.get("cy", 0))) <= height


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.13), (3, 4662), (0, 1e-4), (5, 5)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert all(low - 1e-12 <= tick <= high + 1e-12 for tick in found)
    assert 1 <= len(found) <= 11
    steps = {round(b - a, 9) for a, b in pairwise(found)}
    assert len(steps) <= 1


def test_tables_are_escaped_for_markdown_and_latex() -> None:
    table = Table("t", "T", [Column("a|b"), Column("%", "percent"), Column("n", "count")], [["x|y_&\n", 0.5, 1234]])
    assert markdown(table).splitlines()[2] == r"| x\|y\_\&U+000A | 50.00 % | 1,234 |"
    assert r"x\textbar{}y\_\&U+000A & 50.00 \% & 1,234 \\" in latex(table)


def test_all_charts_and_tables_become_files(tmp_path: Path) -> None:
    runs = [reading([Prediction(text, text, text + "z", 0.5, text) for text in HOSTILE])]
    paths = write_assets(tmp_path / "assets", runs)
    assert {path.suffix for path in paths} == {".svg", ".png", ".md", ".tex"}
    assert sorted(paths) == sorted((tmp_path / "assets").iterdir())
    for path in paths:
        if path.suffix == ".svg":
            ElementTree.parse(path)
            assert "mathdefault" not in path.read_text(encoding="utf-8")  # labels are no formulas
        elif path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
    names_of = {path.stem for path in paths}
    assert {"summary", "cer-by-length", "confusions", "characters", "calibration", "card", "learning-curve"} <= names_of
