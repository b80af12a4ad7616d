"""The text and XML files of IAM: what is read, and what is refused by name."""

from pathlib import Path

import numpy as np
import pytest

from htr_lightning.data.reader.iam_files import Row, join_punctuation, read_boxes, read_forms, read_rows
from htr_lightning.data.reader.iam_splits import split_ids
from htr_lightning.errors import InputError

from .iam_tree import D04, HEADER, line_row, write_form


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
    with pytest.raises(InputError, match=r"rows\.txt: row 3: invalid line '"):
        read_rows(path, "line")


def test_a_line_that_occurs_twice_is_named(tmp_path: Path) -> None:
    row = "a01-000u-01 ok 154 19 408 746 1661 89 A"
    with pytest.raises(InputError, match="row 3: duplicate id a01-000u-01"):
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


def test_a_deeply_nested_file_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "deep.xml"
    nested = '<line id="a">' * 50_000 + "</line>" * 50_000
    path.write_text(f"<form><handwritten-part>{nested}</handwritten-part></form>")
    with pytest.raises(InputError, match="nested more than"):
        read_boxes(path, "line")


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
