"""Parse the text and XML files of IAM into plain data."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from htr_lightning.data.page.xml import child, local, parse
from htr_lightning.errors import InputError

Box = tuple[int, int, int, int]
ID = {"line": re.compile(r"\w+-\w+-\w+"), "word": re.compile(r"\w+-\w+-\w+-\w+")}
PIXELS = re.compile(r"-?[0-9]{1,6}")
CLOSING = {".", ",", ";", ":", "!", "?", "...", ")", "]", "%"}
OPENING = {"(", "["}
CONTRACTION = re.compile(r"'(s|d|m|t|ll|re|ve)|n't", re.IGNORECASE)


class Row(NamedTuple):
    """A row in lines.txt or words.txt."""

    id: str
    err: bool  # whether IAM marks the segmentation into words as doubtful
    box: Box  # x, y, width, height on the form in pixels; -1 if unknown
    tokens: list[str]  # words and punctuation marks; a token may contain a space


def form_of(id: str) -> str:
    """Return the form id contained in a line or word id: its first two components, whose lengths vary."""
    return "-".join(id.split("-")[:2])


def line_of(id: str) -> str:
    """Return the line id contained in a line or word id: its first three components."""
    return "-".join(id.split("-")[:3])


def named(names: Sequence[str]) -> str:
    """Format the first ten names in a list, and the number of remaining names."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def read_text(path: Path) -> str:
    """Read a text file from the IAM database, or a list of ids.

    Raises:
        InputError: if the file is missing or not a text file.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(
            f"{path}: not an ASCII or UTF-8 text file; extract it from the archive again, or save it as UTF-8"
        ) from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; unpack ascii.tgz into ascii/ below data.root") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the file") from None


def read_rows(path: Path, unit: str) -> list[Row]:
    """Read the rows of lines.txt or words.txt.

    Fields are separated by spaces: id, status, grey level, number of components (lines.txt only), x, y, width, height,
    tag (words.txt only), text. The text starts at the ninth field, and its tokens are separated by `|`.

    Raises:
        InputError: if the file is missing, a row is malformed, or an id is duplicated.
    """
    rows: dict[str, Row] = {}
    first = 4 if unit == "line" else 3  # index of the field x
    for number, row in enumerate(read_text(path).splitlines(), start=1):
        fields = row.split(maxsplit=8)
        if not fields or fields[0].startswith("#"):
            continue
        tokens = [" ".join(token.split()) for token in fields[8].split("|") if token.strip()] if fields[8:] else []
        box = fields[first : first + 4]
        if not (
            tokens
            and ID[unit].fullmatch(fields[0])
            and fields[1] in ("ok", "err", "er")
            and all(map(PIXELS.fullmatch, box))
        ):
            raise InputError(
                f"{path}: row {number}: invalid {unit} '{row.strip()[:60]}'; use the original file from ascii.tgz"
            )
        if fields[0] in rows:
            raise InputError(f"{path}: row {number}: duplicate id {fields[0]}; use the original file from ascii.tgz")
        x, y, width, height = map(int, box)
        rows[fields[0]] = Row(fields[0], fields[1] != "ok", (x, y, width, height), tokens)
    if not rows:
        raise InputError(f"{path}: contains no {unit}s; use the original file from ascii.tgz")
    return list(rows.values())


def read_forms(path: Path) -> tuple[dict[str, str], dict[str, int]]:
    """Read the writer and the number of lines of each form from forms.txt (form, writer, sentences, prt, lines, ...).

    Raises:
        InputError: if the file is missing, or a row is malformed.
    """
    writers, lines = {}, {}
    for number, row in enumerate(read_text(path).splitlines(), start=1):
        fields = row.split()
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) < 5 or not PIXELS.fullmatch(fields[4]):
            raise InputError(
                f"{path}: row {number}: invalid form '{row.strip()[:60]}'; use the original file from ascii.tgz"
            )
        writers[fields[0]], lines[fields[0]] = fields[1], int(fields[4])
    return writers, lines


def read_boxes(path: Path, unit: str) -> tuple[dict[str, Box], tuple[int, int]]:
    """Read the boxes of the lines or words in an XML file, and the size of the form.

    Returns:
        The bounding box (left, top, right, bottom) of the components of each line or word, keyed by id, in pixels; and
        the (height, width) of the form, with 0 for an unknown size.

    Raises:
        InputError: if the file is missing, not XML, or not an IAM form.
    """
    root = parse(path)
    written = child(root, "handwritten-part")
    if written is None:
        raise InputError(f"{path}: no <handwritten-part>; use the original file from xml.tgz")
    lines = [element for element in written if local(element) == "line"]
    if unit == "line":
        units = [(line, list(line)) for line in lines]
    else:
        units = [(word, [word]) for line in lines for word in line if local(word) == "word"]
    boxes = {}
    try:
        for element, words in units:
            parts = [
                [_pixels(part.attrib[key]) for key in ("x", "y", "width", "height")]
                for word in words
                for part in word
                if local(part) == "cmp"
            ]
            if parts:
                boxes[element.attrib["id"]] = (
                    min(x for x, _, _, _ in parts),
                    min(y for _, y, _, _ in parts),
                    max(x + width for x, _, width, _ in parts),
                    max(y + height for _, y, _, height in parts),
                )
        return boxes, (_pixels(root.get("height", "0")), _pixels(root.get("width", "0")))
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: {error} is missing or not a number; use the original file from xml.tgz") from None


def join_punctuation(tokens: Sequence[str]) -> str:
    """Join tokens with the spacing of prose: `He said : " No . "` becomes `He said: "No."`.

    Closing punctuation and contractions ('s, n't, ...) attach to the preceding word, opening brackets to the following
    one. Quotation marks open and close alternately, and close at the end of a line. This is a heuristic: if a line
    starts inside a quotation, the closing mark is mistaken for an opening one.
    """
    text, opened, glue = "", set[str](), True
    for number, token in enumerate(tokens):
        opens, closes = token in OPENING, token in CLOSING or CONTRACTION.fullmatch(token) is not None
        if token in ('"', "'"):
            closes = token in opened or number == len(tokens) - 1
            opens = not closes
            opened ^= {token}
        text += token if glue or closes else " " + token
        glue = opens
    return text


def _pixels(text: str) -> int:
    if not PIXELS.fullmatch(text):
        raise ValueError(f"'{text[:20]}'")
    return int(text)
