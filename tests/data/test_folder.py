"""Images with texts beside them, in tables and in folder names are read back to the pixel and the text."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from htr_lightning.data.reader.folder import Folder
from htr_lightning.data.reader.listing import Classes, Laia, Pairs, Table
from htr_lightning.data.sample import Reader
from htr_lightning.errors import InputError

TEXTS = ["Bonjour, le monde", 'dit "oui" ; «non»', "a,b\u0301c", "汉字 手写", "# 1", "שלום"]
SPLITS = {"train": "train", "val": "val", "test": "test"}
ONE_FOLDER = {"train": ".", "val": 0.2, "test": 0.2}
IMAGES = [".png", ".jpg", ".tif", ".nrm.png", ".bin.png"]


def draw(path: Path, seed: int = 0) -> np.ndarray:
    """A grey image of noise, saved without loss."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (20 + seed, 50 + 7 * seed), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def pairs(folder: Path, suffix: str = ".png") -> dict[str, tuple[np.ndarray, str]]:
    """Lines as kraken keeps them, by id."""
    lines = {}
    for number, text in enumerate(TEXTS):
        lines[f"page{number % 3}/{number:03d}"] = draw(folder / f"page{number % 3}/{number:03d}{suffix}", number), text
        (folder / f"page{number % 3}/{number:03d}.gt.txt").write_text(text + "\n", encoding="utf-8")
    return lines


def table(folder: Path, name: str, images: str = "") -> list[tuple[np.ndarray, str]]:
    """Lines with a table in the form that its name says."""
    lines = [(draw(folder / images / f"{number}.png", number), text) for number, text in enumerate(TEXTS)]
    rows = [{"file": f"{number}.png", "note": "x", "said": text} for number, text in enumerate(TEXTS)]
    with open(folder / name, "w", encoding="utf-8", newline="") as file:
        if name.endswith("jsonl"):
            file.writelines(json.dumps(row) + "\n" for row in rows)
        elif name.endswith("csv"):
            writer = csv.DictWriter(file, ["file", "note", "said"])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.write("file\tnote\tsaid\n")
            file.writelines("\t".join(row.values()) + "\n" for row in rows)
    return lines


def check(reader: Reader) -> None:
    """What a reader tells without opening an image is what its samples are."""
    samples = [reader[index] for index in range(len(reader))]
    assert [sample.id for sample in samples] == list(reader.ids)
    assert [sample.text for sample in samples] == list(reader.texts)
    assert [sample.group for sample in samples] == list(reader.groups)
    assert [sample.image.shape for sample in samples] == list(reader.sizes)
    assert len(set(reader.ids)) == len(reader)


@pytest.mark.parametrize("suffix", [".png", ".nrm.png", ".bin.png", ".PNG", ".tif"])
def test_pairs_are_read_back_to_the_pixel_and_the_text(tmp_path: Path, suffix: str) -> None:
    lines = pairs(tmp_path / "set" / "train", suffix)
    reader = Folder(tmp_path / "set", "train", listing=Pairs(IMAGES), splits=SPLITS, group="train/(.*?)/")
    check(reader)
    assert reader.ids == [f"set/train/{id}" for id in sorted(lines)]
    for sample in reader:
        pixels, text = lines[sample.id.removeprefix("set/train/")]
        np.testing.assert_array_equal(sample.image, pixels)
        assert sample.text == text
        assert sample.group == sample.id.split("/")[2]


def test_of_several_images_with_one_text_the_ending_named_first_is_taken(tmp_path: Path) -> None:
    draw(tmp_path / "train/1.bin.png", 1)
    grey = draw(tmp_path / "train/1.nrm.png", 2)
    (tmp_path / "train/1.gt.txt").write_text("a")
    reader = Folder(tmp_path, listing=Pairs(IMAGES), splits=SPLITS)
    np.testing.assert_array_equal(reader[0].image, grey)
    assert reader.skipped == []


def test_colours_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    Image.new("RGB", (30, 20), (255, 0, 0)).save(tmp_path / "train/1.png")
    (tmp_path / "train/1.gt.txt").write_bytes(b"\xef\xbb\xbfabc\r\n")
    sample = Folder(tmp_path, listing=Pairs(IMAGES), splits=SPLITS)[0]
    assert sample.text == "abc"
    assert sample.image.shape == (20, 30)
    assert (sample.image == 76).all()  # 0.299 of 255


@pytest.mark.parametrize("name", ["train.csv", "train.tsv", "train.jsonl"])
@pytest.mark.parametrize("images", ["", "lines"])
def test_tables_are_read_back_to_the_pixel_and_the_text(tmp_path: Path, name: str, images: str) -> None:
    lines = table(tmp_path, name, images)
    reader = Folder(tmp_path, listing=Table("file", "said", images=images or "."), splits={"train": name})
    check(reader)
    for sample, (pixels, text) in zip(reader, lines, strict=True):
        np.testing.assert_array_equal(sample.image, pixels)
        assert sample.text == text


def test_a_table_without_header_is_read_by_the_numbers_of_its_columns(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "train.csv").write_text('w1;"x;y";a.png\n')
    listing = Table(2, 1, group=0, delimiter=";")
    reader = Folder(tmp_path, listing=listing, splits={"train": "train.csv"})
    assert (reader.texts, reader.groups) == (["x;y"], ["w1"])


def test_a_table_may_lie_beside_its_images_as_image_folders_have_it(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    lines = table(tmp_path / "train", "metadata.jsonl")
    reader = Folder(tmp_path, listing=Table("file", "said"), splits={"train": "train/metadata.jsonl"})
    assert len(reader) == len(lines)


def test_a_column_may_say_the_split(tmp_path: Path) -> None:
    spelt = ["train", "Train", "validation", "dev", "test", "TEST"]
    rows = []
    for number, name in enumerate(spelt):
        draw(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,x,{name}")
    content = "image,text,subset\n" + "\n".join(rows)
    (tmp_path / "all.csv").write_text(content)
    listing = Table("image", "text", split="subset")
    splits = {"train": "all.csv", "val": "all.csv", "test": "all.csv"}
    found = [Folder(tmp_path, split, listing=listing, splits=splits).ids for split in splits]
    assert [[id.rpartition("/")[2] for id in ids] for ids in found] == [
        ["0.png", "1.png"], ["2.png", "3.png"], ["4.png", "5.png"]]  # fmt: skip
    (tmp_path / "all.csv").write_text(content + "\n0.png,x,holdout")
    with pytest.raises(InputError, match=r"all\.csv:8: row with an unknown split \(subset=holdout\)"):
        Folder(tmp_path, "val", listing=listing, splits=splits)


def test_pylaia_tables_are_read_back(tmp_path: Path) -> None:
    pixels = [draw(tmp_path / "imgs" / f"l{number}.png", number) for number in range(3)]
    texts = ["le chat", "a  b", "<x> é"]
    lines = [" ".join("<space>" if c == " " else c for c in text) for text in texts]
    (tmp_path / "train.txt").write_text(
        "# id text\n\n" + "".join(f"l{n} {line}\n" for n, line in enumerate(lines)), encoding="utf-8"
    )
    (tmp_path / "plain.txt").write_text("l0 le chat\nl1.png  a  b\nl2 <x> é\n", encoding="utf-8")
    for name, space in (("train.txt", "<space>"), ("plain.txt", None)):
        reader = Folder(tmp_path, listing=Laia([".", "imgs"], space), splits={"train": name})
        check(reader)
        assert reader.texts == texts
        for sample, expected in zip(reader, pixels, strict=True):
            np.testing.assert_array_equal(sample.image, expected)


def test_folders_of_classes_are_read_back(tmp_path: Path) -> None:
    drawn = {name: draw(tmp_path / "train" / name / "deep" / "1.png", seed) for seed, name in enumerate("あb1")}
    drawn["漢"] = draw(tmp_path / "train" / "U+6F22" / "1.png", 5)
    reader = Folder(tmp_path, listing=Classes(), splits=SPLITS)
    check(reader)
    assert sorted(reader.texts) == sorted(drawn)
    for sample in reader:
        np.testing.assert_array_equal(sample.image, drawn[sample.text])
    (tmp_path / "names.tsv").write_text("あ\ta\nb\tB\n1\tone\nU+6F22\tkan\n", encoding="utf-8")
    named = Folder(tmp_path, listing=Classes("names.tsv"), splits=SPLITS)
    assert sorted(named.texts) == ["B", "a", "kan", "one"]


def test_one_folder_is_split_by_whole_groups(tmp_path: Path) -> None:
    for number in range(40):
        draw(tmp_path / f"p{number // 4}/{number}.png", number)
        (tmp_path / f"p{number // 4}/{number}.gt.txt").write_text(f"line {number}")
    draw(tmp_path / "p0/alone.png")

    def read(split: str) -> Folder:
        return Folder(tmp_path, split, listing=Pairs(IMAGES), splits=ONE_FOLDER, group="(.*)/", faulty="skip")

    readers = {split: read(split) for split in ONE_FOLDER}
    assert {split: len(reader) for split, reader in readers.items()} == {"train": 24, "val": 8, "test": 8}
    groups = [set(reader.groups) for reader in readers.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 10
    assert len({id for reader in readers.values() for id in reader.ids}) == 40
    assert [len(reader.skipped) for reader in readers.values()] == [1, 0, 0]  # told once
    assert read("val").ids == readers["val"].ids


# What cannot be used: what is done to the folder, and the words of the one line that names it.
def _no_text(folder: Path) -> None:
    draw(folder / "train/7.png")
    draw(folder / "train/8.png")


def _no_image(folder: Path) -> None:
    (folder / "train/page0/000.png").unlink()


def _latin1(folder: Path) -> None:
    (folder / "train/page0/000.gt.txt").write_bytes("é".encode("latin-1"))


def _empty(folder: Path) -> None:
    (folder / "train/page0/000.gt.txt").write_text(" \n")


def _two_lines(folder: Path) -> None:
    (folder / "train/page0/000.gt.txt").write_text("a\nb\n")


PAIR_FAULTS: list[tuple[Callable[[Path], None], str, str]] = [
    (
        _no_text,
        r"train/7\.png: image without \.gt\.txt, the first of 2 such faults; .*data\.reader\.faulty=skip",
        "faulty",
    ),
    (_no_image, r"page0/000\.gt\.txt: text without an image", "faulty"),
    (_latin1, r"page0/000\.gt\.txt: unreadable text \(not UTF-8 \(at byte 0\)", "faulty"),
    (_two_lines, r"train/page0/000: text with several lines \(2 lines\)", "faulty"),
    (_empty, r"train/page0/000: line without text; .*data\.reader\.empty=skip", "empty"),
]


@pytest.mark.parametrize(("spoil", "words", "option"), PAIR_FAULTS)
def test_a_fault_among_pairs_is_named_or_on_request_counted(
    tmp_path: Path, spoil: Callable[[Path], None], words: str, option: str
) -> None:
    pairs(tmp_path / "train")
    spoil(tmp_path)
    with pytest.raises(InputError, match=words):
        Folder(tmp_path, listing=Pairs(IMAGES), splits=SPLITS)
    other = {"faulty": "empty", "empty": "faulty"}[option]
    with pytest.raises(InputError, match=words):
        Folder(tmp_path, listing=Pairs(IMAGES), splits=SPLITS, **{other: "skip"})
    reader = Folder(tmp_path, listing=Pairs(IMAGES), splits=SPLITS, **{option: "skip"})
    check(reader)
    assert len(reader) + len(reader.skipped) >= len(TEXTS)
    assert reader.skipped
    assert not {skipped.id for skipped in reader.skipped} & set(reader.ids)


def test_lines_without_text_are_kept_on_request(tmp_path: Path) -> None:
    pairs(tmp_path / "train")
    _empty(tmp_path)
    reader = Folder(tmp_path, listing=Pairs(IMAGES), splits=SPLITS, empty="keep")
    assert len(reader) == len(TEXTS)
    assert reader.skipped == []
    assert "" in [text.strip() for text in reader.texts]


TABLE_FAULTS = [
    ("train.csv", "file,said\n0.png\n", r"train\.csv:2: wrong number of cells \(expected 2, got 1\)"),
    ("train.csv", "file,said\n0.png,a, b\n", r"train\.csv:2: wrong number of cells \(expected 2, got 3\)"),
    ("train.csv", 'file,said\n0.png,"a\n', r"train\.csv:2: row cannot be parsed \(unexpected end of data\)"),
    ("train.csv", "file,said\n,a\n", r"train\.csv:2: row without an image"),
    ("train.csv", "file,said\nnone.png,a\n", r"train\.csv:2: image not found \(.*none\.png\)"),
    ("train.csv", "file,said\n0.png,\n", r"0\.png: line without text"),
    ("train.csv", "file,said\n0.png,a\n0.png,b\n", r"0\.png: image listed twice \(first as .*0\.png\)"),
    ("train.csv", "name,said\n0.png,a\n", r"train\.csv: no column 'file' \(available: name, said\)"),
    ("train.csv", "na\x0bme,said\n0.png,a\n", r"no column 'file' \(available: na\\u000bme, said\)"),
    ("train.csv", "file,said\nx\x0b.png,a\n", r"x\\u000b\.png\)"),
    ("train.csv", "file,said\n", r"train\.csv: no lines found for split 'train'"),
    ("train.csv", "", r"train\.csv: no lines found for split 'train'"),
    ("train.csv", b"file,said\n0.png,\xe9\n", r"train\.csv: not UTF-8 \(at byte 16\)"),
    ("train.csv", "file,said\n" + "x" * 5000 + ",a\n", r"train\.csv:2: image not found"),
    ("train.csv", "file,said\nx\0y,a\n", r"train\.csv: contains NUL bytes.*UTF-8"),
    ("train.csv", 'file,said\n0.png,"' + "x" * 200_000 + '"\n', r"train\.csv:2: row cannot be parsed \(field larger"),
    ("train.jsonl", '{"file": "0.png"}\n', r"0\.png: line without text"),
    ("train.jsonl", '{"said": "a"}\n', r"train\.jsonl:1: row without an image"),
    ("train.jsonl", '{"file": "0.png", "said": 3}\n', r"train\.jsonl:1: cell is not text \(said=3\)"),
    ("train.jsonl", '{"file": ["0.png"], "said": "a"}\n', r"train\.jsonl:1: cell is not text"),
    ("train.jsonl", '{"file": "0.png", "said": "\\ud800"}\n', r"0\.png: text is not valid UTF-8"),
    ("train.jsonl", '\n["0.png", "a"]\n', r"train\.jsonl:2: row is not a JSON object"),
    ("train.jsonl", '{"file": "0.png", "said": "a"\n', r"train\.jsonl:1: row is not valid JSON"),
    ("train.jsonl", "[" * 100_000 + "\n", r"train\.jsonl:1: row is not valid JSON"),
    ("train.jsonl", "1" * 10_000 + "\n", r"train\.jsonl:1: row is not valid JSON"),
    ("train.xlsx", "PK", r"train\.xlsx: unsupported table format"),
]


@pytest.mark.parametrize(("name", "content", "words"), TABLE_FAULTS)
def test_a_fault_in_a_table_is_named_by_file_and_row(
    tmp_path: Path, name: str, content: str | bytes, words: str
) -> None:
    draw(tmp_path / "0.png")
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=words) as told:
        Folder(tmp_path, listing=Table("file", "said"), splits={"train": name})
    assert len(str(told.value).splitlines()) == 1


def test_bad_rows_are_left_out_on_request_and_counted(tmp_path: Path) -> None:
    draw(tmp_path / "0.png")
    (tmp_path / "train.csv").write_text("file,said\n0.png,a\n1.png,b\nx\n,c\n")
    reader = Folder(tmp_path, listing=Table("file", "said"), splits={"train": "train.csv"}, faulty="skip")
    assert reader.texts == ["a"]
    assert [skipped.kind for skipped in reader.skipped] == [
        "image not found", "wrong number of cells", "row without an image"]  # fmt: skip


def test_a_table_of_all_splits_is_suggested(tmp_path: Path) -> None:
    draw(tmp_path / "0.png")
    (tmp_path / "labels.csv").write_text("image,text\n0.png,a\n")
    with pytest.raises(InputError, match=r"'data\.reader\.splits=\{train: labels\.csv, val: 0\.1, test: 0\.1\}'"):
        Folder(tmp_path, listing=Table("image", "text"), splits={"train": "train.csv", "val": "val.csv"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"root": None}, r"data\.root is not set; .*data\.root=FOLDER"),
        ({"root": "nowhere"}, "nowhere: no such folder"),
        ({"split": "dev"}, "'dev' is not a split"),
        ({"split": "test"}, r"contains no 'test'; .*train/1\.gt\.txt.*splits\.test=0\.1"),
        ({"group": "("}, "invalid regular expression"),
        ({"group": "abc"}, "parentheses"),
        ({"empty": "no"}, r"data\.reader\.empty=no: use one of error, skip, keep"),
        ({"faulty": "keep"}, r"data\.reader\.faulty=keep: use one of error, skip"),
        ({"splits": {"train": "train", "val": None}, "split": "val"}, r"splits\.val=null"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    pairs(tmp_path / "train")
    with pytest.raises(InputError, match=words):
        Folder(**({"root": tmp_path, "listing": Pairs(IMAGES), "splits": SPLITS} | options))


def test_bad_folders_of_classes_and_bad_lists_are_named(tmp_path: Path) -> None:
    draw(tmp_path / "train/1.png")
    with pytest.raises(InputError, match=r"train/1\.png: image outside the character folders"):
        Folder(tmp_path, listing=Classes(), splits=SPLITS)
    (tmp_path / "names.tsv").write_text("b B\n")
    with pytest.raises(InputError, match=r"names\.tsv:1: expected a folder name, a tab"):
        Folder(tmp_path, listing=Classes("names.tsv"), splits=SPLITS)
    (tmp_path / "train.txt").write_text("one a b\n")
    with pytest.raises(InputError, match=r"train\.txt:1: image not found \(.*/one\)"):
        Folder(tmp_path, listing=Laia(["."]), splits={"train": "train.txt"})


def test_an_image_that_is_damaged_or_huge_is_named(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name, content in (("a", b"\x89PNG\r\n\x1a\n\0\0"), ("b", b"P5 50000 50000 255\n")):
        (tmp_path / f"train/{name}.png").write_bytes(content)
        (tmp_path / f"train/{name}.gt.txt").write_text("x")
    reader = Folder(tmp_path, listing=Pairs(IMAGES), splits=SPLITS)
    for index, words in ((0, r"train/a\.png: "), (1, r"train/b\.png: .*50000 x 50000")):
        with pytest.raises(InputError, match=words):
            reader[index]
    with pytest.raises(InputError, match=r"train/a\.png"):
        _ = reader.sizes
