"""IAM trees in the official layout, made here: what is read, what is counted, and what is missing by name."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import SMALL

from htr_lightning import checkpoint
from htr_lightning.data.image import read_image
from htr_lightning.data.reader.iam import Iam
from htr_lightning.data.reader.iam_files import Row, join_punctuation, read_boxes, read_forms, read_rows
from htr_lightning.data.reader.iam_splits import AACHEN_FORMS, AACHEN_LINES, split_ids
from htr_lightning.data.sample import Reader
from htr_lightning.errors import InputError
from htr_lightning.evaluate import data_for

ROOT = Path(__file__).parent.parent.parent
HEADER = "#--- lines.txt ---#\r\n#\r\n# format: a01-000u-00 ok 154 19 408 746 1661 89 A|MOVE\r\n#\r\n"
TEXTS = ["A|MOVE|to|stop", "M Ps|tomorrow|.", "0M Ps|say", "a|#|word|,|gone", "nominees|.|He", '"|White|House|"']
SIZE = (32, 160)  # height, width
SPLITS = ("train", "val", "test")
Forms = dict[str, list[str]]


def png(seed: int = 0) -> bytes:
    image = np.full(SIZE, 230, np.uint8)
    cv2.putText(image, f"line {seed}", (5, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 20, 2, cv2.LINE_AA)
    return cv2.imencode(".png", image)[1].tobytes()


def line_row(id: str, number: int) -> str:
    width, height = (-1, -1) if number % 50 == 49 else SIZE[::-1]
    status = ("ok", "ok", "err", "ok", "ok", "ok", "er")[number % 7]
    return f"{id} {status} 154 19 408 746 {width} {height} {TEXTS[number % len(TEXTS)]}\r\n"


def write_tree(root: Path, forms: Forms, lines: dict[str, int], lists: str = "{}.uttlist") -> Forms:
    """A tree with the lines of each split spread over its forms, and its lists; the ids of the lines."""
    (root / "ascii").mkdir(parents=True)
    (root / "line.png").write_bytes(png())
    ids: Forms = {}
    rows = []
    for split in SPLITS:
        each, more = divmod(lines[split], len(forms[split]))
        ids[split] = [f"{f}-{n:02}" for place, f in enumerate(forms[split]) for n in range(each + (place < more))]
        for form in forms[split]:
            (root / "lines" / form.split("-")[0] / form).mkdir(parents=True)
        for id in ids[split]:
            os.link(root / "line.png", image(root, id))
            rows.append(line_row(id, len(rows)))
        name = {"val": "validation"}.get(split, split)
        (root / lists.format(name)).write_text("\n".join(forms[split]) + "\n")
    (root / "ascii" / "lines.txt").write_bytes((HEADER + "".join(rows)).encode())
    return ids


def image(root: Path, id: str) -> Path:
    first, form, *_ = id.split("-")
    return root / "lines" / first / f"{first}-{form}" / f"{id}.png"


def made_up_forms() -> Forms:
    """As many forms as the Aachen split has, ids of several lengths."""
    names = iter(f"{'abcdefgh'[i % 8]}{i % 10:02}-{i:03}{('', 'u', 'x')[i % 3]}" for i in range(2000))
    return {split: [next(names) for _ in range(count)] for split, count in AACHEN_FORMS.items()}


def real_lists() -> Path:
    folder = Path(os.environ.get("HTR_DATA", "nowhere")).parent / "formats" / "iam_splits"
    if not folder.is_dir():
        pytest.skip("the Aachen lists: put aachen_{train,validation,test}.txt into HTR_DATA/../formats/iam_splits")
    return folder


@pytest.fixture(scope="module")
def aachen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Forms]:
    """A whole tree of 10,373 lines, and their ids."""
    root = tmp_path_factory.mktemp("iam")
    return root, write_tree(root, made_up_forms(), AACHEN_LINES)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A tree of six forms and 23 lines with a split of its own, in `own/`."""
    root = tmp_path / "small"
    (root / "own").mkdir(parents=True)
    forms = {"train": ["a01-000u", "a01-003", "b02-114x"], "val": ["c03-000", "c03-001"], "test": ["d04-000"]}
    write_tree(root, forms, {"train": 11, "val": 7, "test": 5}, lists="own/{}.txt")
    return root


def own(root: Path, split: str = "train", **options: object) -> Iam:
    return Iam(root, split, splits="own", **options)  # type: ignore[arg-type]


def test_a_tree_in_the_official_layout_has_the_lines_that_papers_count(aachen: tuple[Path, Forms]) -> None:
    root, ids = aachen
    readers = [Iam(root, split) for split in SPLITS]
    assert [len(reader) for reader in readers] == [6482, 976, 2915]
    for split, reader in zip(SPLITS, readers, strict=True):
        assert isinstance(reader, Reader)
        assert reader.ids == [f"iam/{id}" for id in ids[split]]
        assert not reader.skipped
    texts = [text for reader in readers for text in reader.texts]
    assert texts == [TEXTS[i % len(TEXTS)].replace("|", " ") for i in range(10373)]
    assert sum(reader.err for reader in readers) == sum(i % 7 in (2, 6) for i in range(10373))


def test_the_published_lists_give_the_lines_that_papers_count(tmp_path: Path) -> None:
    lists = real_lists()
    names = {"train": "train", "val": "validation", "test": "test"}
    forms = {split: (lists / f"aachen_{name}.txt").read_text().split() for split, name in names.items()}
    write_tree(tmp_path / "iam", forms, AACHEN_LINES)
    for path in (tmp_path / "iam").glob("*.uttlist"):
        path.unlink()
    assert [len(Iam(tmp_path / "iam", split, lists=str(lists))) for split in SPLITS] == [6482, 976, 2915]


def test_samples_say_what_the_lists_say(small: Path) -> None:
    replace(image(small, "a01-003-01"), png(1))
    reader = own(small)
    samples = list(reader)
    assert [(s.id, s.text, s.group) for s in samples] == list(zip(reader.ids, reader.texts, reader.groups, strict=True))
    assert [s.image.shape for s in samples] == reader.sizes
    np.testing.assert_array_equal(
        reader[reader.ids.index("iam/a01-003-01")].image, read_image(image(small, "a01-003-01"))
    )
    np.testing.assert_array_equal(reader[-1].image, samples[-1].image)


def write_rows(folder: Path, *rows: str) -> Path:
    path = folder / "rows.txt"
    path.write_bytes("".join(f"{row}\r\n" for row in ("# comment", *rows)).encode())
    return path


def test_rows_of_lines_are_read_to_the_last_blank(tmp_path: Path) -> None:
    path = write_rows(
        tmp_path,
        "a01-000u-00 ok 154 19 408 746 1661 89 A|MOVE|to",
        "c03-094d-10 err 154 19 -1 -1 -1 -1 M Ps|#|.",
        "a01-003-01 er 154 19 1 2 3 4 0M Ps",
        "",
    )
    assert read_rows(path, "line") == [
        Row("a01-000u-00", False, (408, 746, 1661, 89), ["A", "MOVE", "to"]),
        Row("c03-094d-10", True, (-1, -1, -1, -1), ["M Ps", "#", "."]),
        Row("a01-003-01", True, (1, 2, 3, 4), ["0M Ps"]),
    ]


def test_rows_of_words_have_a_tag_and_no_components(tmp_path: Path) -> None:
    path = write_rows(
        tmp_path, "a01-000u-00-00 ok 154 408 768 27 51 AT A", "a01-000u-00-01 err 154 507 766 213 48 NPTS M Ps"
    )
    assert read_rows(path, "word") == [
        Row("a01-000u-00-00", False, (408, 768, 27, 51), ["A"]),
        Row("a01-000u-00-01", True, (507, 766, 213, 48), ["M Ps"]),
    ]


@pytest.mark.parametrize(
    "row",
    [
        "a01-000u-00 ok 154 19 408 746 1661 89",
        "a01-000u-00 maybe 154 19 408 746 1661 89 A",
        "a01-000u-00 ok 154 19 408 746 wide 89 A",
        "a01-000u-00 ok 154 19 408 746 1661 9999999999 A",
        "a01-000u-00 ok 154 19 408 746 1661 89 |",
        "../../etc-x-00 ok 154 19 408 746 1661 89 A",
        "a01-000u-00-00 ok 154 19 408 746 1661 89 A",
    ],
)
def test_a_row_of_another_form_is_named(tmp_path: Path, row: str) -> None:
    path = write_rows(tmp_path, "a01-000u-01 ok 154 19 408 746 1661 89 A", row)
    with pytest.raises(InputError, match=r"rows\.txt: row 3 '"):
        read_rows(path, "line")


def test_a_line_that_stands_twice_is_named(tmp_path: Path) -> None:
    row = "a01-000u-01 ok 154 19 408 746 1661 89 A"
    with pytest.raises(InputError, match="row 3: a01-000u-01 stands there twice"):
        read_rows(write_rows(tmp_path, row, row), "line")


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("A|MOVE|to|stop|Mr.|Gaitskell", "A MOVE to stop Mr. Gaitskell"),
        ("nominees|.|He|said|:", "nominees. He said:"),
        ("We|'ll|go|,|do|n't|we|?", "We'll go, don't we?"),
        ("(|the|House|)|,|[|sic|]|!", "(the House), [sic]!"),
        ('said|"|No|.|"|and|"|Yes|"', 'said "No." and "Yes"'),
        ('went|on|."|x|"', 'went on ." x"'),
        ("the|'|House|'|of|M Ps|...", "the 'House' of M Ps..."),
        ("'|tis|-|so", "'tis - so"),
        (".", "."),
    ],
)
def test_punctuation_is_joined_as_in_prose(tokens: str, text: str) -> None:
    joined = join_punctuation(tokens.split("|"))
    assert joined == text
    assert joined.replace(" ", "") == tokens.replace("|", "").replace(" ", "")  # only spaces change


def test_the_reader_spaces_or_joins_as_asked(small: Path) -> None:
    spaced, joined = own(small), own(small, punctuation="joined")
    assert spaced.texts[:5] == ["A MOVE to stop", "M Ps tomorrow .", "0M Ps say", "a # word , gone", "nominees . He"]
    assert joined.texts[:5] == ["A MOVE to stop", "M Ps tomorrow.", "0M Ps say", "a # word, gone", "nominees. He"]


def test_lines_marked_err_are_kept_or_counted_out(small: Path) -> None:
    kept, skipping = own(small), own(small, err="skip")
    assert len(kept) == 11
    assert not kept.skipped
    assert kept.err == skipping.err == len(skipping.skipped) == 3
    assert {s.kind for s in skipping.skipped} == {"segmentation err"}
    assert {s.id for s in skipping.skipped} | set(skipping.ids) == set(kept.ids)
    assert own(small, err="keep").ids == kept.ids


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
def test_ten_missing_images_are_all_named(aachen: tuple[Path, Forms], spread: bool) -> None:
    root, ids = aachen
    some = [*ids["train"][5:8], *ids["val"][3:6], *ids["test"][-4:]] if spread else ids["train"][7:4000:400]
    assert len(some) == 10
    with without(root, some), pytest.raises(InputError, match="10 of 10373 line images are missing") as error:
        Iam(root, "train")
    assert all(image(root, id).relative_to(root).as_posix() in str(error.value) for id in some)
    assert "more" not in str(error.value)
    assert "\n" not in str(error.value)


def test_of_many_missing_images_ten_are_named_and_all_counted(aachen: tuple[Path, Forms]) -> None:
    root, ids = aachen
    with without(root, ids["val"][:12]):
        with pytest.raises(InputError, match=r"12 of 10373 .*12 of them in split 'val'.* and 2 more") as error:
            Iam(root, "val")
        assert len(Iam(root, "train")) == 6482
    assert str(error.value).count(".png") == 10


@pytest.fixture
def lines_txt(aachen: tuple[Path, Forms]) -> Iterator[Path]:
    """The table of the whole tree, for a test to spoil."""
    path = aachen[0] / "ascii" / "lines.txt"
    content = path.read_bytes()
    yield path
    path.write_bytes(content)


def drop(path: Path, *starts: str) -> None:
    """Take out the rows that begin so."""
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(row for row in rows if not row.startswith(tuple(s.encode() for s in starts))))


def test_lines_that_lines_txt_lacks_are_named(aachen: tuple[Path, Forms], lines_txt: Path) -> None:
    root, ids = aachen
    inner, last = ids["val"][2], ids["val"][-1]
    assert ids["val"][1].rsplit("-", 1)[0] == inner.rsplit("-", 1)[0]
    drop(lines_txt, f"{inner} ")
    with pytest.raises(InputError, match=rf"975 lines on .* 'val', not 976; missing: {inner};"):
        Iam(root, "val")
    drop(lines_txt, f"{last} ")  # the last of its form: only forms.txt can tell
    with pytest.raises(InputError, match=rf"974 lines on .* 'val', not 976; missing: {inner};"):
        Iam(root, "val")
    forms = root / "ascii" / "forms.txt"
    counts: dict[str, int] = {}
    for id in ids["val"]:
        counts[id.rsplit("-", 1)[0]] = counts.get(id.rsplit("-", 1)[0], 0) + 1
    forms.write_text("# forms\n" + "".join(f"{form} 007 2 prt {n} {n} 52 36\n" for form, n in counts.items()))
    try:
        with pytest.raises(InputError, match=rf"974 lines on .* 'val', not 976; missing: {inner}, {last};"):
            Iam(root, "val")
    finally:
        forms.unlink()


def test_forms_that_lines_txt_lacks_are_named(aachen: tuple[Path, Forms], lines_txt: Path) -> None:
    root, ids = aachen
    lost = ids["test"][0].rsplit("-", 1)[0]
    drop(lines_txt, f"{lost}-")
    with pytest.raises(InputError, match=f"nothing of {lost} of split 'test'"):
        Iam(root, "test")


def test_an_aachen_list_of_another_count_is_refused(aachen: tuple[Path, Forms], tmp_path: Path) -> None:
    forms = (aachen[0] / "train.uttlist").read_text().split()
    (tmp_path / "train.uttlist").write_text("\n".join(forms[:-1]))
    with pytest.raises(InputError, match=r"746 forms, but the Aachen split 'train' has 747"):
        Iam(aachen[0], "train", lists=str(tmp_path))
    (tmp_path / "train.uttlist").write_text("\n".join([*forms, forms[3]]))
    with pytest.raises(InputError, match=f"{forms[3]} stand there twice"):
        Iam(aachen[0], "train", lists=str(tmp_path))
    with pytest.raises(InputError, match=r"no val\.uttlist or validation\.uttlist"):
        Iam(aachen[0], "val", lists=str(tmp_path))


def test_the_official_task_has_the_lines_of_its_four_lists(aachen: tuple[Path, Forms], tmp_path: Path) -> None:
    root, ids = aachen
    every = iter([id for split in SPLITS for id in ids[split]])
    counts = {"trainset": 6161, "validationset1": 900, "validationset2": 940, "testset": 1861}
    lists = {name: [next(every) for _ in range(count)] for name, count in counts.items()}
    for name, some in lists.items():
        (tmp_path / f"{name}.txt").write_bytes("".join(f"{id}\r\n" for id in some).encode())
    readers = [Iam(root, split, splits="official", lists=str(tmp_path)) for split in SPLITS]
    assert [len(reader) for reader in readers] == [6161, 1840, 1861]
    assert set(readers[1].ids) == {f"iam/{id}" for name in ("validationset1", "validationset2") for id in lists[name]}
    (tmp_path / "testset.txt").write_text("\n".join(lists["testset"][1:]))
    with pytest.raises(InputError, match=r"testset\.txt: 1860 lines, but the official task has 1861"):
        Iam(root, "test", splits="official", lists=str(tmp_path))
    (tmp_path / "testset.txt").write_text("\n".join([*lists["testset"][1:], "z99-000-00"]))
    with pytest.raises(InputError, match="nothing of z99-000-00 of split 'test'"):
        Iam(root, "test", splits="official", lists=str(tmp_path))
    with pytest.raises(InputError, match=r"no trainset\.txt there"):
        Iam(root, "train", splits="official")


def test_a_split_of_one_s_own_names_forms_or_lines(small: Path) -> None:
    assert [len(own(small, split)) for split in SPLITS] == [11, 7, 5]
    (small / "own" / "train.txt").write_text("a01-003\nd04-000-02\n")
    assert own(small).ids == [f"iam/a01-003-{n:02}" for n in range(4)] + ["iam/d04-000-02"]
    table = small / "mine.tsv"
    table.write_text("id\tsplit\na01-003\ttrain\nc03-001-00\tval\n")
    assert Iam(small, "val", splits="mine.tsv").ids == ["iam/c03-001-00"]
    assert len(Iam(small, "train", splits=str(table))) == 4
    with pytest.raises(InputError, match=r"mine\.tsv: no id of split 'test'"):
        Iam(small, "test", splits="mine.tsv")
    (small / "own" / "val.txt").write_text("a01\n")
    (small / "own" / "validation.txt").unlink()
    with pytest.raises(InputError, match="a01: no form or line id"):
        own(small, "val")
    (small / "own" / "val.txt").unlink()
    with pytest.raises(InputError, match=r"no val\.txt or .* in it"):
        own(small, "val")


def test_the_group_is_the_writer_where_forms_txt_tells(small: Path) -> None:
    assert own(small).groups == ["a01-000u"] * 4 + ["a01-003"] * 4 + ["b02-114x"] * 3
    (small / "ascii" / "forms.txt").write_bytes(
        b"# forms\r\na01-000u 000 2 prt 7 5 52 36\r\na01-003 002 2 prt 7 5 52 36\r\n"
    )
    assert own(small).groups == ["000"] * 4 + ["002"] * 4 + ["b02-114x"] * 3
    (small / "ascii" / "forms.txt").write_text("a01-000u 000\n")
    with pytest.raises(InputError, match=r"forms\.txt: row 1 'a01-000u 000' is no form"):
        own(small)


def test_sizes_come_from_the_table_and_only_unknown_ones_from_the_image(small: Path) -> None:
    path = small / "ascii" / "lines.txt"
    rows = path.read_text().replace("a01-000u-00 ok 154 19 408 746 160 32", "a01-000u-00 ok 154 19 408 746 1661 89")
    path.write_text(rows.replace("a01-003-00 ok 154 19 408 746 160 32", "a01-003-00 ok 154 19 408 746 -1 -1"))
    reader = own(small)
    assert reader.sizes[0] == (89, 1661)
    assert reader.sizes[reader.ids.index("iam/a01-003-00")] == SIZE
    replace(image(small, "a01-003-00"), b"no image")
    with pytest.raises(InputError, match=r"a01-003-00\.png: not an image"):
        _ = own(small).sizes


def write_words(root: Path, ids: list[str]) -> None:
    rows = [f"{id} {'err' if n % 5 == 4 else 'ok'} 154 1 2 160 32 NN word{n}\r\n" for n, id in enumerate(ids)]
    (root / "ascii").mkdir(parents=True, exist_ok=True)
    (root / "ascii" / "words.txt").write_bytes("".join(rows).encode())
    for id in ids:
        first, form, *_ = id.split("-")
        path = root / "words" / first / f"{first}-{form}" / f"{id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png())
    (root / "own").mkdir()
    (root / "own" / "train.txt").write_text("\n".join(sorted({"-".join(id.split("-")[:2]) for id in ids})))


def test_words_are_read_and_the_two_known_corrupt_ones_reported(tmp_path: Path) -> None:
    ids = ["a01-117-05-01", "a01-117-05-02", "a01-117-05-03", "r06-022-03-05", "r06-022-03-06", "r06-022-03-07"]
    write_words(tmp_path, ids)
    words = tmp_path / "words"
    assert len(own(tmp_path, unit="word").skipped) == 1  # the err one: mended images are read
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
    with pytest.raises(InputError, match=r"1 of 6 word images are missing.*a01-117-05-03.*words\.tgz"):
        own(tmp_path, unit="word")


def write_form(root: Path, form: str, size: tuple[int, int], lines: dict[str, list[list[tuple[int, ...]]]]) -> None:
    """A form of noise and its XML file: the components (x, y, width, height) of each word of each line."""
    for folder in ("formsA-D", "xml"):
        (root / folder).mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    assert cv2.imwrite(str(root / "formsA-D" / f"{form}.png"), noise)
    parts = "".join(
        f'<line id="{id}" text="&amp;quot; A" threshold="154">'
        + "".join(
            f'<word id="{id}-{n:02}" tag="AT" text="A">'
            + "".join(f'<cmp x="{x}" y="{y}" width="{w}" height="{h}"/>' for x, y, w, h in components)
            + "</word>"
            for n, components in enumerate(words)
        )
        + "</line>"
        for id, words in lines.items()
    )
    (root / "xml" / f"{form}.xml").write_text(
        f'<?xml version="1.0" encoding="ISO-8859-1"?>\n<form id="{form}" writer-id="000" width="{size[1]}" '
        f'height="{size[0]}"><machine-printed-part><machine-print-line text="A"/></machine-printed-part>'
        f"<handwritten-part>{parts}</handwritten-part></form>",
        encoding="latin-1",
    )


D04 = {
    "d04-000-00": [[(20, 10, 30, 20), (50, 5, 10, 10)], [(100, 12, 50, 30)]],
    "d04-000-01": [[(20, 50, 60, 30)]],
    "d04-000-02": [[(20, 100, 250, 90)]],
    "d04-000-03": [[(290, 200, 60, 40)]],  # over the right border
    "d04-000-09": [[(20, 250, 100, 30)]],  # lines.txt has no such line
}


def test_lines_of_forms_are_cut_to_the_pixel(small: Path) -> None:
    write_form(small, "d04-000", (300, 320), D04)
    path = small / "ascii" / "lines.txt"
    row = next(row for row in path.read_text().splitlines() if row.startswith("d04-000-04 "))
    fields = row.split()
    path.write_text(path.read_text().replace(row, " ".join([*fields[:4], "5", "250", "40", "30", "A"])))
    shutil.rmtree(small / "lines")  # not needed
    reader = own(small, "test", source="forms")
    form = read_image(small / "formsA-D" / "d04-000.png")
    assert reader.ids == [f"iam/d04-000-{n:02}" for n in range(5)]
    assert [s.image.shape for s in reader] == reader.sizes == [(37, 130), (30, 60), (64, 178), (40, 30), (30, 40)]
    np.testing.assert_array_equal(reader[0].image, form[5:42, 20:150])
    np.testing.assert_array_equal(reader[1].image, form[50:80, 20:80])
    np.testing.assert_array_equal(reader[3].image, form[200:240, 290:320])
    np.testing.assert_array_equal(reader[4].image, form[250:280, 5:45])  # no component: the box of lines.txt
    assert [(s.id, s.kind) for s in reader.skipped] == [("iam/d04-000-09", "line of xml/ that lines.txt lacks")]
    tall = own(small, "test", source="forms", max_height=90)
    np.testing.assert_array_equal(tall[2].image, form[100:190, 20:270])


def test_words_of_forms_are_cut_to_the_pixel(tmp_path: Path) -> None:
    write_words(tmp_path, ["d04-000-00-00", "d04-000-00-01"])
    write_form(tmp_path, "d04-000", (300, 320), {"d04-000-00": D04["d04-000-00"]})
    form = read_image(tmp_path / "formsA-D" / "d04-000.png")
    reader = own(tmp_path, unit="word", source="forms")
    np.testing.assert_array_equal(reader[0].image, form[5:30, 20:60])
    np.testing.assert_array_equal(reader[1].image, form[12:42, 100:150])


def test_forms_that_are_missing_or_do_not_fit_are_refused(small: Path) -> None:
    with pytest.raises(InputError, match=r"2 files .* missing: forms/d04-000\.png, xml/d04-000\.xml"):
        own(small, "test", source="forms")
    write_form(small, "d04-000", (300, 320), {"d04-000-00": [[(900, 900, 5, 5)]]})
    with pytest.raises(InputError, match="iam/d04-000-00: its box 900,900 905,905 holds no pixel"):
        own(small, "test", source="forms")
    xml = small / "xml" / "d04-000.xml"
    xml.write_text(xml.read_text().replace('width="320" height="300"', 'width="640" height="600"'))
    with pytest.raises(InputError, match=r"320 x 300 pixels, but d04-000\.xml was drawn on 640 x 600"):
        own(small, "test", source="forms")
    xml.write_text("<PcGts/>")
    with pytest.raises(InputError, match="no <handwritten-part>"):
        own(small, "test", source="forms")


def test_the_lists_are_fetched_only_where_there_are_none_and_checked(
    aachen: tuple[Path, Forms], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    answer: dict[str, Path] = {}

    def retrieve(url: str, **options: object) -> str:
        asked.append(url)
        if not answer:
            raise OSError("no network")
        return str(next(path for split, path in answer.items() if f"/{split}.ln" in url))

    monkeypatch.setattr("pooch.retrieve", retrieve)
    assert len(Iam(aachen[0], "val")) == 976
    assert not asked
    with pytest.raises(InputError, match=r"val\.ln: not downloaded \(no network\).*data\.reader\.lists"):
        split_ids(tmp_path, "val", "aachen", None, True)
    assert len(asked) == 1
    with pytest.raises(InputError, match=r"data\.reader\.download=true"):
        split_ids(tmp_path, "val", "aachen", None, False)
    made_up = tmp_path / "val.txt"
    made_up.write_text("".join(f"{id}.png\n" for id in aachen[1]["val"]))  # line ids of 116 other forms
    answer["val"] = made_up
    with pytest.raises(InputError, match="not the Aachen list"):
        split_ids(tmp_path, "val", "aachen", None, True)


def test_the_digests_are_those_of_the_published_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = real_lists()
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        forms = (lists / f"aachen_{name}.txt").read_text().split()
        shuffled = tmp_path / f"lines of {split}"
        shuffled.write_text("".join(f"{form}-{n:02}.png\n" for n in (1, 0) for form in reversed(forms)))
        monkeypatch.setattr("pooch.retrieve", lambda url, file=shuffled, **options: str(file))
        assert split_ids(tmp_path, split, "aachen", None, True) == set(forms)


@pytest.mark.parametrize(
    "options",
    [{"unit": "page"}, {"source": "scans"}, {"err": "drop"}, {"punctuation": "none"},
     {"splits": "Aachen"}, {"max_height": 0}],
    ids=str,
)  # fmt: skip
def test_an_option_that_is_none_of_the_choices_is_refused(small: Path, options: dict) -> None:
    with pytest.raises(InputError, match=f"data.reader.{next(iter(options))}="):
        Iam(small, **options)


def test_a_folder_that_is_no_tree_is_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.root is not set"):
        Iam()
    with pytest.raises(InputError, match="nowhere: no such folder"):
        Iam(tmp_path / "nowhere")
    with pytest.raises(InputError, match="'validation' is no split"):
        own(small, "validation")
    with pytest.raises(InputError, match=r"words\.txt: no such file; unpack ascii\.tgz"):
        own(small, unit="word")
    (small / "ascii" / "lines.txt").rename(small / "lines.txt")  # unpacked without its folder
    assert len(own(small)) == 11


def test_a_deeply_nested_file_takes_no_longer_than_its_length(tmp_path: Path) -> None:
    path = tmp_path / "deep.xml"
    nested = '<line id="a">' * 50_000 + "</line>" * 50_000
    path.write_text(f"<form><handwritten-part>{nested}</handwritten-part></form>")
    assert read_boxes(path, "line") == ({}, (0, 0))  # minutes, were it quadratic


def test_damaged_files_give_rows_or_one_line_of_words(tmp_path: Path) -> None:
    """Bytes changed, cut, doubled and inserted at random."""
    rng = np.random.default_rng(0)
    write_form(tmp_path, "d04-000", (300, 320), D04)
    rows = HEADER.encode() + "".join(line_row(f"a01-{n:03}-00", n) for n in range(9)).encode()
    words = b"a01-000u-00-00 ok 154 408 768 27 51 AT A\r\na01-000u-00-01 ok 154 507 766 213 48 NN MOVE\r\n"
    cases = [
        (rows, lambda path: read_rows(path, "line")),
        (words, lambda path: read_rows(path, "word")),
        (b"# forms\r\na01-000u 000 2 prt 7 5 52 36\r\na01-003 002 2 prt 7 5 52 36\r\n", read_forms),
        ((tmp_path / "xml" / "d04-000.xml").read_bytes(), lambda path: read_boxes(path, "line")),
        (b"a01-000u\r\na01-003\r\n", lambda path: split_ids(path.parent, "train", str(path.parent), None, False)),
    ]
    path = tmp_path / "train.txt"
    messages = []
    for content, read in cases:
        for _ in range(60):
            damaged = bytearray(content)
            for _ in range(rng.integers(1, 4)):
                start, length = int(rng.integers(len(damaged))), int(rng.integers(1, 12))
                piece = bytes(rng.integers(0, 256, length, dtype=np.uint8))
                insert = (piece, damaged[start : start + length] * 2, b"", b"9" * 5000)[rng.integers(4)]
                damaged[start : start + (0 if rng.random() < 0.3 else length)] = insert
                damaged = damaged or bytearray(b"\0")
            path.write_bytes(damaged[: int(rng.integers(1, len(damaged) + 1))] if rng.random() < 0.3 else damaged)
            try:
                read(path)
                messages.append("")
            except InputError as error:
                messages.append(str(error))
    refused = list(filter(None, messages))
    assert 60 < len(refused) < len(messages)
    assert all(path.name in message and "\n" not in message for message in refused)


@pytest.mark.slow
def test_two_ranks_train_on_a_tree(aachen: tuple[Path, Forms], tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "train.py"), "model=crnn", "data=iam", f"data.root={aachen[0]}",
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
