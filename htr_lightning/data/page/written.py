"""What the writers of PAGE, ALTO and hOCR share: what a file says about its texts, ids, and where elements go."""

import os
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import NamedTuple
from xml.etree.ElementTree import Element

from htr_lightning.data.page.page import Line, Points
from htr_lightning.data.page.xml import local
from htr_lightning.errors import InputError
from htr_lightning.version import __version__

SOFTWARE = "htr-lightning"
STEP = "recognition/text-recognition"
LETTERS = r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*"  # a word without its punctuation, such as l'enfant
HYPHENS = "-\u2010\u2011\u2e17=¬"


class About(NamedTuple):
    """What a file says about its texts."""

    model: str = ""  # name of the recognizer
    language: str = ""  # code such as "fr"; "" to state none
    glyphs: bool = False  # whether to write the box and the confidence of each character
    exchanged: bool = False  # whether common editors will open it, some of which read PAGE 2013 only, and no hyphens

    @property
    def software(self) -> str:
        """The name and version of this program."""
        return f"{SOFTWARE} {__version__}"

    def __str__(self) -> str:
        return f"{self.software}{self.model and f' ({self.model})'}, {now()}"


class Hyphenated(NamedTuple):
    """A word that is divided at the end of a line."""

    hyphen: str
    whole: str  # the word without the hyphen


class Ids:
    """Names for the elements of a file, each of which is given once.

    Args:
        root: element whose ids are taken.
    """

    def __init__(self, root: Element | None = None) -> None:
        found = () if root is None else root.iter()
        self._taken = {element.get(key, "") for element in found for key in ("id", "ID", "pcGtsId")}

    def new(self, wanted: str) -> str:
        """Return a valid name that is not taken, the wanted one if possible."""
        valid = re.sub(r"[^\w.\-]", "_", wanted)
        valid = valid if re.match(r"[^\W\d]", valid) else f"_{valid}"
        name, count = valid, 1
        while name in self._taken:
            count += 1
            name = f"{valid}_{count}"
        self._taken.add(name)
        return name


def now() -> str:
    """Return the time as files state it: the current one, or that of the environment variable SOURCE_DATE_EPOCH.

    With the variable, files are the same each time (https://reproducible-builds.org/specs/source-date-epoch/).

    Raises:
        InputError: if the variable is not a number of seconds since 1970.
    """
    given = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        time = datetime.now(UTC) if given is None else datetime.fromtimestamp(int(given), UTC)
    except (ValueError, OverflowError, OSError):
        raise InputError(f"SOURCE_DATE_EPOCH={given}: expected seconds since 1970; correct or unset it") from None
    return time.isoformat(timespec="seconds")


def pairs(points: Points, between: str = ",") -> str:
    """Return points as coordinates in whole pixels."""
    return " ".join(f"{max(0, round(x))}{between}{max(0, round(y))}" for x, y in points)


def hyphenations(lines: Sequence[Line]) -> list[Hyphenated | None]:
    """Return the divided word at the end of each line, or None.

    A word counts as divided if a letter and a hyphen end its line and the next line of its region begins with a small
    letter.
    """
    found: list[Hyphenated | None] = []
    for line, after in zip_longest(lines, lines[1:]):
        end = re.search(rf"({LETTERS})([{re.escape(HYPHENS)}])$", line.text)
        begin = re.match(LETTERS, after.text) if after is not None and after.region == line.region else None
        divided = end and begin and begin[0][0].islower()
        found.append(Hyphenated(end[2], end[1] + begin[0]) if end and begin and divided else None)
    return found


def remove(parent: Element, names: Sequence[str]) -> None:
    """Remove the children of some names, and the white space after them."""
    for index in range(len(parent) - 1, -1, -1):
        if local(parent[index]) in names:
            if index == len(parent) - 1:
                _set_end(parent, index, parent[index].tail)
            del parent[index]


def insert(parent: Element, children: Iterable[Element], before: Sequence[str] = ()) -> None:
    """Insert children before the first child of some names, or else at the end, indented like the others."""
    names = [local(child) for child in parent]
    at = next((index for index, name in enumerate(names) if name in before), len(parent))
    indent = parent.text if len(parent) else None
    for index, child in enumerate(children, start=at):
        child.tail = indent
        if index == len(parent) and index:
            child.tail, parent[index - 1].tail = parent[index - 1].tail, indent
        parent.insert(index, child)


def _set_end(parent: Element, index: int, space: str | None) -> None:
    if index:
        parent[index - 1].tail = space
    else:
        parent.text = space
