"""Read Chinese handwriting from CASIA-HWDB: isolated characters (HWDB1.x) and text lines (HWDB2.x)."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from htr_lightning.data.files import files_below, matches
from htr_lightning.data.reader.hwdb import character, index_dgrl, index_gnt, read_bitmap
from htr_lightning.data.root import data_folder
from htr_lightning.data.sample import Sample, Skipped
from htr_lightning.data.split import SPLITS, split_groups
from htr_lightning.errors import InputError, printable
from htr_lightning.parameters import Fraction, Seed

# Published folder names include HWDB1.1trn_gnt, Gnt1.0TrainPart1 and HWDB2.0Test.
FOLDERS = {"train": re.compile("train|trn", re.IGNORECASE), "test": re.compile("test|tst", re.IGNORECASE)}
CONTENTS = "the CASIA-HWDB files"
SOURCE = "download them from https://nlpr.ia.ac.cn/databases/handwriting/Download.html"
UNREADABLE, TRUNCATED = "unreadable file", "truncated file"
NO_CHARACTER, OUTSIDE = "label that is not a character", "character outside the chosen set"
File = TypeVar("File")


class CasiaCharacters(Sequence[Sample]):
    """The isolated characters in a folder of `.gnt` files, ordered by writer and record.

    Args:
        root: folder containing the files, at any depth.
        split: train, val or test; see `split_writers`. The writer is the stem of the file name.
        files: glob pattern for the files below `root`.
        characters: "level1" reads the 3,755 frequent hanzi in GB 2312 and counts all others as skipped; "all" reads
            everything (7,356 characters in HWDB1.0 to 1.2 together).
        val_fraction: fraction of the training writers held out for validation.
        test_fraction: fraction of all writers held out for testing, unless folder names identify the test writers.
        seed: random seed for the choice of writers.
        faulty: what to do with a corrupted file; "error", or "skip" to skip the whole file and count it as skipped. A
            truncated file is read up to its last complete record, and the incomplete record is counted as skipped.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        files: str = "**/*.gnt",
        characters: str = "level1",
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.2,
        seed: Seed = 0,
        faulty: str = "error",
    ) -> None:
        if characters not in ("level1", "all"):
            raise InputError(f"data.reader.characters={characters}: expected level1 or all")
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
            raise InputError(
                f"{root}: split '{split}' contains no characters from the set '{characters}'; check {paths[0]}"
            )
        self._index: Int[ndarray, "N 5"] = np.concatenate(kept)  # file, record, height, width, offset
        self._writers = [printable(path.stem) for path in self._paths]

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
    """The text lines in a folder of `.dgrl` files, ordered by page and line.

    Label units that are not characters are omitted from the text and counted as skipped. Lines whose text becomes empty
    are skipped, too.

    Args:
        root: folder containing the files, at any depth.
        split: train, val or test; see `split_writers`. The writer is the part of the file name before the first hyphen.
        files: glob pattern for the files below `root`.
        val_fraction: fraction of the training writers held out for validation.
        test_fraction: fraction of all writers held out for testing, unless folder names identify the test writers.
        seed: random seed for the choice of writers.
        faulty: what to do with a corrupted file; "error", or "skip" to skip the whole file and count it as skipped. A
            truncated file is read up to its last complete line, and its missing lines are counted as skipped.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        files: str = "**/*.dgrl",
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.2,
        seed: Seed = 0,
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
            raise InputError(f"{root}: split '{split}' has no lines with text; check {paths[0]}")

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
    """Return the 3,755 frequent hanzi: rows 16 to 55 of GB 2312-80, the last of which ends at cell 89."""
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
    """Return the files of one split, sorted. No writer is in two splits.

    If folder names below `root` identify the split (train or trn, test or tst; the innermost folder takes precedence),
    the published training and test writers are used; otherwise test writers are chosen at random. Validation writers
    are chosen from the training writers (see `split_groups`) and are the same on every machine.

    Raises:
        InputError: if the split has no files or writers, a writer occurs in both training and test folders, a file is
            outside these folders, or two files have the same name.
    """
    root = data_folder(root, CONTENTS, SOURCE)
    if split not in SPLITS:
        raise InputError(f"'{split}' is not a split of CASIA-HWDB; expected train, val or test")
    for option, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 < fraction < 1:
            raise InputError(f"data.reader.{option}={fraction}: expected a fraction between 0 and 1")
    paths = [path for path in files_below(root) if matches(path.relative_to(root), files)]
    if not paths:
        raise InputError(
            f"{root}: no file matches data.reader.files={files}; set data.root to the folder containing {CONTENTS}, or "
            f"{SOURCE}"
        )
    parts: dict[str, str | None] = {}
    stems: dict[str, Path] = {}
    for path in paths:
        if (other := stems.setdefault(path.stem, path)) != path:
            raise InputError(f"{path}: has the same name as {other}; select one of them with data.reader.files")
        part, name = _folder_part(path.relative_to(root)), writer(path)
        if parts.setdefault(name, part) != part:
            raise InputError(
                f"{path}: writer {name} is in '{part or 'other'}' and '{parts[name] or 'other'}' folders; "
                "select consistent files with data.reader.files"
            )
    if any(parts.values()):
        if unplaced := next((name for name, part in parts.items() if part is None), None):
            raise InputError(
                f"{root}: writer {unplaced} is in neither a training nor a test folder, unlike other writers; "
                "move the file, or exclude it with data.reader.files"
            )
        test = {name for name, part in parts.items() if part == "test"}
    else:
        test = _choose(set(parts), test_fraction, seed, "test", root)
    val = _choose(set(parts) - test, val_fraction, seed, "val", root)
    wanted = {"train": set(parts) - test - val, "val": val, "test": test}[split]
    if not wanted:
        raise InputError(
            f"{root}: split '{split}' has no writers (total: {len(parts)}, test: {len(test)}, val: {len(val)}); add "
            "the missing files"
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
        return writers  # leaves the other split empty, which matters only if that split is requested
    splits = split_groups(sorted(writers), {"train": 1 - fraction, split: fraction}, seed, str(root))
    return {writer for writer in writers if splits[writer] == split}


def _indexed(
    paths: Sequence[Path], index: Callable[[Path], File], faulty: str, skipped: list[Skipped]
) -> Iterator[tuple[Path, File]]:
    """Yield each file with its index; corrupted files raise an error or are counted as skipped."""
    if faulty not in ("error", "skip"):
        raise InputError(f"data.reader.faulty={faulty}: expected error or skip")
    for path in paths:
        try:
            yield path, index(path)
        except InputError as error:
            if faulty == "error":
                raise InputError(f"{error}, or set data.reader.faulty=skip") from None
            skipped.append(Skipped(f"casia/{path.stem}", UNREADABLE, str(error), "faulty"))


def _id(path: Path, number: int) -> str:
    return printable(f"casia/{path.stem}/{number}")
