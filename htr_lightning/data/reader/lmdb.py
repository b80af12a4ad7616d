"""Read lines from LMDB databases, as used by parseq, docTR and scene text benchmarks."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path

import lmdb

from htr_lightning.data.fault import EMPTY, LINE_BREAKS, Fault, sort_out, text_fault
from htr_lightning.data.files import files_below, twins
from htr_lightning.data.image import LINE_PIXELS, image_size, read_image
from htr_lightning.data.root import data_folder
from htr_lightning.data.sample import Sample
from htr_lightning.data.split import Splits, lines_of, part_of
from htr_lightning.errors import InputError, printable
from htr_lightning.parameters import Seed

FILE = "data.mdb"
KEY = re.compile(rb"(?:image|label)-(\d{9,18})")
CONTENTS = f"the LMDB databases, e.g. train/{FILE}"


class Lmdb(Sequence[Sample]):
    """The lines in LMDB databases with the keys `num-samples`, `image-000000001`, `label-000000001`, and so on.

    Texts are read up front and images on demand. The databases do not identify writers, so each line is a separate
    group.

    Args:
        root: folder containing the databases.
        split: train, val or test.
        splits: for each split, the folder below `root` that contains its databases, at any depth; or a number between 0
            and 1, to draw that fraction of the training lines.
        seed: random seed for splits drawn as fractions.
        name: first component of each sample id; None uses the name of the folder.
        empty: what to do with a line without text ("error", "skip" or "keep"). Skipped lines are counted and reported.
        faulty: what to do with a line without an image or label, a text with several lines, or a line that num-samples
            does not count ("error" or "skip").
    """

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        *,
        splits: Splits,
        seed: Seed = 0,
        name: str | None = None,
        empty: str = "error",
        faulty: str = "error",
    ) -> None:
        self.root = data_folder(root, CONTENTS)
        folder = part_of(splits, split, str(self.root))
        part = self.root / folder
        files = [path for path in files_below(part) if path.name == FILE] if part.is_dir() else []
        if not files:
            raise InputError(
                f"{self.root}: no {FILE} found in '{folder}'; set data.root to the folder containing "
                f"{CONTENTS}, or data.reader.splits to their folders"
            )
        for path, earlier in zip(files, twins(files), strict=True):
            if earlier is not None:
                raise InputError(f"{path}: the same database as {files[earlier]}; remove the link")
        first = name or self.root.resolve().name
        faults: list[Fault] = []
        lines: list[tuple[str, Path, bytes, str]] = []
        for database in (path.parent for path in files):
            title = printable(f"{first}/{database.relative_to(self.root).as_posix()}".removesuffix("/."))
            for number, key, label in _labels(database):
                id = f"{title}/{number:09d}"
                fault = label._replace(id=id) if isinstance(label, Fault) else text_fault(id, label)
                if fault is not None:
                    faults.append(fault)
                if isinstance(label, str) and (fault is None or (fault.kind == EMPTY and empty == "keep")):
                    lines.append((id, database, key, label.strip(LINE_BREAKS)))
        skipped = sort_out(faults, empty, faulty)
        chosen = lines_of(splits, split, [line[0] for line in lines], str(part), seed) if lines else []
        if not chosen:
            raise InputError(f"{part}: no lines found for split '{split}'; check data.root and data.reader.splits")
        self.skipped = skipped if isinstance(splits[split], str) else []  # reported once, with the training lines
        self.ids = [lines[index][0] for index in chosen]
        self.groups = self.ids
        self.texts = [lines[index][3] for index in chosen]
        self._keys = [lines[index][1:3] for index in chosen]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        id, (folder, key) = self.ids[index], self._keys[index]
        with _reading(folder) as transaction:
            image = read_image(id, content=transaction.get(key), max_pixels=LINE_PIXELS)
        return Sample(id, image, self.texts[index], self.groups[index])

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """The height and width of each image in pixels, read from its header."""
        sizes = []
        for id, (folder, key) in zip(self.ids, self._keys, strict=True):
            with _reading(folder) as transaction:
                sizes.append(image_size(id, transaction.get(key), LINE_PIXELS))
        return sizes


def _labels(folder: Path) -> Iterator[tuple[int, bytes, str | Fault]]:
    """Yield the number, image key and text of each line in a database."""
    with _reading(folder) as transaction:
        stated = bytes(transaction.get(b"num-samples") or b"")
        held = transaction.stat()["entries"]
        if not stated.isdigit() or len(stated) > 18 or int(stated) > held:
            raise InputError(
                f"{folder / FILE}: invalid num-samples '{stated[:9].decode(errors='replace')}' in a database of {held} "
                "entries; recreate it with an image and a label for each sample"
            )
        used = 1  # num-samples
        for number in range(1, int(stated) + 1):
            key, label = b"image-%09d" % number, transaction.get(b"label-%09d" % number)
            is_image = transaction.get(key) is not None
            used += is_image + (label is not None)
            if label is None:
                yield number, key, Fault("", "image without a label" if is_image else "no image and no label")
            elif not is_image:
                yield number, key, Fault("", "label without an image")
            else:
                try:
                    yield number, key, bytes(label).decode()
                except UnicodeDecodeError:
                    yield number, key, Fault("", "label is not valid UTF-8")
        if used < held:
            found = (KEY.fullmatch(key) for key in transaction.cursor().iternext(values=False))
            for number in sorted({int(key[1]) for key in found if key}):
                if not 1 <= number <= int(stated):
                    kind = "line outside the numbers 1 to num-samples"
                    yield number, b"", Fault("", kind, f"num-samples={int(stated)}")


@contextmanager
def _reading(folder: Path) -> Iterator[lmdb.Transaction]:
    """Open a read-only transaction, and convert LMDB errors into InputErrors that name the file."""
    try:
        with _environment(folder).begin(buffers=True) as transaction:
            yield transaction
    except lmdb.Error as error:
        raise InputError(f"{folder / FILE}: not a readable database ({error}); download it again") from None


@lru_cache(maxsize=64)
def _environment(folder: Path) -> lmdb.Environment:
    """Open a database; the result is cached because LMDB forbids opening a database twice in a process.

    Raises:
        InputError: if the file is shorter than its header states; reading beyond its end would crash the process.
    """
    environment = lmdb.open(str(folder), readonly=True, lock=False, readahead=False, meminit=False)
    pages, size = environment.info()["last_pgno"] + 1, (folder / FILE).stat().st_size
    if pages * environment.stat()["psize"] > size:
        environment.close()
        raise InputError(
            f"{folder / FILE}: the file has only {size} bytes, too few for the {pages} pages its header declares; "
            "download it again"
        )
    return environment


if hasattr(os, "register_at_fork"):  # a forked process must not use an open database, so it opens the database again
    os.register_at_fork(before=_environment.cache_clear)
