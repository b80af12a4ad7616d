"""Read the IAM Handwriting Database (Marti and Bunke, 2002) from the unpacked files."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from glob import glob
from pathlib import Path

from jaxtyping import UInt8
from numpy import ndarray
from rich.progress import track

from htr_lightning.data.files import files_below
from htr_lightning.data.image import image_size, read_image
from htr_lightning.data.reader.iam_files import (
    Row,
    form_of,
    join_punctuation,
    line_of,
    named,
    read_boxes,
    read_forms,
    read_rows,
)
from htr_lightning.data.reader.iam_splits import AACHEN_LINES, split_ids
from htr_lightning.data.root import data_folder
from htr_lightning.data.sample import Reduce, Sample, Skipped
from htr_lightning.data.split import SPLITS
from htr_lightning.errors import InputError

CORRUPT = {"a01-117-05-02", "r06-022-03-05"}  # word images that are corrupted in the published words.tgz
SITE = "after registration at https://fki.tic.heia-fr.ch/databases/iam-handwriting-database"
HUB = "use the version on the Hub with data=huggingface data.repo=Teklia/IAM-line"
ARCHIVES = {
    "ascii": "ascii.tgz",
    "lines": "lines.tgz",
    "words": "words.tgz",
    "forms": "formsA-D.tgz, formsE-H.tgz and formsI-Z.tgz",
    "xml": "xml.tgz",
}
COUNTED = [f"{number:02}" for number in range(100)]  # line numbers within a form, as written by IAM
CHOICES = {
    "unit": ("line", "word"),
    "source": ("segments", "forms"),
    "err": ("auto", "keep", "skip"),
    "punctuation": ("spaced", "joined"),
}


class Iam(Sequence[Sample]):
    """The lines or words of IAM, in the splits used in the literature.

    Args:
        root: folder containing `ascii/` (lines.txt, words.txt, forms.txt) and `lines/` or `words/`; for `source=forms`,
            `forms/` (form images, at any depth) and `xml/` instead of `lines/` or `words/`.
        split: train, val or test.
        unit: "line" or "word".
        source: "segments" uses the images from lines.tgz or words.tgz, whose background is masked; "forms" uses
            the boxes in the XML files to crop the same lines or words, with their surroundings, from the scanned forms.
        splits: "aachen" (RWTH, with 747 / 116 / 336 forms and 6,482 / 976 / 2,915 lines in train / val / test),
            "official" (large writer-independent text line recognition task, with 6,161 / 900 + 940 / 1,861 lines), or
            the path to custom splits, stored either as train.txt, val.txt and test.txt in a folder, which list form or
            line ids, or as a table `id<TAB>split`.
        lists: folder containing the Aachen or official lists; None searches `root` and its subfolders.
        download: whether to download the Aachen lists if they are missing. They contain form ids only, no IAM data.
        err: what to do with lines and words whose segmentation IAM marks as doubtful. "keep" keeps them, "skip" skips
            and counts them, and "auto" keeps lines, because their texts and images are correct, but skips words.
        punctuation: "spaced" puts a space before each punctuation mark, as in the files; for "joined", see
            `join_punctuation`.
        reduce: function applied to each crop from a form before it is stored; see `Preprocess.reduce`.

    Attributes:
        err: number of lines or words in the split with doubtful segmentation, whether kept or not.

    Raises:
        InputError: if an option is invalid, a list or file cannot be used, or images are missing.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        unit: str = "line",
        source: str = "segments",
        splits: str = "aachen",
        lists: str | None = None,
        download: bool = True,
        err: str = "auto",
        punctuation: str = "spaced",
        reduce: Reduce | None = None,
    ) -> None:
        self.root = data_folder(root, "the ascii/ and lines/ folders of IAM", f"download them {SITE}, or {HUB}")
        if split not in SPLITS:
            raise InputError(f"'{split}' is not a split of IAM; expected train, val or test")
        for option, value in (("unit", unit), ("source", source), ("err", err), ("punctuation", punctuation)):
            if value not in CHOICES[option]:
                raise InputError(f"data.reader.{option}={value}: expected one of {', '.join(CHOICES[option])}")
        self._unit, self._split = unit, split
        self._check_unpacked(source)
        wanted = split_ids(self.root, split, splits, lists, download)
        table, forms = self._ascii(f"{unit}s.txt"), self._ascii("forms.txt")
        writers, stated = read_forms(forms) if forms.is_file() else ({}, {})
        self._table = read_rows(table, unit)
        found = [wanted.intersection((row.id, line_of(row.id), form_of(row.id))) for row in self._table]
        rows = [row for row, by in zip(self._table, found, strict=True) if by]
        if lacking := sorted(wanted.difference(*found)):
            raise InputError(
                f"{table}: no lines for {named(lacking)} in split '{split}'; use the original file from ascii.tgz"
            )
        if splits == "aachen" and unit == "line" and len(rows) != AACHEN_LINES[split]:
            absent = f" (missing: {named(names)})" if (names := _absent(rows, stated)) else ""
            raise InputError(
                f"{table}: expected {AACHEN_LINES[split]} lines in the Aachen split '{split}', got {len(rows)}"
                f"{absent}; use the original file from ascii.tgz, or custom splits"
            )
        self.skipped: list[Skipped] = []
        self.err = sum(row.err for row in rows)
        self.about = {"source": source, "punctuation": punctuation, "segmentation err": self.err}
        if err == "skip" or (err == "auto" and unit == "word"):
            self.skipped += [Skipped(f"iam/{row.id}", "segmentation err") for row in rows if row.err]
            rows = [row for row in rows if not row.err]
        self._rows = rows
        self._crops: list[UInt8[ndarray, "_ _"]] = []
        if source == "segments":
            self._leave_out_corrupt()
            self._check_images()
        else:
            self._cut_forms(reduce)
        self.ids = [f"iam/{row.id}" for row in self._rows]
        self.texts = [(join_punctuation if punctuation == "joined" else " ".join)(row.tokens) for row in self._rows]
        self.groups = [writers.get(form_of(row.id), form_of(row.id)) for row in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        image = self._crops[index] if self._crops else read_image(self._path(self._rows[index].id))
        return Sample(self.ids[index], image, self.texts[index], self.groups[index])

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """The height and width of each image in pixels, from the crops, the table or the image headers."""
        if self._crops:
            return [(crop.shape[0], crop.shape[1]) for crop in self._crops]
        return [
            (row.box[3], row.box[2]) if min(row.box[2:]) > 0 else image_size(self._path(row.id)) for row in self._rows
        ]

    def _check_unpacked(self, source: str) -> None:
        """Raise an error that names the archives still to be unpacked, before anything is downloaded."""
        table = f"{self._unit}s.txt"
        folders = (
            {f"{self._unit}s": f"{self._unit}s/*"} if source == "segments" else {"forms": "forms*/*", "xml": "xml/*"}
        )
        missing = {} if self._ascii(table).is_file() else {f"ascii/{table}": "ascii"}
        missing |= {f"{name}/": name for name, files in folders.items() if not glob(files, root_dir=self.root)}
        if not missing:
            return
        found = sorted(name for name in glob("*.t*", root_dir=self.root) if name.endswith((".tgz", ".tar.gz", ".tar")))
        state = f"missing {' and '.join(missing)}" if any(self.root.iterdir()) else "the folder is empty"
        if found:
            state += f" ({', '.join(found)} not unpacked)"
        elif (self.root / "a01").is_dir():
            state += f" (a01/ and its siblings belong in {self._unit}s/)"
        unpack = " and ".join(f"{ARCHIVES[name]} into {name}/" for name in missing.values())
        raise InputError(f"{self.root}: {state}; unpack {unpack} (available {SITE}), or {HUB}")

    def _ascii(self, name: str) -> Path:
        flat = self.root / name
        return flat if flat.is_file() else self.root / "ascii" / name

    def _path(self, id: str) -> Path:
        return self.root / f"{self._unit}s" / id.split("-")[0] / form_of(id) / f"{id}.png"

    def _leave_out_corrupt(self) -> None:
        for row in [row for row in self._rows if row.id in CORRUPT]:
            try:
                read_image(self._path(row.id))  # some copies contain a repaired image
            except InputError as error:
                self.skipped.append(Skipped(f"iam/{row.id}", "corrupt image", str(error)))
                self._rows.remove(row)

    def _check_images(self) -> None:
        """Raise an error that names the missing images, starting with those in the split."""
        missing = [row.id for row in self._rows if not self._path(row.id).is_file()]
        if not missing:
            return
        seen = {row.id for row in self._rows} | CORRUPT
        others = [row.id for row in self._table if row.id not in seen and not self._path(row.id).is_file()]
        names = named([self._path(id).relative_to(self.root).as_posix() for id in missing + others])
        raise InputError(
            f"{self.root}: missing {self._unit} images ({len(missing + others)} of {len(self._table)}, "
            f"{len(missing)} in split '{self._split}'): {names}; unpack {self._unit}s.tgz again"
        )

    def _cut_forms(self, reduce: Reduce | None) -> None:
        """Crop all lines up front, because decoding a form takes a tenth of a second."""
        folders = sorted(self.root / name for name in glob("forms*/", root_dir=self.root))
        images = {path.stem: path for folder in folders for path in files_below(folder) if path.suffix == ".png"}
        by_form: dict[str, list[Row]] = {}
        for row in self._rows:
            by_form.setdefault(form_of(row.id), []).append(row)
        xml = {form: self.root / "xml" / f"{form}.xml" for form in by_form}
        lacking = [f"forms/{form}.png" for form in by_form if form not in images]
        lacking += [f"xml/{form}.xml" for form in by_form if not xml[form].is_file()]
        if lacking:
            raise InputError(
                f"{self.root}: missing files in split '{self._split}' ({len(lacking)}): {named(lacking)}; "
                "unpack formsA-D.tgz, formsE-H.tgz and formsI-Z.tgz into forms/, and xml.tgz into xml/"
            )

        def cut(form: str) -> tuple[dict[str, UInt8[ndarray, "_ _"]], set[str]]:
            boxes, stated = read_boxes(xml[form], self._unit)
            page = read_image(images[form])
            if all(stated) and any(abs(a / b - 1) > 0.05 for a, b in zip(page.shape, stated, strict=True)):
                raise InputError(
                    f"{images[form]}: expected {stated[1]} x {stated[0]} pixels according to {xml[form].name}, got "
                    f"{page.shape[1]} x {page.shape[0]}; use the original scan"
                )
            crops = {}
            for row in by_form[form]:
                x, y, width, height = row.box
                left, top, right, bottom = boxes.get(row.id, (x, y, x + width, y + height))
                crop = page[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
                if not crop.size:
                    raise InputError(
                        f"iam/{row.id}: the box {left},{top} {right},{bottom} is outside {images[form]}; "
                        f"correct it in {xml[form]}"
                    )
                crops[row.id] = (crop if reduce is None else reduce(crop)).copy()
            return crops, set(boxes)

        crops: dict[str, UInt8[ndarray, "_ _"]] = {}
        boxed: set[str] = set()
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding releases the GIL
            done = pool.map(cut, by_form)
            for of_form, its in track(done, f"reading iam {self._split}", len(by_form), transient=True):
                crops |= of_form
                boxed |= its
        self._crops = [crops[row.id] for row in self._rows]
        unlisted = sorted(boxed.difference(row.id for row in self._table))
        self.skipped += [Skipped(f"iam/{id}", f"{self._unit} in xml/ but not in {self._unit}s.txt") for id in unlisted]


def _absent(rows: list[Row], stated: dict[str, int]) -> list[str]:
    """Return the ids of lines that seem to be missing, judging by the counts in forms.txt or gaps in the numbering."""
    numbers: dict[str, set[str]] = {}
    for row in rows:
        numbers.setdefault(form_of(row.id), set()).add(row.id.split("-")[2])
    absent = []
    for form, own in numbers.items():
        lines = stated.get(form, 1 + max((int(number) for number in own if number in COUNTED), default=-1))
        free = [number for number in COUNTED[:lines] if number not in own]
        absent += [f"{form}-{number}" for number in free[: max(0, lines - len(own))]]
    return absent
