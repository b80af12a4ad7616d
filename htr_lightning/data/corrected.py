"""Corrections of lines, which of them count, and which lines are held out. Does not import torch."""

from collections.abc import Sequence
from hashlib import sha256
from itertools import groupby
from typing import NamedTuple

from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.data.files import nfc
from htr_lightning.errors import printable

HELD_OUT, VALIDATION = 0.25, 0.1  # fractions of the groups, and of the lines in the other groups


class Correction(NamedTuple):
    """A line as somebody corrected or confirmed it."""

    image: UInt8[ndarray, "H W"]
    text: str | None  # None withdraws what the same person has said about the same place
    before: str | None = None  # what the recognizer had read
    confidence: float | None = None  # of the recognizer
    source: str = ""  # name of the page or image
    line: str = ""  # id of the line in the page
    group: str = ""  # writer, document or page; "" for the name of the page


class Row(NamedTuple):
    """A stored correction, and the size of its image; `batch` is the same for all that were added together."""

    number: int
    batch: int
    time: str
    who: str
    image: str
    text: str | None
    before: str | None
    confidence: float | None
    model: str
    model_sha256: str
    source: str
    line: str
    group: str
    settles: int
    height: int
    width: int

    @property
    def place(self) -> str:
        """The name of the page and the id of the line."""
        return f"{self.source}#{self.line}" if self.line else self.source


class StoredLine(NamedTuple):
    """A line image with the texts that count, and the rows that say so; several texts contradict each other."""

    image: str
    height: int
    width: int
    group: str
    texts: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def id(self) -> str:
        return printable(f"{self.rows[0].place}-{self.image[:8]}")

    @property
    def told(self) -> str:
        """The texts and who wrote them, in one line."""
        said = (f"{row.text!r} ({row.who or 'unknown'})" for row in {row.text: row for row in self.rows}.values())
        return printable(f"{self.rows[0].place}: {', '.join(said)}")


def image_hash(image: UInt8[ndarray, "H W"]) -> str:
    """Return a hash of the pixels of an image, which is the same in whatever format it was stored."""
    return sha256(b"%d %d\n" % image.shape + image.tobytes()).hexdigest()


def stored_lines(rows: Sequence[Row]) -> list[StoredLine]:
    """Return the lines with at least one text, from rows in the order in which they were added.

    What one person says about one place of one image replaces what that person said in an earlier batch; a batch that
    settles replaces what all have said. If texts that remain differ, they contradict each other. The group of a line is
    the one that came first, since a line must not move between groups.
    """
    lines = []
    for image, several in groupby(sorted(rows, key=lambda row: row.image), key=lambda row: row.image):
        all_rows = list(several)
        settled = max((row.batch for row in all_rows if row.settles), default=0)
        latest: dict[tuple[str, str, str], list[Row]] = {}
        for row in all_rows:
            key = (row.who, row.source, row.line)
            if row.batch >= settled:
                latest[key] = [*(one for one in latest.get(key, []) if one.batch == row.batch), row]
        counting = sorted(row for some in latest.values() for row in some if row.text is not None)
        if counting:
            texts = tuple(dict.fromkeys(row.text for row in counting if row.text is not None))
            first = all_rows[0]
            lines.append(StoredLine(image, first.height, first.width, first.group, texts, tuple(counting)))
    return sorted(lines, key=lambda line: line.rows[0].number)


def splits(lines: Sequence[StoredLine]) -> dict[str, str]:
    """Return the split of each line without contradictions, by image.

    A quarter of the groups, chosen by the hash of their names, is held out as "test", whatever else comes in. Of the
    other lines, a tenth, but at least one, is "val", which only chooses a checkpoint; a line may move from there to
    "train" as more come in.
    """
    usable = [line for line in lines if len(line.texts) == 1]
    found = {line.image: "test" for line in usable if is_held_out(line.group)}
    others = sorted(line.image for line in usable if line.image not in found)
    count = max(1, round(VALIDATION * len(others)))
    return found | {image: "val" if place < count else "train" for place, image in enumerate(others)}


def is_held_out(group: str) -> bool:
    """Return whether the lines of a group are never trained on."""
    return int(sha256(nfc(group).encode()).hexdigest()[:8], 16) < HELD_OUT * 16**8
