"""Transcription of files with nothing but a checkpoint."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from htr_lightning import checkpoint
from htr_lightning.build import data_for
from htr_lightning.data.image import read_image
from htr_lightning.data.page.document import read_page
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.decoder.ctc import Greedy
from htr_lightning.decoder.hypothesis import Hypothesis
from htr_lightning.decoder.language import Language
from htr_lightning.decoder.lexicon import Lexicon
from htr_lightning.decoder.ngram import NGram
from htr_lightning.decoder.prefix_beam import PrefixBeam
from htr_lightning.errors import InputError
from htr_lightning.evidence.evaluate import evaluate
from htr_lightning.evidence.results import open_results
from htr_lightning.reading import transcribe as module
from htr_lightning.reading.segment import detect
from htr_lightning.reading.segment import page as segment_page
from htr_lightning.reading.sources import find_sources
from htr_lightning.reading.voting import Ensemble
from htr_lightning.transcription import Alternative, Transcription


def lines(count: int = 9) -> list[np.ndarray]:
    reader = Synthetic("test", {"test": count}, {"test": 3})
    return [reader[i].image for i in range(count)]


def write_page(folder: Path, images: list[np.ndarray], name: str = "page") -> Path:
    """Write a page with the given line images below each other, and its ALTO file."""
    height = sum(image.shape[0] + 10 for image in images) + 10
    width = max(image.shape[1] for image in images) + 20
    page, body, top = np.full((height, width), 230, np.uint8), "", 10
    for number, image in enumerate(images):
        h, w = image.shape
        page[top : top + h, 10 : 10 + w] = image
        body += f'<TextLine ID="l{number}" HPOS="10" VPOS="{top}" WIDTH="{w}" HEIGHT="{h}"/>'
        top += h + 10
    Image.fromarray(page).save(folder / f"{name}.png")
    path = folder / f"{name}.xml"
    path.write_text(
        f'<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#"><Layout><Page WIDTH="{width}" HEIGHT="{height}">'
        f'<PrintSpace><TextBlock ID="b">{body}</TextBlock></PrintSpace></Page></Layout></alto>'
    )
    return path


def test_a_fresh_process_with_the_checkpoint_alone_reads_what_this_one_reads(best: Path, tmp_path: Path) -> None:
    image = lines(1)[0]
    Image.fromarray(image).save(tmp_path / "line.png")
    here = checkpoint.load(best).read([image])[0].text
    (tmp_path / "moved.ckpt").write_bytes(best.read_bytes())
    command = [sys.executable, "-m", "htr_lightning", "transcribe", "moved.ckpt", "line.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == here + "\n"


@pytest.mark.parametrize("kind", ["greedy", "lexicon", "ensemble"])
def test_cores_side_by_side_read_what_one_reads(
    make_recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    recognizer = make_recognizer()
    if kind == "ensemble":
        recognizer = Ensemble([recognizer, make_recognizer(gain=7), make_recognizer("dcbaxyz ")], ["a", "b", "c"])
    if kind == "lexicon":
        language = Language(NGram.estimate(["a cab", "an axe"], 2), Lexicon(["a", "an", "cab", "axe"]))
        recognizer = recognizer.with_decoder(PrefixBeam(4, 4, 0.01, 10.0, alpha=0.5)).with_language(language)
    for number, image in enumerate(lines(24)):
        Image.fromarray(image).save(tmp_path / f"{number:02}.png")
    monkeypatch.setattr(module, "READING_LINES", 3)
    sources, _, _ = find_sources([str(tmp_path)])
    read = []
    before = torch.get_num_threads()
    try:
        for cores in (1, 4):
            torch.set_num_threads(cores)
            read.append(
                [(r.name, r.transcription and r.transcription.text) for r in module.transcribe(recognizer, sources)]
            )
            assert torch.get_num_threads() == cores
    finally:
        torch.set_num_threads(before)
    assert read[0] == read[1]
    assert len({text for _, text in read[0]}) > 1


def test_a_page_and_its_lines_as_images_give_the_same_text_in_every_format(best: Path, htr, tmp_path: Path) -> None:
    images = lines()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"line_{number}.png")
    page = write_page(tmp_path, images)
    one_by_one = [htr("transcribe", best, tmp_path / f"line_{n}.png").stdout.rstrip("\n") for n in range(len(images))]
    text = htr("transcribe", best, tmp_path / "line_*.png")
    assert text.code == 0
    assert text.stdout.splitlines() == one_by_one
    assert htr("transcribe", best, page).stdout.splitlines() == one_by_one
    rows = [row.split("\t") for row in htr("transcribe", best, page, "--format", "tsv").stdout.splitlines()]
    assert [row[1] for row in rows] == one_by_one
    assert [row[0] for row in rows] == [f"{page}#l{n}" for n in range(len(images))]
    assert all(0 <= float(row[2]) <= 1 for row in rows)
    records = [json.loads(row) for row in htr("transcribe", best, page, "--format", "jsonl").stdout.splitlines()]
    assert [record["text"] for record in records] == one_by_one
    assert htr("transcribe", best, page, "--format", "page", "--out", tmp_path / "out").code == 0
    written = read_page(tmp_path / "out" / "page.xml")
    assert [line.text for line in written.lines] == one_by_one
    assert [line.polygon for line in written.lines] == [line.polygon for line in read_page(page).lines]


def test_a_folder_reads_each_line_once(best: Path, htr, tmp_path: Path) -> None:
    write_page(tmp_path, lines(3), "page")
    (tmp_path / "more").mkdir()
    Image.fromarray(lines(1)[0]).save(tmp_path / "more" / "single.png")
    rows = htr("transcribe", best, tmp_path, "--format", "tsv").stdout.splitlines()
    assert len(rows) == 4  # the page's image is not transcribed as a separate line


def test_a_page_file_keeps_what_it_has(best: Path, htr, tmp_path: Path) -> None:
    write_page(tmp_path, lines(2), "page")
    alto = read_page(tmp_path / "page.xml")
    coords = [" ".join(f"{x:.0f},{y:.0f}" for x, y in line.polygon) for line in alto.lines]
    (tmp_path / "page.xml").write_text(
        '<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2013-07-15"><Page imageFilename="page.png" '
        f'imageWidth="{alto.width}" imageHeight="{alto.height}" custom="kept"><TextRegion id="r" type="paragraph">'
        f'<Coords points="{coords[0]}"/><TextLine id="a" custom="mine"><Coords points="{coords[0]}"/><Word id="w"/>'
        f'<TextEquiv index="0"><Unicode>old</Unicode></TextEquiv></TextLine><TextLine id="b"><Coords points="1,1 2,2"/>'
        "<TextEquiv><Unicode>stays</Unicode></TextEquiv></TextLine></TextRegion></Page></PcGts>"
    )
    outcome = htr("transcribe", best, tmp_path / "page.xml", "--format", "page")
    assert outcome.code == 1  # line b cannot be read and is named in the error
    assert "page.xml#b" in outcome.stderr
    root = ElementTree.fromstring(outcome.stdout)
    out = tmp_path / "out.xml"
    out.write_text(outcome.stdout)
    page = read_page(out)
    assert [line.id for line in page.lines] == ["a", "b"]
    assert page.lines[0].text == htr("transcribe", best, tmp_path / "page.xml").stdout.rstrip("\n")
    assert page.lines[1].text == "stays"
    assert root[1].get("custom") == "kept"
    words = [e for e in root.iter() if e.tag.endswith("Word")]
    assert " ".join(word[-1][0].text for word in words) == page.lines[0].text


def test_evaluate_gives_exactly_the_counts_of_the_training_run(
    best: Path, run_folder: Path, htr, tmp_path: Path
) -> None:
    outcome = htr("evaluate", best, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    figures = json.loads((run_folder / "summary.json").read_text())
    assert metrics["edits"] == figures["test_edits"]
    assert metrics["characters"] == figures["test_characters"]
    assert metrics["cer"] == figures["test_cer"]
    predictions = [json.loads(row) for row in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [p["id"] for p in predictions] == [f"synthetic/test/{n}" for n in range(24)]
    assert predictions[0].keys() == {"id", "reference", "hypothesis", "confidence", "group", "words", "characters"}


def test_evaluate_composes_other_data(best: Path, htr, tmp_path: Path) -> None:
    overrides = [
        "data=synthetic",
        "data.reader.lines={train: 1, val: 1, test: 5}",
        "data.reader.writers={train: 1, val: 1, test: 2}",
    ]
    assert htr("evaluate", best, *overrides, "--out", tmp_path).code == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["lines"] == 5
    results = open_results(tmp_path)  # a report has pictures without a repetition of the overrides
    assert results.reader is not None, results.note
    assert list(results.reader.ids) == [one.id for one in results.predictions]


def test_a_recognizer_of_the_package_needs_data(htr, tmp_path: Path) -> None:
    outcome = htr("evaluate", "latin-modern", "--out", tmp_path / "out")
    assert outcome.code == 1
    assert "or choose data of your own, e.g. data=page_xml" in outcome.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("budget", [(1, 10**6), (2, 10**6), (7, 10**6), (32, 10**6), (16, 900)])
def test_batches_of_any_size_read_the_same(best: Path, budget: tuple[int, int]) -> None:
    recognizer = checkpoint.load(best)
    alone = recognizer.read([lines()[4]])[0]
    data = data_for(recognizer, [f"data.max_lines={budget[0]}", f"data.max_columns={budget[1]}"])
    predictions, totals = evaluate(recognizer, data)
    whole, same = evaluate(recognizer, data_for(recognizer))
    assert totals == same
    assert [p.hypothesis for p in predictions] == [p.hypothesis for p in whole]
    assert alone.text == recognizer.read(lines())[4].text


def test_what_is_read_goes_to_stdout_when_stderr_is_a_terminal(best: Path, line_image: Path, tmp_path: Path) -> None:
    """Rich's progress bar would redirect stdout to the terminal."""
    terminal, stderr = pty.openpty()
    command = [sys.executable, "-m", "htr_lightning", "transcribe", str(best), str(line_image)]
    with open(tmp_path / "out.txt", "w") as out:
        subprocess.run(command, stdout=out, stderr=stderr, check=True, env={**os.environ, "TERM": "xterm"})
    os.close(stderr)
    os.close(terminal)
    assert (tmp_path / "out.txt").read_text() == checkpoint.load(best).read([read_image(line_image)])[0].text + "\n"


def test_htr_transcribe_normalises_as_validation_does(make_recognizer) -> None:
    class Spaced(Greedy):
        def __call__(self, log_probs: np.ndarray, lengths: np.ndarray) -> list[Hypothesis]:
            return [Hypothesis([1, 2, 1, 1, 3, 1], -1.0, -1.0)] * len(lengths)

    recognizer = make_recognizer().with_decoder(Spaced())
    assert recognizer.codec.decode([1, 2, 1, 1, 3, 1]) == " a  b "
    assert recognizer.read([lines(1)[0]])[0].text == "a b"


def test_evaluate_refuses_foreign_code_in_a_checkpoint(best: Path, htr, tmp_path: Path) -> None:
    made = tmp_path / "made"
    evil = {"_target_": "os.mkdir", "path": str(made)}
    for place in ("alphabet", "training"):
        content = torch.load(best, weights_only=True)
        if place == "alphabet":
            content["htr"]["alphabet"] = evil
        else:
            content["htr"]["training"]["data"]["augment"] = evil
            content["htr"]["training"]["data"]["reader"]["words"] = evil
        torch.save(content, tmp_path / "evil.ckpt")
        outcome = htr("evaluate", tmp_path / "evil.ckpt", "--out", tmp_path / "out")
        assert outcome.code == 1
        assert "evil.ckpt" in outcome.stderr or "os.mkdir" in outcome.stderr
        assert not made.exists()


def test_evaluate_measures_training_lines_as_they_are(best: Path) -> None:
    recognizer = checkpoint.load(best)
    first, _ = evaluate(recognizer, data_for(recognizer), "train")
    second, _ = evaluate(recognizer, data_for(recognizer), "train")
    assert first == second
    assert len(first) == 96


def test_a_page_file_is_never_overwritten(best: Path, htr, tmp_path: Path) -> None:
    page = write_page(tmp_path, lines(2))
    assert htr("transcribe", best, page, "--format", "page", "--out", tmp_path / "out").code == 0
    before = (tmp_path / "out" / "page.xml").read_bytes()
    again = htr("transcribe", best, page, "--format", "page", "--out", tmp_path / "out")
    assert again.code == 1
    assert "file already exists" in again.stderr
    assert (tmp_path / "out" / "page.xml").read_bytes() == before


def test_a_page_without_lines_is_told_and_written(best: Path, htr, tmp_path: Path) -> None:
    page = write_page(tmp_path, lines(1))
    page.write_text(re.sub("<TextLine.*/>", "", page.read_text()))
    outcome = htr("transcribe", best, page, "--format", "page", "--out", tmp_path / "out")
    assert outcome.code == 0
    assert "page.xml: the page has no lines" in outcome.stderr
    assert read_page(tmp_path / "out" / "page.xml").lines == []


def test_pages_are_opened_as_they_come_and_pixels_are_bounded(
    make_recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = lines(12)
    for number in range(6):
        write_page(tmp_path, images[2 * number : 2 * number + 2], f"{number}")
    sources = find_sources([str(tmp_path)]).sources
    opened: list[Path] = []
    read_page_before = module.read_page
    monkeypatch.setattr(module, "read_page", lambda path: opened.append(path) or read_page_before(path))
    recognizer = make_recognizer()
    whole = [(line.name, line.text) for line in module.transcribe(recognizer, sources)]
    assert len(whole) == 12
    opened.clear()
    monkeypatch.setattr(module, "CHUNK_PIXELS", 1)  # less than a line has
    found, files = [], []
    for line in module.transcribe(recognizer, sources, advance=files.append):
        found.append((line.name, line.text))
        assert len(opened) == len({name.split("#")[0] for name, _ in found})
    assert found == whole
    assert sum(files) == 6


def test_lines_are_kept_as_small_as_the_recognizer_reads_them(make_recognizer) -> None:
    recognizer = make_recognizer()
    reduce = module._reduction(recognizer)
    image = np.kron(lines(1)[0], np.ones((8, 8), np.uint8))
    kept = reduce(image)
    assert kept.shape[0] == recognizer.preprocess.max_rows
    assert np.array_equal(recognizer.preprocess(image), recognizer.preprocess(kept))
    other = make_recognizer()
    other.preprocess.height = 64
    several = Ensemble([recognizer, other], ["a", "b"])
    assert module._reduction(several)(image) is image  # each member reduces scans in its own way


def test_an_interrupted_evaluation_goes_on(best: Path, htr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["evaluate", best, "data.max_lines=5", "--out"]
    assert htr(*given, tmp_path / "whole").code == 0
    from htr_lightning.evidence import evaluate as verb

    before, batches = verb._read, []

    def fails(read, samples):
        batches.append(len(samples))
        if len(batches) == 3:
            raise InputError("the third batch cannot be read")
        return before(read, samples)

    monkeypatch.setattr(verb, "_read", fails)
    assert "the third batch" in htr(*given, tmp_path / "out").stderr
    assert not (tmp_path / "out" / "predictions.jsonl").exists()
    outcome = htr(*given, tmp_path / "out")
    assert outcome.code == 0
    assert f"note: going on after {sum(batches[:2])} lines" in outcome.stderr
    assert sum(batches[3:]) == 24 - sum(batches[:2])
    one, other = (tmp_path / folder for folder in ("out", "whole"))
    assert (one / "predictions.jsonl").read_bytes() == (other / "predictions.jsonl").read_bytes()
    figures = [json.loads((folder / "metrics.json").read_text()) for folder in (one, other)]
    assert all(figure.pop("clock") for figure in figures)
    assert figures[0] == figures[1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["metrics.json", "predictions.jsonl"]


@pytest.fixture
def scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page of twelve lines without XML, on which lines are found without a detector."""
    monkeypatch.setattr(segment_page, "detector", lambda: None)
    monkeypatch.setattr(detect, "detector", lambda: None)
    page = np.full((940, 720), 235, np.uint8)
    rng = np.random.default_rng(0)
    for y in range(140, 860, 60):
        for x in range(60, 640, 16):  # letters, some of them with ascenders and descenders
            up, down = int(rng.choice((12, 26), p=(0.7, 0.3))), int(rng.choice((0, 14), p=(0.8, 0.2)))
            cv2.line(page, (x, y - up), (x, y + down), 40, 3)
            cv2.line(page, (x, y), (x + 10, y - 12), 40, 2)
    Image.fromarray(page).save(tmp_path / "scan.png")
    return tmp_path / "scan.png"


def test_a_page_without_xml_is_transcribed_line_by_line(best: Path, htr, scan: Path, tmp_path: Path) -> None:
    Image.fromarray(lines(1)[0]).save(tmp_path / "line.png")
    again = scan.with_name("again.png")
    again.write_bytes(scan.read_bytes())
    done = htr("transcribe", best, scan, again, tmp_path / "line.png", "--format", "tsv", "--show", tmp_path / "shown")
    assert done.code == 0
    assert done.stderr.count("install htr-lightning[pages]") == 1
    names = [row.split("\t")[0] for row in done.stdout.splitlines()]
    assert names == [f"{path}#line_{n}" for path in (scan, again) for n in range(1, 13)] + [f"{tmp_path}/line.png"]
    assert sorted(path.name for path in (tmp_path / "shown").iterdir()) == ["again-lines.jpg", "scan-lines.jpg"]
    shown = np.asarray(Image.open(tmp_path / "shown" / "scan-lines.jpg"))
    assert shown.shape == (*read_image(scan).shape, 3)
    assert np.ptp(shown, axis=2).max() > 50  # lines are drawn in colour

    assert htr("transcribe", best, scan, "--format", "page", "--out", tmp_path / "out").code == 0
    page = read_page(tmp_path / "out" / "scan.xml")
    assert [line.id for line in page.lines] == [f"line_{n}" for n in range(1, 13)]
    assert all(line.baseline and len(line.polygon) > 3 for line in page.lines)
    (tmp_path / "out" / "scan.png").write_bytes(scan.read_bytes())
    both = [htr("transcribe", best, path).stdout for path in (scan, tmp_path / "out" / "scan.xml")]
    assert both[0] == both[1]  # the file says where the same lines are


def test_what_is_a_page_can_be_said(best: Path, htr, scan: Path, tmp_path: Path) -> None:
    assert len(htr("transcribe", best, scan, "--lines").stdout.splitlines()) == 1
    Image.fromarray(lines(1)[0]).save(tmp_path / "line.png")
    rows = htr("transcribe", best, tmp_path / "line.png", "--pages", "--format", "tsv").stdout.splitlines()
    assert rows
    assert all(row.startswith(f"{tmp_path}/line.png#line_") for row in rows)
    done = htr("transcribe", "digits", scan, tmp_path / "line.png")
    assert done.code == 1
    assert "scan.png: looks like a whole page, but a single character is expected" in done.stderr
    blank = tmp_path / "blank.png"
    Image.fromarray(np.full((900, 700), 235, np.uint8)).save(blank)
    done = htr("transcribe", best, blank, "--pages", "--format", "page", "--out", tmp_path / "out")
    assert (done.code, "blank.png: the page has no lines" in done.stderr) == (0, True)
    assert read_page(tmp_path / "out" / "blank.xml").lines == []
    two = tmp_path / "more" / "line.tif"
    two.parent.mkdir()
    Image.fromarray(lines(1)[0]).save(two)
    done = htr("transcribe", best, tmp_path / "line.png", two, "--show", tmp_path / "shown")
    assert "have the same picture" in done.stderr


def test_a_blank_image_has_no_text_and_is_noted(best: Path, htr, tmp_path: Path) -> None:
    Image.fromarray(np.full((60, 400), 235, np.uint8)).save(tmp_path / "blank.png")
    Image.fromarray(lines(1)[0]).save(tmp_path / "line.png")
    done = htr("transcribe", best, tmp_path / "blank.png", tmp_path / "line.png", "--format", "tsv")
    assert done.code == 0
    assert done.stdout.splitlines()[0] == f"{tmp_path / 'blank.png'}\t\t1.0000"
    assert done.stderr == f"note: {tmp_path / 'blank.png'}: no writing found\n"


def test_a_blank_image_is_read_alike_by_every_recognizer(best: Path, make_recognizer) -> None:
    images = [np.full((60, 400), 235, np.uint8), lines(1)[0]]
    ensemble = Ensemble([checkpoint.load(best), make_recognizer()], ["a", "b"], views=2)
    for recognizer in (checkpoint.load(best), ensemble):
        blank, line = recognizer.read(images)
        assert (blank.text, blank.confidence, blank.alternatives) == ("", 1.0, ())
        assert line.text
    beam = make_recognizer().with_candidates()
    assert beam.read(images, 3)[0] == Transcription("", 1.0, (Alternative("", 1.0, 0.0),))


def test_lines_with_a_baseline_only_are_read_and_written_with_their_polygon(best: Path, htr, tmp_path: Path) -> None:
    page = write_page(tmp_path, lines(3))
    boxes = [line.polygon for line in read_page(page).lines]
    body = page.read_text()
    for number, box in enumerate(boxes):
        (left, top), (right, bottom) = box[0], box[2]
        base = top + 0.7 * (bottom - top)
        old = f'HPOS="{left:.0f}" VPOS="{top:.0f}" WIDTH="{right - left:.0f}" HEIGHT="{bottom - top:.0f}"'
        assert old in body
        body = body.replace(f'ID="l{number}" {old}', f'ID="l{number}" BASELINE="{left} {base} {right} {base}"')
    page.write_text(body)
    outcome = htr("transcribe", best, page, "--format", "page", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.stderr
    written = read_page(tmp_path / "out" / "page.xml").lines
    assert [bool(line.text) for line in written] == [True] * 3
    for line, box in zip(written, boxes, strict=True):
        ys = [y for _, y in line.polygon]
        assert min(ys) < (box[0][1] + box[2][1]) / 2 < max(ys)


def test_a_mets_is_read_in_its_order(best: Path, htr, tmp_path: Path) -> None:
    for name, image in zip("ab", lines(2), strict=True):
        write_page(tmp_path, [image], name)
    files = "".join(
        f'<file ID="{name}"><FLocat xmlns:xlink="http://www.w3.org/1999/xlink" xlink:href="{name}.xml"/></file>'
        for name in "ba"
    )
    (tmp_path / "mets.xml").write_text(f"<mets><fileSec><fileGrp>{files}</fileGrp></fileSec></mets>")
    for name in (tmp_path, tmp_path / "mets.xml"):
        outcome = htr("transcribe", best, name, "--format", "tsv")
        assert outcome.code == 0, outcome.stderr
        assert [Path(row.split("#")[0]).stem for row in outcome.stdout.splitlines()] == ["b", "a"]


def test_pages_without_words_are_announced(htr, tmp_path: Path) -> None:
    write_page(tmp_path, lines(1), "page")
    outcome = htr("transcribe", "digits", tmp_path / "page.xml", "--format", "alto")
    assert "without the boxes of their words" in outcome.stderr
    for wrong in (["--language", "d e", "--format", "page"], ["--glyphs", "--format", "tsv"], ["--format", "pdf"]):
        refused = htr("transcribe", "digits", tmp_path / "page.xml", *wrong)
        assert (refused.code, refused.stderr.count("\n"), refused.stderr.startswith("error: --")) == (1, 1, True)
