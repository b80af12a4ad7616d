"""Find image files and their texts, which are given by text files, tables, PyLaia tables or folder names."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from htr_lightning.data.fault import Fault
from htr_lightning.data.files import FileIndex, files_below, is_inside, nfc, read_utf8
from htr_lightning.data.image import OTHER_SUFFIXES, SUFFIXES
from htr_lightning.data.reader.folder import Entry
from htr_lightning.data.reader.rows import LISTING, Column, lines_in, numbered, read_rows
from htr_lightning.errors import InputError

SPELLINGS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "testing")}
PROCESSED = (".nrm.png", ".bin.png")  # normalised and binarised copies made by OCRopus and Calamari
BLANKS = re.compile("[ \t]+")  # between the tokens of a PyLaia table; other spaces belong to the text
Found = tuple[list[Entry], list[Fault]]


class Pairs:
    """Pairs of an image and a text file, such as `x.png` and `x.gt.txt`, as in kraken, Calamari and OCR-D.

    Args:
        images: suffixes of image files; if several images share a text file, the one whose suffix is listed first
            is used. None stands for all formats that can be read, followed by `PROCESSED`.
        text: suffix of text files.
    """

    def __init__(self, images: Sequence[str] | None = None, text: str = ".gt.txt") -> None:
        self.images, self.text = [ending.lower() for ending in images or (*SUFFIXES, *PROCESSED)], text.lower()
        self.contents = f"images and their text files, e.g. train/1{self.images[0]} and train/1{text}"

    def __call__(self, root: Path, part: str, split: str) -> Found:
        """Find the pairs below a folder."""
        pictures: dict[str, Path] = {}
        texts, unreadable = [], {}
        longest_first = sorted(self.images, key=len, reverse=True)
        for path in files_below(root / part):
            name = nfc(path.relative_to(root).as_posix())
            lowered = name.lower()
            if lowered.endswith(self.text):
                texts.append((name[: -len(self.text)], path))
            elif ending := next((ending for ending in longest_first if lowered.endswith(ending)), None):
                pictures[name[: -len(ending)] + ending] = path
            elif path.suffix.lower() in OTHER_SUFFIXES:
                unreadable[name[: -len(path.suffix)]] = path
        entries, faults = [], []
        for stem, path in texts:
            same = [found for ending in self.images if (found := pictures.pop(stem + ending, None))]
            try:
                text = read_utf8(path)
            except InputError as error:
                faults.append(Fault(str(path), "unreadable text", str(error).partition(": ")[2]))
                continue
            if same:
                entries.append(Entry(stem, same[0], text))
            elif stem not in unreadable:
                expected = ", ".join(self.images[:8]) + ", ..." * (len(self.images) > 8)
                faults.append(Fault(str(path), "text without an image", f"expected one of {expected}"))
        faults += [Fault(str(path), f"image without {self.text}") for path in pictures.values()]
        return entries, faults + [_unreadable(path) for path in unreadable.values()]


class Images:
    """Images without texts, for example for pseudo-labelling."""

    contents = "images"

    def __call__(self, root: Path, part: str, split: str) -> Found:
        """Find the images below a folder."""
        images, faults = _images_below(root / part)
        return [Entry(path.relative_to(root).as_posix(), path, "") for path in images], faults


class Table:
    """A CSV, TSV or JSON Lines table with a row for each image.

    Columns are identified by name, or by index (starting at 0) if the table has no header.

    Args:
        image: column containing the image file names, relative to `images` or to the folder of the table.
        text: column containing the texts.
        group: column containing the writer or document; None derives the group from the image name with
            `data.reader.group`.
        split: column containing the split of each row; None if the table contains only one split.
        images: folder of the images, relative to the root.
        delimiter: cell delimiter: comma, tab, semicolon, pipe or another character; None chooses a comma for .csv and
            a tab for .tsv, .tab and .txt.
        outside: whether names may lead to images outside the root and `images`.
    """

    def __init__(
        self,
        image: Column,
        text: Column,
        group: Column | None = None,
        split: Column | None = None,
        images: str = ".",
        delimiter: str | None = None,
        outside: bool = False,
    ) -> None:
        columns = {"image": image, "text": text, "group": group, "split": split}
        self.columns = {option: column for option, column in columns.items() if column is not None}
        self.images, self.delimiter, self.outside = images, delimiter, outside
        self.contents = "images and a table with their transcriptions, e.g. train.csv"

    def __call__(self, root: Path, part: str, split: str) -> Found:
        """Read the rows of a table."""
        table = root / part
        find = _Finder(root, [root / self.images, table.parent], self.outside)
        rows = read_rows(table, self.columns, self.delimiter, lambda cell: isinstance(find("", cell), Path))
        entries: list[Entry] = []
        faults: list[Fault] = []
        for index, (number, row) in enumerate(rows):
            where = f"{table}:{number}"
            if isinstance(row, Fault):
                faults.append(row._replace(id=where))
                continue
            values = {option: row.get(column) for option, column in self.columns.items()}
            if bad := next((option for option, one in values.items() if not isinstance(one, str | None)), None):
                faults.append(Fault(where, "cell is not text", f"{self.columns[bad]}={str(values[bad])[:40]}"))
                continue
            if "split" in values:
                stated = next((s for s, spelt in SPELLINGS.items() if str(values["split"]).lower() in spelt), None)
                if stated is None:
                    unknown = f"{self.columns['split']}={values['split']}"
                    faults.append(Fault(where, "row with an unknown split", unknown))
                if stated != split:
                    continue
            name = values["image"] or ""
            image = find(where, name) if name else Fault(where, "row without an image")
            if isinstance(image, Path):
                entries.append(Entry(name, image, values["text"] or "", values.get("group") or None))
                continue
            if index == 0 and numbered(self.columns) and name and Path(name).suffix.lower() not in SUFFIXES:
                hint = f"; if this row is a header, set {LISTING}.image and {LISTING}.text to column names"
                image = image._replace(detail=image.detail + hint)
            faults.append(image)
        return entries, faults


class Laia:
    """A PyLaia table, in which each row contains an image id and the space-separated tokens of a text.

    Args:
        images: folders of the images, relative to the root; an id is the name of an image, with or without its suffix.
        space: token that stands for a space; None if texts are not tokenised.
        outside: whether ids may lead to images outside the root and `images`.
    """

    def __init__(self, images: Sequence[str], space: str | None = "<space>", outside: bool = False) -> None:
        self.images, self.space, self.outside = list(images), space, outside
        self.contents = "images and PyLaia tables with their transcriptions, e.g. train.txt"

    def __call__(self, root: Path, part: str, split: str) -> Found:
        """Read the rows of a table, ignoring empty rows and comments (#)."""
        entries, faults = [], []
        find = _Finder(root, [root / folder for folder in self.images], self.outside, ("", *SUFFIXES, *OTHER_SUFFIXES))
        for number, line in lines_in(read_utf8(root / part)):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            id, *tokens = BLANKS.split(line.strip(" \t"))
            if self.space is None:
                text = line.strip(" \t")[len(id) :].strip(" \t")
            else:
                text = "".join(" " if token == self.space else token for token in tokens)
            image = find(f"{root / part}:{number}", id)
            if isinstance(image, Path):
                entries.append(Entry(id, image, text))
            else:
                faults.append(image)
        return entries, faults


class Classes:
    """One folder of images per character, named after the character (`あ/1.png`) or its code point (`U+3042/1.png`).

    Args:
        names: path, relative to the root, to a table of folder names and characters, separated by tabs; None if folders
            are named after characters or code points.
    """

    def __init__(self, names: str | None = None) -> None:
        self.names = names
        self.contents = "one folder of images per character, e.g. train/a/1.png"

    def __call__(self, root: Path, part: str, split: str) -> Found:
        """Find the images in the folders."""
        names: dict[str, str] = {}
        for number, line in lines_in(read_utf8(root / self.names)) if self.names else ():
            folder, _, character = line.partition("\t")
            if not folder or not character:
                raise InputError(f"{root / str(self.names)}:{number}: expected a folder name, a tab and a character")
            names[nfc(folder)] = character
        images, faults = _images_below(root / part)
        entries = []
        for path in images:
            inside = path.relative_to(root / part).parts
            if len(inside) < 2:
                faults.append(Fault(str(path), "image outside the character folders"))
            elif self.names and nfc(inside[0]) not in names:
                faults.append(Fault(str(path), "folder without a character", f"{inside[0]} is not in {self.names}"))
            else:
                text = names.get(nfc(inside[0])) or _character(inside[0])
                entries.append(Entry(path.relative_to(root).with_suffix("").as_posix(), path, text))
        return entries, faults


class _Finder:
    """A lookup of the images that a table names, relative to any of several folders.

    Names are untrusted: they cannot lead outside the root or these folders unless `outside` is set. Symbolic links may.
    """

    def __init__(self, root: Path, folders: Sequence[Path], outside: bool, endings: Sequence[str] = ("",)) -> None:
        self.folders, self.outside, self.endings = folders, outside, endings
        self._tops = [Path(os.path.abspath(top)) for top in (root, root.resolve(), *folders)]
        self._index = FileIndex()

    def __call__(self, where: str, name: str) -> Path | Fault:
        """Return the image with a name, or a fault in the row that `where` identifies."""
        starts = [(folder, one) for folder in self.folders for one in dict.fromkeys((name, name.replace("\\", "/")))]
        allowed = [(folder, one) for folder, one in starts if self.outside or self._is_inside(folder, one)]
        found = next(filter(None, (self._find(*start) for start in allowed)), None)
        if found is None and (not allowed or any(self._find(*start) for start in starts if start not in allowed)):
            return Fault(where, "image outside data.root", f"{name}; to allow this, set {LISTING}.outside=true")
        if found is None:
            return Fault(where, "image not found", str(self.folders[0] / name))
        if found.suffix.lower() in OTHER_SUFFIXES:
            fault = _unreadable(found)
            return Fault(where, fault.kind, f"{name}; {fault.detail}")
        return found

    def _is_inside(self, folder: Path, name: str) -> bool:
        return (not os.path.isabs(name) and ".." not in name.split("/")) or is_inside(folder / name, self._tops)

    def _find(self, folder: Path, name: str) -> Path | None:
        if os.path.isabs(name):
            top = next((top for top in self._tops if is_inside(Path(name), [top])), None)
            if top is None:  # the folders on the way may be unreadable, so they cannot be listed
                return Path(name) if os.path.isfile(name) else None
            folder, name = top, os.path.relpath(name, top)
        return self._index.find(folder, name, self.endings)


def _images_below(folder: Path) -> tuple[list[Path], list[Fault]]:
    """Return the images below a folder, and a fault for each image in a format that cannot be read."""
    paths = files_below(folder)
    unreadable = [_unreadable(path) for path in paths if path.suffix.lower() in OTHER_SUFFIXES]
    return [path for path in paths if path.suffix.lower() in SUFFIXES], unreadable


def _unreadable(path: Path) -> Fault:
    return Fault(str(path), "image in a format that cannot be read", "convert it to PNG, JPEG or TIFF")


def _character(folder: str) -> str:
    code = folder[2:]
    try:
        return chr(int(code, 16)) if folder.startswith("U+") else folder
    except (ValueError, OverflowError):
        return folder
