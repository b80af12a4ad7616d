"""Suspicious references: planted errors are of the wanted kinds, the ranking finds them, and the page is usable."""

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL
from hypothesis import given
from hypothesis import strategies as st

from htr_lightning import checkpoint, child_process
from htr_lightning.audit import label_errors as verb
from htr_lightning.audit.label_errors import CrossFit, Judged, Suspect, compare, rank
from htr_lightning.audit.label_page import page, parts
from htr_lightning.audit.plant import CHARACTERS, DROPPED, SWAPPED, WORD, plant
from htr_lightning.build import data_for
from htr_lightning.cli.data import _planted
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.data.texts import read_texts
from htr_lightning.errors import InputError

LINES = ["data=synthetic", *SMALL, "data.reader.lines={train: 96, val: 16, test: 24}"]
WORDS = ["le", "la", "de", "un", "chat", "chien", "maison", "jardin", "grand", "petit", "vert", "bleu"]
TEXTS = [" ".join(random.Random(n).sample(WORDS, 4)) + f" {n}" for n in range(400)]
GROUPS = [f"writer {n // 10}" for n in range(400)]


@given(st.floats(0, 0.2), st.integers(0, 50))
def test_each_kind_of_error_is_planted_in_a_quarter_of_the_altered_lines(fraction: float, seed: int) -> None:
    found = plant(TEXTS, GROUPS, fraction, seed)
    assert round(400 * fraction) <= len(found) <= round(400 * fraction) + 1  # a swap alters two lines
    counts = Counter(kind for kind, _ in found.values())
    assert (
        max(counts.values(), default=0) - min((counts[k] for k in (SWAPPED, WORD, DROPPED, CHARACTERS)), default=0) <= 3
    )
    assert found == plant(TEXTS, GROUPS, fraction, seed)
    for index, (kind, text) in found.items():
        before, after = TEXTS[index].split(" "), text.split(" ")
        assert text != TEXTS[index]
        if kind == SWAPPED:
            other = next(i for i in (index - 1, index + 1) if i in found and TEXTS[i] == text)
            assert GROUPS[other] == GROUPS[index]
            assert found[other] == (SWAPPED, TEXTS[index])
        elif kind == WORD:
            assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
        elif kind == DROPPED:
            assert any(before[:k] + before[k + 1 :] == after for k in range(len(before)))
        else:
            assert 2 <= sum(a != b for a, b in zip(TEXTS[index], text, strict=True)) <= 4


@given(st.lists(st.sampled_from(["a", "aa", "a a"]), max_size=6))
def test_texts_that_cannot_be_altered_end_no_search(texts: list[str]) -> None:
    plant(texts, ["x"] * len(texts), 0.2, 0)


def judged(id: str, group: str, ratio: float) -> Judged:
    return Judged(id, group, 0, "0123456789", "0123456789", "0123456789", 10 * ratio, 0.0)


def test_a_line_is_compared_with_the_others_of_its_writer() -> None:
    clear = [judged(f"clear {n}", "clear", 0.1) for n in range(20)]
    poor = [judged(f"poor {n}", "poor", 1.0) for n in range(20)]
    suspects = rank([*clear, judged("odd", "clear", 0.9), *poor])
    assert suspects[0].line.id == "odd"
    assert [one.score for one in suspects] == sorted((one.score for one in suspects), reverse=True)
    assert rank([]) == []
    assert (
        rank([judged("a", "x", float("inf")), judged("b", "y", 0.1)])[0].line.id == "a"
    )  # too few frames for its text


def test_planted_errors_are_counted_among_twice_as_many_lines() -> None:
    suspects = rank([judged(str(n), "x", 1 - n / 100) for n in range(100)])
    found = compare(suspects, {"0": "a", "3": "b", "7": "b", "90": "a"})
    assert (found.planted, found.recall) == (4, 0.75)
    assert found.by_kind == {"a": (1, 2), "b": (2, 2)}
    assert found.precision == 3 / 50


@given(st.text("ab<", max_size=8), st.text("ab<", max_size=8))
def test_the_marked_parts_make_up_both_texts(reference: str, reading: str) -> None:
    found = parts(reference, reading)
    assert "".join(part[1] for part in found) == reference
    assert "".join(part[2] for part in found) == reading
    assert all(correct == (mine == other) for correct, mine, other in found)


def test_folds_divide_the_training_lines() -> None:
    for folds in (2, 3, 7):
        fit = CrossFit(Path("x"), [], folds)
        ranges = [range(*verb.bounds(fit, 20, fold)) for fold in range(folds)]
        assert [place for one in ranges for place in one] == list(range(20))


def test_the_reader_of_a_fold_is_trained_in_a_process_that_survives_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, asked, waits = CrossFit(tmp_path, ["data=synthetic"]), list[list[str]](), [KeyboardInterrupt, None]

    class Child:
        def __init__(self, program: list[str], **settings: object) -> None:
            asked.append(program[3:])

        def wait(self) -> int:
            if (signal := waits.pop(0)) is not None:
                raise signal
            return 1

    monkeypatch.setattr(child_process.subprocess, "Popen", Child)
    with pytest.raises(KeyboardInterrupt):
        verb.train(fit, 20, 1)
    assert not waits  # it has ended by itself
    (tmp_path / "fold-2" / "checkpoints").mkdir(parents=True)
    last = tmp_path / "fold-2" / "checkpoints" / "last.ckpt"
    last.touch()
    waits.append(None)
    with pytest.raises(InputError, match=r"htr train .* ended with exit code 1; .* repeat the command"):
        verb.train(fit, 20, 1)
    first = ["train", "data=synthetic", "data.held_out=[10,20]", f'hydra.run.dir="{tmp_path / "fold-2"}"']
    assert asked == [first, [*first, f'resume="{last}"']]


def test_a_reference_with_a_character_that_no_other_fold_has_is_judged_by_the_others(best: Path) -> None:
    recognizer = checkpoint.load(best)
    lines = data_for(recognizer, full=True).lines("train")
    assert "€" not in recognizer.alphabet
    known = lines.texts[1]
    lines.texts[0] = "€"
    (expected,) = verb.judge(recognizer, lines, [1])
    lines.texts[1] = known + "€"
    only, longer = verb.judge(recognizer, lines, [0, 1])
    assert longer.normalized == known + "€"
    assert longer.surprise == pytest.approx(expected.surprise)
    assert only.surprise == np.inf  # nothing is left to judge


def test_the_number_of_folds_matters_only_if_readers_are_trained(tmp_path: Path) -> None:
    few = ["data=synthetic", *SMALL, "data.reader.lines={train: 3, val: 2, test: 2}"]
    with pytest.raises(InputError, match="--folds 2: 3 training lines are too few"):
        verb.prepare(CrossFit(tmp_path, few))
    assert verb.prepare(CrossFit(tmp_path, few, recognizer="a.ckpt")) == 3


def test_the_precision_names_the_lines_that_it_is_among() -> None:
    suspects = rank([judged(str(n), "x", 1 - n / 100) for n in range(20)])
    assert _planted(compare(suspects, {"0": "a"}), 20)[1] == "of the first 20 lines, 5% are planted errors"


@pytest.fixture
def ranked(best: Path, htr, tmp_path: Path) -> Path:
    """An output folder whose readers have been trained already."""
    out = tmp_path / "out"
    for fold in (1, 2):
        (out / f"fold-{fold}" / "checkpoints").mkdir(parents=True)
        shutil.copy(best, out / f"fold-{fold}" / "checkpoints" / "best.ckpt")
        (out / f"fold-{fold}" / "summary.json").write_text("{}")
    outcome = htr("label-errors", *LINES, "--plant", 0.1, "--show", 30, "--out", out)
    assert outcome.code == 0, outcome.stderr
    assert "10 planted errors: " in outcome.stdout
    assert "of the first 50 lines, " in outcome.stdout
    assert "96 references ranked" in outcome.stdout
    return out


def test_every_reference_is_ranked_once_and_altered_ones_are_as_altered(ranked: Path, htr) -> None:
    header, *rows = (ranked / "label_errors.tsv").read_text().splitlines()
    assert header == "id\tscore\tdistance\ttext\treading"
    assert len({row.split("\t")[0] for row in rows}) == 96
    scores = [float(row.split("\t")[1]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    altered = read_texts(ranked / "planted.tsv")
    assert len(altered) == 10
    again = htr("label-errors", *LINES, "--plant", 0.2, "--out", ranked)
    assert again.code == 1
    assert "other settings than before" in again.stderr
    refused = htr("label-errors", *LINES, "data.held_out=[0,4]", "--out", ranked)
    assert "data.held_out=[0,4]: is set by htr label-errors" in refused.stderr


def test_corrections_made_on_the_page_are_saved_as_a_table(ranked: Path, browser, tmp_path: Path) -> None:
    for width in (1280, 400):
        page = browser.new_page(viewport={"width": width, "height": 900}, accept_downloads=True)
        faults: list[str] = []
        page.on("console", lambda message, faults=faults: faults.append(message.text))
        page.on("pageerror", lambda error, faults=faults: faults.append(str(error)))
        page.goto((ranked / "label_errors.html").as_uri())
        assert page.locator(".card").count() == 30
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        first = page.locator("textarea").nth(0)
        assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"
        page.keyboard.press("Enter")  # the first is right
        page.keyboard.type(" new\tword")
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowUp")
        assert first.evaluate("node => node === document.activeElement")
        assert page.locator("#progress").inner_text().startswith("2 of 30")
        page.reload()  # nothing is lost
        assert page.locator(".confirmed").count() == page.locator(".corrected").count() == 1
        with page.expect_download() as download:
            page.click("#save")
        download.value.save_as(tmp_path / "corrected.tsv")
        (second,) = read_texts(tmp_path / "corrected.tsv").items()
        data = json.loads(page.locator("#data").text_content())
        assert second == (data["lines"][1]["id"], data["lines"][1]["text"] + " new word")
        page.click("#language")
        assert "标注错误" in page.locator("h1").inner_text()
        assert not faults
        page.close()


def test_a_second_round_repeats_the_corrections_of_the_first(browser, tmp_path: Path) -> None:
    line = Judged("b", "g", 0, "un", "un", "nu", 2.0, 1.0)
    known = {"a": "first", "b": "un"}
    lines = Synthetic("test", {"test": 1}, {"test": 1})
    (tmp_path / "page.html").write_text(page("x", [Suspect(line, 1.0)], 1, lines, known))
    opened = browser.new_page(accept_downloads=True)
    opened.goto((tmp_path / "page.html").as_uri())
    opened.locator("textarea").nth(0).fill("second")
    opened.keyboard.press("Enter")
    with opened.expect_download() as download:
        opened.click("#save")
    download.value.save_as(tmp_path / "corrected.tsv")
    assert read_texts(tmp_path / "corrected.tsv") == {"a": "first", "b": "second"}
    opened.close()
