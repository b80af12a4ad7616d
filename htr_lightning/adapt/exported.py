"""Pages as they were exported to an editor, and archives of what comes back. Does not import torch."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from htr_lightning.data import archive
from htr_lightning.data.files import nfc
from htr_lightning.data.page.document import read_page
from htr_lightning.data.page.page import Page
from htr_lightning.data.page.xml import child, line_id, local, number, parse
from htr_lightning.errors import InputError
from htr_lightning.reading.sources import Source, find_sources

CHECKED = ("FINAL", "GT")  # states of a page in Transkribus that say that a person has checked all of it


class ExportedLine(NamedTuple):
    """The text that a recognizer had read, and its confidence if the file states one."""

    text: str
    confidence: float | None


class ExportedPage(NamedTuple):
    """A page as it was given to an editor."""

    image: Path | str
    size: tuple[int, int]  # width and height in pixels
    lines: dict[str, ExportedLine]


class Exported:
    """The pages that were given to an editor, which may have renamed their files but not their lines.

    Args:
        names: their files, folders or patterns.

    Raises:
        InputError: if a file cannot be read.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._pages: defaultdict[str, list[ExportedPage]] = defaultdict(list)
        for source in sources_of(names):
            if source.is_page:
                page, stated = read_page(source.path), confidences(source.path)
                lines = {line.id: ExportedLine(line.text, stated.get(line.id)) for line in page.lines}
                for key in dict.fromkeys(_keys(page.image, source.path)):
                    self._pages[key].append(ExportedPage(source.image, (page.width, page.height), lines))
        if not self._pages:
            raise InputError(f"{', '.join(names)}: no PAGE or ALTO files; name what was exported to the editor")

    def find(self, path: Path, page: Page) -> ExportedPage | None:
        """Return what was exported of a page, by the names of its image and of its PAGE or ALTO file, or None.

        Raises:
            InputError: if several exported pages have its name, its size and one of its lines.
        """
        keys = _keys(page.image, path)
        keys += [re.sub(r"^\d+_", "", key) for key in keys]  # Transkribus can put numbers before names
        found = next((self._pages[key] for key in keys if key in self._pages), [])
        if len(found) > 1:
            size, ids = (page.width, page.height), {line.id for line in page.lines}
            found = [one for one in found if one.size == size and ids & one.lines.keys()]
        if len(found) > 1:
            raise InputError(f"{path}: may be {found[0].image} or {found[1].image}; compare the pages of one folder at "
                             "a time")  # fmt: skip
        return found[0] if found else None


def _keys(image: str, path: Path) -> list[str]:
    stems = (Path(image.replace("\\", "/")).stem, path.stem)
    return [nfc(stem).casefold() for stem in stems if stem]


def same_text(one: str, other: str) -> bool:
    """Return whether texts differ at most in white space and in the form of their characters."""
    return nfc(one).split() == nfc(other).split()


def confidences(path: Path) -> dict[str, float]:
    """Return the lowest confidence that a PAGE or ALTO file states for each line, by its id, if it states any.

    All lines of a page that is marked as checked in Transkribus have a confidence of 1.
    """
    root = parse(path)
    key = "id" if local(root) == "PcGts" else "ID"
    metadata = child(root, "Metadata", "TranskribusMetadata")
    checked = metadata is not None and metadata.get("status") in CHECKED
    found = {}
    for count, line in enumerate((element for element in root.iter() if local(element) == "TextLine"), start=1):
        stated = [e.get("conf", e.get("WC")) for e in line if local(e) in ("TextEquiv", "String")]
        values = [1.0] if checked else [number(value, 1.0) for value in stated if value is not None]
        if values:
            found[line_id(line, key, count)] = min(values)
    return found


def sources_of(names: Sequence[str]) -> list[Source]:
    """Return the files that names refer to; raise InputError if one cannot be used."""
    sources, errors, _ = find_sources(names)
    if errors:
        raise InputError(errors[0])
    return sources


@contextmanager
def unpacked(names: Sequence[str]) -> Iterator[list[str]]:
    """Yield names with a temporary folder for each zip archive, and name the archive itself in errors.

    Raises:
        InputError: if an archive cannot be unpacked (see `archive.extract`).
    """
    with TemporaryDirectory(prefix="htr-archive-") as folder:
        packed = (name for name in names if name.lower().endswith(".zip") and Path(name).is_file())
        inside = {name: Path(folder, str(place)) for place, name in enumerate(packed)}
        try:
            yield [str(archive.extract(Path(name), inside[name])) if name in inside else name for name in names]
        except InputError as error:
            message = str(error)
            for name, place in reversed(inside.items()):  # 10 before 1
                message = message.replace(str(place), name)
            raise InputError(message) from None
