"""A table is read whatever its ends of lines and empty rows, or the error names the setting that reads it."""

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from htr_lightning.data.reader.folder import Folder
from htr_lightning.data.reader.listing import Laia, Table
from htr_lightning.data.reader.rows import DELIMITERS
from htr_lightning.errors import InputError, printable

TEXTS = ["get Is of", "left done", "voyage"]


def draw(folder: Path, *names: str) -> None:
    for name in names or ("0.png", "1.png", "2.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (30, 10), 255).save(folder / name)


def read(folder: Path, table: str = "train.csv", faulty: str = "error", **options: Any) -> Folder:
    listing = Table(**({"image": "image", "text": "text"} | options))
    return Folder(folder, listing=listing, splits={"train": table}, faulty=faulty)


def write(path: Path, delimiter: str, header: bool = True, columns: tuple[str, ...] = ("image", "text")) -> None:
    rows = [{"image": f"{number}.png", "text": text, "writer": "w"} for number, text in enumerate(TEXTS)]
    lines = [delimiter.join(row[column] for column in columns) for row in rows]
    path.write_text("\n".join([delimiter.join(columns)] * header + lines) + "\n", encoding="utf-8")


def suggested(message: str) -> dict[str, Any]:
    """The settings of the listing that a message names, as Hydra would read them."""
    found = re.findall(r"data\.reader\.listing\.(\w+)=(\w+)", message)
    return {key: int(value) if value.isdigit() else value for key, value in found}


@pytest.mark.parametrize("columns", [("image", "text"), ("text", "image"), ("writer", "image", "text")])
@pytest.mark.parametrize("name", ["train.csv", "train.tsv"])
def test_the_settings_that_an_error_names_read_the_table(tmp_path: Path, name: str, columns: tuple[str, ...]) -> None:
    draw(tmp_path)
    by_number: dict[str, Any] = {"image": columns.index("image"), "text": columns.index("text")}
    for delimiter, header, options in product(DELIMITERS.values(), (False, True), ({}, by_number)):
        write(tmp_path / name, delimiter, header, columns)
        settings, remarks = dict(options), 0
        while remarks < 3:
            try:
                assert read(tmp_path, name, **settings).texts == TEXTS
                break
            except InputError as error:
                remarks += 1
                if "if this row is a header" in str(error):
                    settings |= {"image": "image", "text": "text"}
                else:
                    settings |= suggested(str(error))
        wrong_delimiter, wrong_columns = delimiter != {".csv": ",", ".tsv": "\t"}[name[-4:]], header == bool(options)
        assert remarks <= wrong_delimiter + wrong_columns, (delimiter, header, options)


def test_a_table_with_spaces_between_name_and_text_is_read_as_the_error_says(tmp_path: Path) -> None:
    draw(tmp_path)
    rows = "".join(f"{number}.png    {text}\n" for number, text in enumerate(TEXTS))
    (tmp_path / "train.txt").write_text(rows)
    for options in ({}, {"image": 0, "text": 1}):
        with pytest.raises(InputError, match=r"data=pylaia data\.reader\.listing\.space=null"):
            read(tmp_path, "train.txt", **options)
    assert Folder(tmp_path, listing=Laia(["."], None), splits={"train": "train.txt"}).texts == TEXTS


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["train.csv", "train.tsv", "train.jsonl", "laia.txt"])
def test_all_ends_of_lines_a_byte_order_mark_and_empty_rows_are_read(tmp_path: Path, name: str, end: str) -> None:
    draw(tmp_path)
    delimiter = "\t" if name == "train.tsv" else ","
    rows = [f"image{delimiter}text", *(f"{number}.png{delimiter}{text}" for number, text in enumerate(TEXTS))]
    if name == "train.jsonl":
        rows = [f'{{"image": "{number}.png", "text": "{text}"}}' for number, text in enumerate(TEXTS)]
    elif name == "laia.txt":
        rows = [f"{number} {text}" for number, text in enumerate(TEXTS)]
    rows += ["", delimiter] if name in ("train.csv", "train.tsv") else ["", " "]
    (tmp_path / name).write_bytes(("\ufeff" + end.join(rows) + end).encode())
    listing = Laia(["."], None) if name == "laia.txt" else Table("image", "text")
    reader = Folder(tmp_path, listing=listing, splits={"train": name})
    assert reader.texts == TEXTS
    assert reader.skipped == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1"])
@pytest.mark.parametrize("name", ["train.csv", "train.jsonl"])
def test_other_encodings_are_refused_with_the_remedy(tmp_path: Path, name: str, encoding: str) -> None:
    draw(tmp_path)
    text = "image,text\n0.png,été\n" if name == "train.csv" else '{"image": "0.png", "text": "été"}\n'
    (tmp_path / name).write_bytes(text.encode(encoding))
    with pytest.raises(InputError, match=rf"{name}: .*save it as UTF-8"):
        read(tmp_path, name)


def test_bad_rows_cost_only_themselves_and_are_counted_together(tmp_path: Path) -> None:
    draw(tmp_path)
    rows = ["image,text", "0.png,a", "1.png", "1.png,a,b", '"1.png"x,a', "1.png,b", '2.png,"c', "", "9.png,x"]
    (tmp_path / "train.csv").write_text("\n".join(rows))
    with pytest.raises(InputError, match=r"csv:3: wrong number of cells \(expected 2, got 1\), the first of 2 such"):
        read(tmp_path)
    reader = read(tmp_path, faulty="skip")
    assert reader.texts == ["a", "b"]
    assert [(left.id.rpartition(":")[2], left.kind) for left in reader.skipped] == [
        ("3", "wrong number of cells"), ("4", "wrong number of cells"), ("5", "row cannot be parsed"),
        ("7", "row cannot be parsed")]  # fmt: skip
    assert reader.skipped[-1].detail.endswith("lines 7 to 9")


def test_a_column_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    draw(tmp_path)
    (tmp_path / "train.csv").write_text("image,text,text\n0.png,a,b\n")
    with pytest.raises(InputError, match=r"2 columns 'text' \(available: image, text, text\)"):
        read(tmp_path)


def test_a_header_in_a_table_with_numbered_columns_is_not_dropped(tmp_path: Path) -> None:
    draw(tmp_path)
    write(tmp_path / "train.csv", ",")
    reader = read(tmp_path, image=0, text=1, faulty="skip")
    assert reader.texts == TEXTS
    assert [left.id.rpartition(":")[2] for left in reader.skipped] == ["1"]


def test_delimiters_are_named_or_given_and_others_refused(tmp_path: Path) -> None:
    draw(tmp_path)
    for name, delimiter in {**DELIMITERS, "^": "^", " ": " "}.items():
        (tmp_path / "train.csv").write_text(f"image{delimiter}text\n0.png{delimiter}abc\n")
        assert read(tmp_path, delimiter=name).texts == ["abc"]
        assert read(tmp_path, delimiter=delimiter).texts == ["abc"]
    for odd in "^:":
        (tmp_path / "train.csv").write_text(f"image{odd}text\n0.png{odd}abc\n")
        with pytest.raises(
            InputError, match=rf"if '{re.escape(odd)}' separates the columns, set .*=\"{re.escape(odd)}\""
        ):
            read(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder: a folder, not a table"):
        Folder(tmp_path, listing=Table("image", "text"), splits={"train": "folder"})
    for bad in ("", "::", "\n", '"'):
        with pytest.raises(
            InputError, match=rf"delimiter={re.escape(printable(bad))}: expected comma, tab, semicolon, pipe or another"
        ):
            read(tmp_path, delimiter=bad)
