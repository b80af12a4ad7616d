"""The figures of a report equal those counted by brute force, and its page shows any text as text."""

import json
import math
import random
import re
import shutil
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import editdistance
import numpy as np
import pytest
from conftest import Outcome

from htr_lightning.errors import InputError
from htr_lightning.evidence import report, sections
from htr_lightning.evidence.page import page, rows, selections
from htr_lightning.evidence.publish import names
from htr_lightning.evidence.results import Appearance, Results, appearance, open_results
from htr_lightning.evidence.runs import Curve
from htr_lightning.evidence.sections import Reading
from htr_lightning.evidence.table import Table
from htr_lightning.metrics.confusions import confusions
from htr_lightning.text.align import edits
from htr_lightning.transcription import Prediction

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"' onload='alert(1)' `",
    "&lt;b&gt; {{ 7 * 7 }} {% for %}",
    "a\0\x1b[31m\u202eb\u2028c\udcffd\u200be",
    "<!--<script>",
    "]]>$x^2$ \\input{x} | _",
)

EMPTY = json.dumps(Prediction("1", "", "", 1.0, "")._asdict())


def predicted(count: int, seed: int = 0) -> list[Prediction]:
    """Make up predictions with all kinds of edits."""
    rng = random.Random(seed)

    def misread(text: str) -> str:
        return "".join(rng.choice(["", "x", c + "y", "m"]) if rng.random() < 0.15 else c for c in text)

    texts = ["".join(rng.choices("abcdeé mn", k=rng.randrange(0, 40))) for _ in range(count)]
    return [Prediction(f"page/{i}", text, misread(text), round(rng.random(), 3), f"writer {i % 5}")
            for i, text in enumerate(texts)]  # fmt: skip


def reading(predictions: list[Prediction], letter: str = "A", name: str = "run", note: str = "no data") -> Reading:
    """Return predictions as the results of a run without a checkpoint."""
    curves = {"val/cer": Curve([10, 20], [0.5, 0.25]), "train/loss": Curve([1, 2, 3], [3.0, math.nan, 1.0])}
    results = Results(Path(name), predictions, {"split": "test"}, {}, {}, curves, {"seconds": 61.0}, None, note)
    looks = {one.id: Appearance(float(i % 200), i % 5 - 2.0) for i, one in enumerate(predictions)}
    return Reading(letter, name, results, report.score(predictions), looks)


def cells(table: Table, key: str) -> dict[object, object]:
    """Return a column of a table, keyed by its first column."""
    index = [column.title for column in table.columns].index(key)
    return {row[0]: row[index] for row in table.rows}


def cer(lines: list[Prediction]) -> float:
    return sum(editdistance.eval(p.reference, p.hypothesis) for p in lines) / sum(len(p.reference) for p in lines)


def test_the_cer_by_group_length_and_confidence_is_that_of_these_lines() -> None:
    predictions = predicted(300)
    found = {part.id: part.tables[0] for part in sections.breakdowns([reading(predictions)])}
    assert list(found) == ["by-group", "by-length", "by-confidence", "by-contrast", "by-slope"]
    groups = {name: [p for p in predictions if p.group == name] for name in {p.group for p in predictions}}
    assert cells(found["by-group"], "CER") == {name: pytest.approx(cer(its)) for name, its in groups.items()}
    assert [row[0] for row in found["by-group"].rows] == sorted(groups, key=lambda name: -cer(groups[name]))
    for name, value in (("by-length", lambda p: len(p.reference)), ("by-confidence", lambda p: p.confidence)):
        seen = 0
        for label, lines, characters, edited, rate, _ in found[name].rows:
            low, high = (float(end) for end in re.fullmatch(r"(\S+) to (\S+)", str(label)).groups())
            its = [p for p in predictions if low - 0.005 <= value(p) <= high + 0.005]  # labels are rounded
            if name == "by-length":
                assert (lines, characters) == (len(its), sum(len(p.reference) for p in its))
                assert rate == pytest.approx(cer(its))
            assert edited / characters == pytest.approx(rate)
            seen += lines
        assert seen == len(predictions)
    assert sum(row[1] for row in found["by-slope"].rows) == len(predictions)


def test_bins_are_of_equal_size_and_hold_equal_values_together() -> None:
    values = [float(v) for v in random.Random(0).choices(range(1000), k=600)]
    edges = report.quantile_edges(values, 6)
    bins = report.by_value(values, edges)
    assert all(60 <= len(one.positions) <= 140 for one in bins)
    assert sorted(p for one in bins for p in one.positions) == list(range(600))
    of_value = {values[p]: number for number, one in enumerate(bins) for p in one.positions}
    assert sorted(of_value, key=lambda v: (of_value[v], v)) == sorted(of_value)
    assert report.quantile_edges([1.0] * 10) == report.quantile_edges([]) == []
    assert [one.positions for one in report.by_value([None, 3.0, None], [])] == [[1]]


def test_edits_are_counted_and_shown_in_their_context() -> None:
    lines = report.score([
        Prediction("1", "le main du roi", "le mam du roi", 1.0, ""),
        Prediction("2", "demain", "demam", 1.0, ""),
        Prediction("3", "main", "main", 1.0, ""),
        Prediction("4", "roi", "rois", 1.0, ""),
    ])  # fmt: skip
    first, second = report.frequent_edits(lines)
    assert (first.reference, first.hypothesis, first.times) == ("in", "m", 2)
    assert {(one.before, one.after) for one in first.examples} == {("le ma", " du ro"), ("dema", "")}
    assert (second.reference, second.hypothesis, second.times) == ("", "s", 1)
    for line in lines:
        told = sum(max(len(one.reference), len(one.hypothesis)) for one in report.replacements(line.alignment))
        assert told >= line.counts.edits


def test_characters_and_confusions_add_up_to_the_references_and_the_edits() -> None:
    predictions = predicted(300)
    lines = report.score(predictions)
    counted = report.pairs(lines)
    found = {one.character: one for one in report.characters(counted)}
    assert {c: one.occurrences for c, one in found.items()} == Counter("".join(p.reference for p in predictions))
    confused = confusions(counted, 100)
    wrong = sum(count for row, reference in zip(confused.counts, confused.references, strict=True)
                for count, read in zip(row, confused.hypotheses, strict=True) if reference != read)  # fmt: skip
    assert wrong == report.total(lines).edits == sum(editdistance.eval(p.reference, p.hypothesis) for p in predictions)
    for character, one in found.items():
        row = confused.counts[confused.references.index(character)]
        assert sum(row) == one.occurrences
        assert row[confused.hypotheses.index(character)] == one.correct
        assert one.recall == one.correct / one.occurrences


def test_an_edit_script_rebuilds_the_hypothesis() -> None:
    for one in predicted(200):
        alignment = edits(one.reference, one.hypothesis)
        position, built = 0, iter(edit.hypothesis for edit in alignment if edit.hypothesis)
        text = ""
        for size, kind in re.findall(r"(\d+)([=sdi])", report.edit_script(alignment)):
            for _ in range(int(size)):
                character = next(built) if kind != "d" else ""
                text += one.reference[position] if kind == "=" else character
                position += kind != "i"
        assert (text, position) == (one.hypothesis, len(one.reference))


def test_lines_to_look_at_are_the_worst_the_typical_and_random_ones() -> None:
    predictions = predicted(400)
    lines = rows([reading(predictions)])
    chosen = selections(lines, 1)
    counts = [editdistance.eval(p.reference, p.hypothesis) for p in predictions]
    worst = [counts[p] for p in chosen["worst"]]
    assert worst == sorted(counts, reverse=True)[: len(worst)]
    whole = cer(predictions)
    far = [abs(counts[p] / max(1, len(predictions[p].reference)) - whole) for p in range(400)]
    assert max(far[p] for p in chosen["typical"]) <= min(far[p] for p in set(range(400)) - set(chosen["typical"]))
    assert len(set(chosen["random"])) == len(chosen["random"]) > 20
    assert chosen == selections(lines, 1)


def test_two_runs_are_shown_side_by_side() -> None:
    first, second = predicted(50), predicted(50)
    second = [p._replace(hypothesis=p.reference if i else "something else") for i, p in enumerate(second)]
    second.append(Prediction("only here", "abc", "abc", 1.0, "writer 0"))
    runs = [reading(first), reading(second[::-1], "B")]
    lines = rows(runs)
    assert len(lines) == 51
    for line in lines:
        for one, predictions in zip(line.scored, (first, second), strict=True):
            expected = [p.hypothesis for p in predictions if p.id == line.id]
            assert [one.prediction.hypothesis] == expected if one else not expected
    different = selections(lines, 2)["different"]
    gaps = [max(line.edits) - min(line.edits) for line in lines]
    assert [gaps[p] for p in different] == sorted((gap for gap in gaps if gap), reverse=True)
    table = next(part.tables[0] for part in sections.breakdowns(runs) if part.id == "by-group")
    for run, predictions in (("A", first), ("B", second)):
        its = {name: cer([p for p in predictions if p.group == name]) for name in {p.group for p in predictions}}
        assert cells(table, f"CER {run}") == {name: pytest.approx(rate) for name, rate in its.items()}
    document = Document(page(runs, {}, lines))
    assert document.data["letters"] == ["A", "B"]


class Document(HTMLParser):
    """The tags, texts and data of a page, after checking that nothing in it can run or load anything."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.scripts: list[str] = []
        self.policy, self.text, self._script = "", "", False
        self.feed(content)
        self.data = json.loads(self.scripts[0])
        assert len(self.scripts) == 2
        assert not {"iframe", "link", "object", "embed", "base", "img"} & set(self.tags)  # pictures are in the data
        assert set(self.links) <= set(self.ids)
        assert len(set(self.ids)) == len(self.ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags[tag] += 1
        assert not [key for key in values if key.startswith("on") or key in ("style", "src")]
        self.ids += [str(values["id"])] if "id" in values else []
        if "href" in values:
            assert str(values["href"]).startswith("#")
            self.links.append(str(values["href"])[1:])
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(values["content"])
        self._script = tag == "script"
        self.scripts += [""] if self._script else []

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[-1] += data
        else:
            self.text += data


def test_hostile_texts_ids_groups_and_names_stay_text() -> None:
    plain = page([reading(predicted(len(HOSTILE)), name="x")], {}, rows([reading(predicted(len(HOSTILE)), name="x")]))
    predictions = [Prediction(text, text, text[::-1] + "z", 0.5, text) for text in HOSTILE]
    for name in HOSTILE:
        runs = [reading(predictions, name=name, note=name)]
        content = page(runs, {}, rows(runs))
        document = Document(content)
        assert set(document.tags) <= set(Document(plain).tags) | {"span", "mark", "bdi"}
        assert document.tags["script"] == 2
        assert [line[:3] for line in document.data["lines"]] == [[text, text, text] for text in HOSTILE]
        assert not re.search("[\0\x1b\u202e\u2028\udcff\u200b]", content)
        assert "49" not in re.findall(r"\{\{ 7 \* 7 \}\}|\b49\b", document.text)
        digest = b64encode(sha256(document.scripts[1].encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}'" in document.policy
        assert document.policy.startswith("default-src 'none'; img-src data:;")
        content.encode()


def test_a_line_that_falls_has_a_positive_slope_and_a_faint_one_less_contrast() -> None:
    def line(slope: float, ink: int) -> np.ndarray:
        image = np.full((120, 900), 230, np.uint8)
        for x in range(20, 880, 12):
            top = round(50 + slope * (x - 450))
            image[top : top + 22, x : x + 4] = ink
        return image

    level, falling, rising = (appearance(line(slope, 30)) for slope in (0, 0.05, -0.05))
    assert abs(level.slope) < 0.6
    assert falling.slope == pytest.approx(math.degrees(math.atan(0.05)), abs=1.2)
    assert rising.slope == pytest.approx(-falling.slope, abs=1.2)
    assert (level.contrast, appearance(line(0, 180)).contrast) == (200, 50)


def test_names_are_as_short_as_they_can_be(tmp_path: Path) -> None:
    assert names([tmp_path / "a" / "run", tmp_path / "b" / "run"]) == ["a/run", "b/run"]
    assert names([tmp_path / "a" / "run"]) == ["run"]


def test_the_command_reports_a_finished_run(run_folder: Path, tmp_path: Path, htr: Callable[..., Outcome]) -> None:
    run = tmp_path / "run <b>"
    shutil.copytree(run_folder, run)
    outcome = htr("report", run, "--out", tmp_path / "report.html", "--assets", tmp_path / "assets")
    assert outcome.code == 0, outcome.stderr
    summary = json.loads((run / "summary.json").read_text())
    assert f"{summary['test_edits']} edits / {summary['test_characters']} characters" in outcome.stdout
    document = Document((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert len(document.data["lines"]) == summary["test_lines"]
    assert f"{100 * summary['test_cer']:.2f} %" in document.text
    pictures = {position for chosen in document.data["sets"].values() for position in chosen}
    for position, line in enumerate(document.data["lines"]):
        assert str(line[4]).startswith("data:image/webp;base64,") == (position in pictures)
    assert (tmp_path / "assets" / "cer-by-contrast.png").is_file()


def test_without_data_the_page_says_so(run_folder: Path, tmp_path: Path, htr: Callable[..., Outcome]) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    summary = json.loads((run / "summary.json").read_text())
    summary["card"]["data"]["sha256"] = "of other lines"
    (run / "summary.json").write_text(json.dumps(summary))
    outcome = htr("report", run, "--out", tmp_path / "report.html")
    assert outcome.code == 0, outcome.stderr
    assert "no pictures of lines, since the data have changed" in outcome.stderr
    document = Document((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "No pictures of lines: the data have changed" in document.text
    assert {line[4] for line in document.data["lines"]} == {0}


def test_predictions_of_another_checkpoint_are_made_again(run_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    before = open_results(run)
    summary = json.loads((run / "summary.json").read_text())
    summary["card"]["checkpoint_sha256"] = "of another one"
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "predictions.jsonl").write_text(EMPTY)
    again = open_results(run)
    assert [(p.id, p.hypothesis) for p in again.predictions] == [(p.id, p.hypothesis) for p in before.predictions]
    assert (run / "checkpoints" / "evaluate-test" / "metrics.json").is_file()


def test_a_folder_without_results_is_refused(tmp_path: Path, htr: Callable[..., Outcome]) -> None:
    with pytest.raises(InputError, match="contains neither"):
        open_results(tmp_path)
    assert htr("report", tmp_path, "--out", tmp_path / "report.html").code == 1
    assert not list(tmp_path.iterdir())
    (tmp_path / "predictions.jsonl").write_text(EMPTY)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(InputError, match=r"metrics\.json: is corrupted"):
        open_results(tmp_path)
