"""Chinese handwriting of CASIA-HWDB: isolated characters (HWDB1.x) and text lines (HWDB2.x)."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from htr_lightning.data.reader.hwdb import character, index_dgrl, index_gnt, read_bitmap
from htr_lightning.data.sample import Sample, Skipped
from htr_lightning.data.split import SPLITS, split_groups
from htr_lightning.errors import InputError

# Folders as published: HWDB1.1trn_gnt, Gnt1.0TrainPart1, HWDB2.0Test.
FOLDERS = {"train": re.compile("train|trn", re.IGNORECASE), "test": re.compile("test|tst", re.IGNORECASE)}
UNREADABLE, TRUNCATED = "file that cannot be read", "truncated"
NO_CHARACTER, OUTSIDE = "label that is not a character", "character outside the chosen set"
File = TypeVar("File")


class CasiaCharacters(Sequence[Sample]):
    """The isolated characters of a folder of `.gnt` files, in the order of writers and records.

    Args:
        root: folder of the files.
        split: train, val or test; see `split_writers`. A writer is a file's stem.
        files: glob of the files below `root`.
        characters: "level1" reads the 3,755 frequent hanzi of GB 2312 and counts all others as skipped, "all" reads
            everything (7,356 characters in HWDB1.0 to 1.2 together).
        val_fraction: of the training writers, held out for validation.
        test_fraction: of all writers, held out for testing if no folder says which they are.
        seed: of the random choice of writers.
        faulty: what to do with a damaged file: "error", or "skip" (the whole file, counted). A truncated file is read
            as far as it goes, and its last record counted.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        files: str = "**/*.gnt",
        characters: str = "level1",
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        seed: int = 0,
        faulty: str = "error",
    ) -> None:
        if characters not in ("level1", "all"):
            raise InputError(f"data.reader.characters={characters}: use level1 or all")
        wanted = gb2312_level1() if characters == "level1" else None
        self.skipped: list[Skipped] = []
        self.texts: list[str] = []
        self._paths: list[Path] = []
        kept: list[Int[ndarray, "N 5"]] = []
        paths = split_writers(root, files, split, lambda path: path.stem, val_fraction, test_fraction, seed)
        for path, file in _indexed(paths, index_gnt, faulty, self.skipped):
            numbers: list[int] = []
            for number, label in enumerate(file.labels):
                text = character(label)
                if not text.strip():
                    self.skipped.append(Skipped(_id(path, number), NO_CHARACTER, f"0x{label.hex()}"))
                elif wanted is not None and text not in wanted:
                    self.skipped.append(Skipped(_id(path, number), OUTSIDE, text))
                else:
                    numbers.append(number)
                    self.texts.append(text)
            if file.cut:
                self.skipped.append(Skipped(_id(path, len(file.labels)), TRUNCATED, file.cut))
            where = np.column_stack([np.full(len(numbers), len(self._paths)), np.array(numbers, dtype=np.int64)])
            kept.append(np.hstack([where, file.boxes[numbers]]))
            self._paths.append(path)
        if not self.texts:
            raise InputError(f"{root}: no character of set '{characters}' in split '{split}'; check {paths[0]}")
        self._index: Int[ndarray, "N 5"] = np.concatenate(kept)  # file, record, height, width, offset
        self._writers = [path.stem for path in self._paths]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        file, number, height, width, offset = self._index[index].tolist()
        image, writer = read_bitmap(self._paths[file], offset, (height, width)), self._writers[file]
        return Sample(f"casia/{writer}/{number}", image, self.texts[index], writer)

    @property
    def ids(self) -> list[str]:
        return [f"casia/{self._writers[file]}/{number}" for file, number in self._index[:, :2].tolist()]

    @property
    def groups(self) -> list[str]:
        return [self._writers[file] for file in self._index[:, 0].tolist()]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return [(height, width) for height, width in self._index[:, 2:4].tolist()]


class CasiaLines(Sequence[Sample]):
    """The text lines of a folder of `.dgrl` files, in the order of pages and lines.

    Label units that are not characters are left out of the text and counted one by one; so is a line of which nothing
    is left.

    Args:
        root: folder of the files.
        split: train, val or test; see `split_writers`. A writer is a file's stem up to its first hyphen.
        files: glob of the files below `root`.
        val_fraction: of the training writers, held out for validation.
        test_fraction: of all writers, held out for testing if no folder says which they are.
        seed: of the random choice of writers.
        faulty: what to do with a damaged file: "error", or "skip" (the whole file, counted). A truncated file is read
            as far as it goes, and its missing lines counted.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        files: str = "**/*.dgrl",
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        seed: int = 0,
        faulty: str = "error",
    ) -> None:
        self.skipped: list[Skipped] = []
        self._entries: list[_Entry] = []

        def writer(path: Path) -> str:
            return path.stem.split("-")[0]

        paths = split_writers(root, files, split, writer, val_fraction, test_fraction, seed)
        for path, file in _indexed(paths, index_dgrl, faulty, self.skipped):
            for number, line in enumerate(file.lines):
                id, characters = _id(path, number), [character(unit) for unit in line.label]
                self.skipped += [
                    Skipped(id, NO_CHARACTER, f"unit {position}: 0x{unit.hex()}")
                    for position, (unit, found) in enumerate(zip(line.label, characters, strict=True))
                    if not found
                ]
                text = "".join(characters)
                if text.strip():
                    self._entries.append(_Entry(id, path, line.offset, line.size, file.bits, text, writer(path)))
                else:
                    self.skipped.append(Skipped(id, "line without text"))
            missing = range(len(file.lines), file.stated)
            detail = f"{path}: {file.rest} bytes after {len(file.lines)} lines"
            self.skipped += [Skipped(_id(path, number), TRUNCATED, detail) for number in missing]
            if file.rest and not missing:
                self.skipped.append(Skipped(f"casia/{path.stem}", "bytes after the last line", detail))
        if not self._entries:
            raise InputError(f"{root}: no line with text in split '{split}'; check {paths[0]}")

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        entry = self._entries[index]
        return Sample(entry.id, read_bitmap(*entry[1:5]), entry.text, entry.group)

    @property
    def ids(self) -> list[str]:
        return [entry.id for entry in self._entries]

    @property
    def texts(self) -> list[str]:
        return [entry.text for entry in self._entries]

    @property
    def groups(self) -> list[str]:
        return [entry.group for entry in self._entries]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return [entry.size for entry in self._entries]


class _Entry(NamedTuple):
    id: str
    path: Path
    offset: int
    size: tuple[int, int]
    bits: int
    text: str
    group: str


@cache
def gb2312_level1() -> frozenset[str]:
    """The 3,755 frequent hanzi: rows 16 to 55 of GB 2312-80, the last of which ends at cell 89."""
    codes = (bytes((0xA0 + row, 0xA0 + cell)) for row in range(16, 56) for cell in range(1, 95))
    return frozenset("".join(code.decode("gb2312", errors="ignore") for code in codes))


def split_writers(
    root: str | Path | None,
    files: str,
    split: str,
    writer: Callable[[Path], str],
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> list[Path]:
    """The files of one split, sorted; no writer is in two splits.

    If the names of folders below `root` say so (train or trn, test or tst; the innermost counts), training and test
    writers are the published ones; otherwise test writers are chosen at random. Validation writers are chosen from
    those of training (see `split_groups`): the same on every machine.

    Raises:
        InputError: there is no file or writer for the split, a writer is in both folders, a file in neither, or two
            files have the same name.
    """
    if root is None:
        raise InputError("data.root is not set; give the folder of the CASIA-HWDB files, as in data.root=FOLDER")
    if split not in SPLITS:
        raise InputError(f"'{split}' is not a split of CASIA-HWDB; use one of train, val, test")
    for option, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 < fraction < 1:
            raise InputError(f"data.reader.{option}={fraction}: give a fraction of the writers between 0 and 1")
    try:
        paths = sorted(path for path in Path(root).glob(files) if path.is_file())
    except (ValueError, NotImplementedError):  # raised by pathlib for an invalid or absolute pattern
        raise InputError(f"data.reader.files={files}: give a pattern below data.root, such as **/*.gnt") from None
    if not paths:
        raise InputError(f"{root}: no file matches '{files}'; set data.root to the folder of the CASIA-HWDB files")
    parts: dict[str, str | None] = {}
    stems: dict[str, Path] = {}
    for path in paths:
        if (other := stems.setdefault(path.stem, path)) != path:
            raise InputError(f"{path}: has the same name as {other}; choose one of them with data.reader.files")
        part, name = _folder_part(path.relative_to(root)), writer(path)
        if parts.setdefault(name, part) != part:
            raise InputError(
                f"{path}: writer {name} is in '{part or 'no'}' and '{parts[name] or 'no'}' folders; "
                "choose files that belong together with data.reader.files"
            )
    if any(parts.values()):
        if unplaced := next((name for name, part in parts.items() if part is None), None):
            raise InputError(
                f"{root}: writer {unplaced} is not in a folder of training or test files, unlike others; "
                "move the file, or choose others with data.reader.files"
            )
        test = {name for name, part in parts.items() if part == "test"}
    else:
        test = _choose(set(parts), test_fraction, seed, "test", root)
    val = _choose(set(parts) - test, val_fraction, seed, "val", root)
    wanted = {"train": set(parts) - test - val, "val": val, "test": test}[split]
    if not wanted:
        raise InputError(
            f"{root}: split '{split}' has no writer: {len(parts)} writers, {len(test)} of them for testing and "
            f"{len(val)} for validation; complete the folder"
        )
    return [path for path in paths if writer(path) in wanted]


def _folder_part(path: Path) -> str | None:
    for folder in reversed(path.parts[:-1]):
        named = [part for part, pattern in FOLDERS.items() if pattern.search(folder)]
        if len(named) == 1:
            return named[0]
    return None


def _choose(writers: set[str], fraction: float, seed: int, split: str, root: str | Path) -> set[str]:
    if len(writers) < 2:
        return writers  # another split may be the one that is wanted
    splits = split_groups(sorted(writers), {"train": 1 - fraction, split: fraction}, seed, str(root))
    return {writer for writer in writers if splits[writer] == split}


def _indexed(
    paths: Sequence[Path], index: Callable[[Path], File], faulty: str, skipped: list[Skipped]
) -> Iterator[tuple[Path, File]]:
    """Every file with its index; damaged ones are refused or counted."""
    if faulty not in ("error", "skip"):
        raise InputError(f"data.reader.faulty={faulty}: use error or skip")
    for path in paths:
        try:
            yield path, index(path)
        except InputError as error:
            if faulty == "error":
                raise InputError(f"{error}, or set data.reader.faulty=skip") from None
            skipped.append(Skipped(f"casia/{path.stem}", UNREADABLE, str(error), "faulty"))


def _id(path: Path, number: int) -> str:
    return f"casia/{path.stem}/{number}"
