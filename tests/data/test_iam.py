"""IAM trees in the official layout: what is read, what is skipped and counted, and what is reported missing."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from conftest import SMALL

from htr_lightning import checkpoint
from htr_lightning.build import data_for
from htr_lightning.data.image import read_image
from htr_lightning.data.preprocess import FitHeight
from htr_lightning.data.reader.iam import Iam
from htr_lightning.errors import InputError

from .iam_tree import D04, SIZE, SPLITS, Forms, image, own, png, write_form, write_words

ROOT = Path(__file__).parent.parent.parent


def test_samples_say_what_the_lists_say(small_iam: Path) -> None:
    replace(image(small_iam, "a01-003-01"), png(1))
    reader = own(small_iam)
    samples = list(reader)
    assert [(s.id, s.text, s.group) for s in samples] == list(zip(reader.ids, reader.texts, reader.groups, strict=True))
    assert [s.image.shape for s in samples] == reader.sizes
    np.testing.assert_array_equal(
        reader[reader.ids.index("iam/a01-003-01")].image, read_image(image(small_iam, "a01-003-01"))
    )
    np.testing.assert_array_equal(reader[-1].image, samples[-1].image)


def test_the_reader_spaces_or_joins_as_asked(small_iam: Path) -> None:
    spaced, joined = own(small_iam), own(small_iam, punctuation="joined")
    assert spaced.texts[:5] == ["A MOVE to stop", "M Ps tomorrow .", "0M Ps say", "a # word , gone", "nominees . He"]
    assert joined.texts[:5] == ["A MOVE to stop", "M Ps tomorrow.", "0M Ps say", "a # word, gone", "nominees. He"]


def test_lines_marked_err_are_kept_or_counted_out(small_iam: Path) -> None:
    kept, skipping = own(small_iam), own(small_iam, err="skip")
    assert len(kept) == 11
    assert not kept.skipped
    assert kept.err == skipping.err == len(skipping.skipped) == 3
    assert {s.kind for s in skipping.skipped} == {"segmentation err"}
    assert {s.id for s in skipping.skipped} | set(skipping.ids) == set(kept.ids)
    assert own(small_iam, err="keep").ids == kept.ids


@contextmanager
def without(root: Path, ids: list[str]) -> Iterator[None]:
    """A tree while it lacks some images."""
    for id in ids:
        image(root, id).unlink()
    try:
        yield
    finally:
        for id in ids:
            os.link(root / "line.png", image(root, id))


def replace(path: Path, content: bytes) -> None:
    """Write an image that shares no bytes with others."""
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("spread", [False, True], ids=["in one split", "over all splits"])
def test_ten_missing_images_are_all_named(iam_tree: tuple[Path, Forms], spread: bool) -> None:
    root, ids = iam_tree
    some = [*ids["train"][5:8], *ids["val"][3:6], *ids["test"][-4:]] if spread else ids["train"][7:4000:400]
    assert len(some) == 10
    with without(root, some), pytest.raises(InputError, match=r"missing line images \(10 of 10373, ") as error:
        Iam(root, "train")
    assert all(image(root, id).relative_to(root).as_posix() in str(error.value) for id in some)
    assert "more" not in str(error.value)
    assert "\n" not in str(error.value)


def test_of_many_missing_images_ten_are_named_and_all_counted(iam_tree: tuple[Path, Forms]) -> None:
    root, ids = iam_tree
    with without(root, ids["val"][:12]):
        with pytest.raises(InputError, match=r"12 of 10373, 12 in split 'val'.* and 2 more") as error:
            Iam(root, "val")
        assert len(Iam(root, "train")) == 6482
    assert str(error.value).count(".png") == 10


@pytest.fixture
def lines_txt(iam_tree: tuple[Path, Forms]) -> Iterator[Path]:
    """The table of the whole tree, for a test to spoil."""
    path = iam_tree[0] / "ascii" / "lines.txt"
    content = path.read_bytes()
    yield path
    path.write_bytes(content)


def drop(path: Path, *starts: str) -> None:
    """Take out the rows that begin so."""
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(row for row in rows if not row.startswith(tuple(s.encode() for s in starts))))


def test_lines_that_lines_txt_lacks_are_named(iam_tree: tuple[Path, Forms], lines_txt: Path) -> None:
    root, ids = iam_tree
    inner, last = ids["val"][2], ids["val"][-1]
    assert ids["val"][1].rsplit("-", 1)[0] == inner.rsplit("-", 1)[0]
    drop(lines_txt, f"{inner} ")
    with pytest.raises(InputError, match=rf"976 lines .* 'val', got 975 \(missing: {inner}\);"):
        Iam(root, "val")
    drop(lines_txt, f"{last} ")  # the last of its form: only forms.txt can tell
    with pytest.raises(InputError, match=rf"976 lines .* 'val', got 974 \(missing: {inner}\);"):
        Iam(root, "val")
    forms = root / "ascii" / "forms.txt"
    counts: dict[str, int] = {}
    for id in ids["val"]:
        counts[id.rsplit("-", 1)[0]] = counts.get(id.rsplit("-", 1)[0], 0) + 1
    forms.write_text("# forms\n" + "".join(f"{form} 007 2 prt {n} {n} 52 36\n" for form, n in counts.items()))
    try:
        with pytest.raises(InputError, match=rf"976 lines .* 'val', got 974 \(missing: {inner}, {last}\);"):
            Iam(root, "val")
    finally:
        forms.unlink()


def test_forms_that_lines_txt_lacks_are_named(iam_tree: tuple[Path, Forms], lines_txt: Path) -> None:
    root, ids = iam_tree
    lost = ids["test"][0].rsplit("-", 1)[0]
    drop(lines_txt, f"{lost}-")
    with pytest.raises(InputError, match=f"no lines for {lost} in split 'test'"):
        Iam(root, "test")


def test_the_group_is_the_writer_named_in_forms_txt(small_iam: Path) -> None:
    assert own(small_iam).groups == ["a01-000u"] * 4 + ["a01-003"] * 4 + ["b02-114x"] * 3
    (small_iam / "ascii" / "forms.txt").write_bytes(
        b"# forms\r\na01-000u 000 2 prt 7 5 52 36\r\na01-003 002 2 prt 7 5 52 36\r\n"
    )
    assert own(small_iam).groups == ["000"] * 4 + ["002"] * 4 + ["b02-114x"] * 3
    (small_iam / "ascii" / "forms.txt").write_text("a01-000u 000\n")
    with pytest.raises(InputError, match=r"forms\.txt: row 1: invalid form 'a01-000u 000'"):
        own(small_iam)


def test_sizes_come_from_the_table_and_only_unknown_ones_from_the_image(small_iam: Path) -> None:
    path = small_iam / "ascii" / "lines.txt"
    rows = path.read_text().replace("a01-000u-00 ok 154 19 408 746 160 32", "a01-000u-00 ok 154 19 408 746 1661 89")
    path.write_text(rows.replace("a01-003-00 ok 154 19 408 746 160 32", "a01-003-00 ok 154 19 408 746 -1 -1"))
    reader = own(small_iam)
    assert reader.sizes[0] == (89, 1661)
    assert reader.sizes[reader.ids.index("iam/a01-003-00")] == SIZE
    replace(image(small_iam, "a01-003-00"), b"no image")
    with pytest.raises(InputError, match=r"a01-003-00\.png: not an image"):
        _ = own(small_iam).sizes


def test_words_are_read_and_the_two_known_corrupt_ones_reported(tmp_path: Path) -> None:
    ids = ["a01-117-05-01", "a01-117-05-02", "a01-117-05-03", "r06-022-03-05", "r06-022-03-06", "r06-022-03-07"]
    write_words(tmp_path, ids)
    words = tmp_path / "words"
    assert len(own(tmp_path, unit="word").skipped) == 1  # the line marked err: repaired images are read
    (words / "a01" / "a01-117" / "a01-117-05-02.png").write_bytes(b"")
    (words / "r06" / "r06-022" / "r06-022-03-05.png").unlink()
    reader = own(tmp_path, unit="word")
    assert reader.ids == ["iam/a01-117-05-01", "iam/a01-117-05-03", "iam/r06-022-03-07"]
    assert [sample.text for sample in reader] == ["word0", "word2", "word5"]
    assert {(s.id, s.kind) for s in reader.skipped} == {
        ("iam/r06-022-03-06", "segmentation err"),
        ("iam/a01-117-05-02", "corrupt image"),
        ("iam/r06-022-03-05", "corrupt image"),
    }
    assert len(own(tmp_path, unit="word", err="keep")) == 4
    (words / "a01" / "a01-117" / "a01-117-05-03.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"a01-117-05-03\.png: not an image"):
        list(own(tmp_path, unit="word"))
    (words / "a01" / "a01-117" / "a01-117-05-03.png").unlink()
    with pytest.raises(InputError, match=r"missing word images \(1 of 6, .*a01-117-05-03.*words\.tgz"):
        own(tmp_path, unit="word")


def test_lines_of_forms_are_cropped_to_the_pixel(small_iam: Path) -> None:
    write_form(small_iam, "d04-000", (300, 320), D04)
    path = small_iam / "ascii" / "lines.txt"
    row = next(row for row in path.read_text().splitlines() if row.startswith("d04-000-04 "))
    fields = row.split()
    path.write_text(path.read_text().replace(row, " ".join([*fields[:4], "5", "250", "40", "30", "A"])))
    shutil.rmtree(small_iam / "lines")  # not needed
    reader = own(small_iam, "test", source="forms", reduce=FitHeight(32).reduce)
    form = read_image(small_iam / "formsA-D" / "d04-000.png")
    assert reader.ids == [f"iam/d04-000-{n:02}" for n in range(5)]
    assert [s.image.shape for s in reader] == reader.sizes == [(37, 130), (30, 60), (64, 178), (40, 30), (30, 40)]
    np.testing.assert_array_equal(reader[0].image, form[5:42, 20:150])
    np.testing.assert_array_equal(reader[1].image, form[50:80, 20:80])
    np.testing.assert_array_equal(reader[3].image, form[200:240, 290:320])
    np.testing.assert_array_equal(reader[4].image, form[250:280, 5:45])  # no component: the box of lines.txt
    assert [(s.id, s.kind) for s in reader.skipped] == [("iam/d04-000-09", "line in xml/ but not in lines.txt")]
    tall = own(small_iam, "test", source="forms")
    np.testing.assert_array_equal(tall[2].image, form[100:190, 20:270])


def test_words_of_forms_are_cropped_to_the_pixel(tmp_path: Path) -> None:
    write_words(tmp_path, ["d04-000-00-00", "d04-000-00-01"])
    write_form(tmp_path, "d04-000", (300, 320), {"d04-000-00": D04["d04-000-00"]})
    form = read_image(tmp_path / "formsA-D" / "d04-000.png")
    reader = own(tmp_path, unit="word", source="forms")
    np.testing.assert_array_equal(reader[0].image, form[5:30, 20:60])
    np.testing.assert_array_equal(reader[1].image, form[12:42, 100:150])


def test_forms_that_are_missing_or_do_not_fit_are_refused(small_iam: Path) -> None:
    write_form(small_iam, "a01-000u", (300, 320), {})
    with pytest.raises(InputError, match=r"missing files .* \(2\): forms/d04-000\.png, xml/d04-000\.xml"):
        own(small_iam, "test", source="forms")
    write_form(small_iam, "d04-000", (300, 320), {"d04-000-00": [[(900, 900, 5, 5)]]})
    with pytest.raises(InputError, match="iam/d04-000-00: the box 900,900 905,905 is outside"):
        own(small_iam, "test", source="forms")
    xml = small_iam / "xml" / "d04-000.xml"
    xml.write_text(xml.read_text().replace('width="320" height="300"', 'width="640" height="600"'))
    with pytest.raises(InputError, match=r"640 x 600 pixels according to d04-000\.xml, got 320 x 300"):
        own(small_iam, "test", source="forms")
    xml.write_text("<PcGts/>")
    with pytest.raises(InputError, match="no <handwritten-part>"):
        own(small_iam, "test", source="forms")


@pytest.mark.parametrize(
    "options",
    [{"unit": "page"}, {"source": "scans"}, {"err": "drop"}, {"punctuation": "none"},
     {"splits": "Aachen"}],
    ids=str,
)  # fmt: skip
def test_an_invalid_option_is_refused(small_iam: Path, options: dict) -> None:
    with pytest.raises(InputError, match=f"data.reader.{next(iter(options))}="):
        Iam(small_iam, **options)


def test_a_folder_that_is_no_tree_is_refused(small_iam: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.root is not set"):
        Iam()
    with pytest.raises(InputError, match="nowhere: no such folder"):
        Iam(tmp_path / "nowhere")
    with pytest.raises(InputError, match="'validation' is not a split"):
        own(small_iam, "validation")
    with pytest.raises(InputError, match=r"missing ascii/words\.txt and words/"):
        own(small_iam, unit="word")
    (small_iam / "ascii" / "lines.txt").rename(small_iam / "lines.txt")  # unpacked without its folder
    assert len(own(small_iam)) == 11


@pytest.mark.slow
def test_two_ranks_train_on_a_tree(iam_tree: tuple[Path, Forms], tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "train.py"), "model=crnn", "data=iam", f"data.root={iam_tree[0]}",
            *(option for option in SMALL if not option.startswith("data.reader")), "trainer.max_steps=6",
            "trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=ddp", f"hydra.run.dir={run}",
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    card = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["htr"]
    assert [card["data"][split]["lines"] for split in SPLITS] == [6482, 976, 2915]
    assert card["training"]["data"]["reader"]["punctuation"] == "spaced"
    assert json.loads((run / "summary.json").read_text())["test_lines"] == 2915
    again = data_for(checkpoint.load(run / "checkpoints" / "best.ckpt"))  # what `htr evaluate` reads
    assert len(again.lines("val")) == 976


def unpacked(root: Path, *files: str) -> None:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


LINE = "lines/a01/a01-000u/a01-000u-00.png"


@pytest.mark.parametrize(
    ("files", "options", "state", "archives"),
    [
        ([], {}, "the folder is empty", "ascii.tgz into ascii/ and lines.tgz into lines/"),
        (["notes.txt"], {}, "missing ascii/lines.txt and lines/", "ascii.tgz into ascii/ and lines.tgz into lines/"),
        (["ascii/lines.txt"], {}, "missing lines/", "lines.tgz into lines/"),
        (["lines.txt"], {}, "missing lines/", "lines.tgz into lines/"),
        ([LINE], {}, "missing ascii/lines.txt", "ascii.tgz into ascii/"),
        ([LINE, "ascii/words.txt"], {}, "missing ascii/lines.txt", "ascii.tgz into ascii/"),
        (["ascii.tgz", "lines.tgz"], {}, "(ascii.tgz, lines.tgz not unpacked)", "lines.tgz into lines/"),
        (["ascii/lines.txt", "lines.tgz"], {}, "missing lines/ (lines.tgz not unpacked)", "lines.tgz into lines/"),
        (
            ["ascii/lines.txt", "a01/a01-000u/a01-000u-00.png"],
            {},
            "a01/ and its siblings belong in lines/",
            "lines.tgz",
        ),
        (["ascii/words.txt", LINE], {"unit": "word"}, "missing words/", "words.tgz into words/"),
        (
            ["ascii/lines.txt", LINE],
            {"source": "forms"},
            "missing forms/ and xml/",
            "formsI-Z.tgz into forms/ and xml.tgz",
        ),
        (["ascii/lines.txt", "formsA-D/a01-000u.png"], {"source": "forms"}, "missing xml/", "xml.tgz into xml/"),
    ],
)
def test_what_is_still_to_be_unpacked_is_named_before_any_network_is_tried(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: list[str],
    options: dict[str, str],
    state: str,
    archives: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the network was tried")

    monkeypatch.setattr(pooch, "retrieve", fail)
    monkeypatch.setattr(socket, "create_connection", fail)
    unpacked(tmp_path, *files)
    with pytest.raises(InputError) as error:
        Iam(tmp_path, **options)
    message = str(error.value)
    assert message.startswith(f"{tmp_path}: ")
    assert state in message
    assert archives in message
    assert "https://fki.tic.heia-fr.ch/databases/iam-handwriting-database" in message
    assert "data=huggingface data.repo=Teklia/IAM-line" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("root", [None, "nowhere"])
def test_a_missing_root_names_the_registration_and_the_hub(tmp_path: Path, root: str | None) -> None:
    with pytest.raises(InputError, match=r"ascii/ and lines/.*registration at https://fki.*data\.repo=Teklia/IAM-line"):
        Iam(None if root is None else tmp_path / root)
