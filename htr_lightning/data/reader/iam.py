"""The IAM handwriting database (Marti and Bunke, 2002), from the files that registered users unpack."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image
from rich.progress import track

from htr_lightning.data.image import read_image
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
from htr_lightning.data.sample import Reduce, Sample, Skipped
from htr_lightning.data.split import SPLITS
from htr_lightning.errors import InputError

CORRUPT = {"a01-117-05-02", "r06-022-03-05"}  # word images that are broken in words.tgz itself
COUNTED = [f"{number:02}" for number in range(100)]  # how IAM numbers the lines of a form
CHOICES = {
    "unit": ("line", "word"),
    "source": ("segments", "forms"),
    "err": ("auto", "keep", "skip"),
    "punctuation": ("spaced", "joined"),
}


class Iam(Sequence[Sample]):
    """The lines or words of IAM, in the splits used in the literature.

    Args:
        root: folder of `ascii/` (lines.txt, words.txt, forms.txt), `lines/` or `words/`, and for `source=forms` of
            `forms/` (the form images, at any depth) and `xml/`.
        split: train, val or test.
        unit: "line" or "word".
        source: "segments" are the images of lines.tgz or words.tgz, with masked background; "forms" crops the same
            lines or words, with everything around them, out of the forms, by the boxes of the XML files.
        splits: "aachen" (RWTH: 747, 116, 336 forms with 6,482, 976, 2,915 lines), "official" (large writer independent
            text line recognition task: 6,161, 900 + 940, 1,861 lines), or your own: a folder with train.txt, val.txt
            and test.txt of form or line ids, or a table `id<TAB>split`.
        lists: folder of the lists of a named split; None: they are searched for in `root` and its folders.
        download: download the Aachen lists if they are missing: form ids, never data of IAM.
        err: lines and words whose segmentation is doubtful according to IAM: "keep", "skip" (counted), or "auto",
            which keeps lines, whose text and image are right, and skips words.
        punctuation: "spaced" has a space before every sign, as in the files; for "joined" see `join_punctuation`.
        reduce: with `source=forms`, applied to every crop before it is kept: see `Preprocess.reduce`.

    Attributes:
        err: number of lines or words of the split with doubtful segmentation, kept or not.

    Raises:
        InputError: an option is invalid, a list or file cannot be used, or images are missing.
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
        if root is None:
            raise InputError("data.root is not set; give the folder of IAM's ascii/ and lines/, as in data.root=FOLDER")
        self.root = Path(root)
        if not self.root.is_dir():
            raise InputError(f"{self.root}: no such folder; set data.root to where IAM is unpacked")
        if split not in SPLITS:
            raise InputError(f"'{split}' is not a split of IAM; use one of train, val, test")
        for option, value in (("unit", unit), ("source", source), ("err", err), ("punctuation", punctuation)):
            if value not in CHOICES[option]:
                raise InputError(f"data.reader.{option}={value}: use one of {', '.join(CHOICES[option])}")
        self._unit, self._split = unit, split
        wanted = split_ids(self.root, split, splits, lists, download)
        table, forms = self._ascii(f"{unit}s.txt"), self._ascii("forms.txt")
        writers, stated = read_forms(forms) if forms.is_file() else ({}, {})
        self._table = read_rows(table, unit)
        found = [wanted.intersection((row.id, line_of(row.id), form_of(row.id))) for row in self._table]
        rows = [row for row, by in zip(self._table, found, strict=True) if by]
        if lacking := sorted(wanted.difference(*found)):
            raise InputError(f"{table}: no line of {named(lacking)} of split '{split}'; use the file of ascii.tgz")
        if splits == "aachen" and unit == "line" and len(rows) != AACHEN_LINES[split]:
            absent = named(_absent(rows, stated))
            raise InputError(
                f"{table}: {len(rows)} lines on the forms of Aachen split '{split}', not {AACHEN_LINES[split]}"
                f"{'; missing: ' + absent if absent else ''}; use the file of ascii.tgz, or splits of your own"
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
        """Height and width: of the crops, or as stated in the table, or as stated in the header of the image."""
        if self._crops:
            return [(crop.shape[0], crop.shape[1]) for crop in self._crops]
        return [(row.box[3], row.box[2]) if min(row.box[2:]) > 0 else _header(self._path(row.id)) for row in self._rows]

    def _ascii(self, name: str) -> Path:
        flat = self.root / name
        return flat if flat.is_file() else self.root / "ascii" / name

    def _path(self, id: str) -> Path:
        return self.root / f"{self._unit}s" / id.split("-")[0] / form_of(id) / f"{id}.png"

    def _leave_out_corrupt(self) -> None:
        for row in [row for row in self._rows if row.id in CORRUPT]:
            try:
                read_image(self._path(row.id))  # in some copies it is repaired
            except InputError as error:
                self.skipped.append(Skipped(f"iam/{row.id}", "corrupt image", str(error)))
                self._rows.remove(row)

    def _check_images(self) -> None:
        """Name all missing images at once, those of the split first."""
        missing = [row.id for row in self._rows if not self._path(row.id).is_file()]
        if not missing:
            return
        seen = {row.id for row in self._rows} | CORRUPT
        others = [row.id for row in self._table if row.id not in seen and not self._path(row.id).is_file()]
        names = named([self._path(id).relative_to(self.root).as_posix() for id in missing + others])
        raise InputError(
            f"{self.root}: {len(missing + others)} of {len(self._table)} {self._unit} images are missing, "
            f"{len(missing)} of them in split '{self._split}': {names}; unpack {self._unit}s.tgz again"
        )

    def _cut_forms(self, reduce: Reduce | None) -> None:
        """Crop all lines at once, since decoding a form takes a tenth of a second."""
        images = {path.stem: path for path in sorted(self.root.glob("forms*/**/*.png"))}
        by_form: dict[str, list[Row]] = {}
        for row in self._rows:
            by_form.setdefault(form_of(row.id), []).append(row)
        xml = {form: self.root / "xml" / f"{form}.xml" for form in by_form}
        lacking = [f"forms/{form}.png" for form in by_form if form not in images]
        lacking += [f"xml/{form}.xml" for form in by_form if not xml[form].is_file()]
        if lacking:
            raise InputError(
                f"{self.root}: {len(lacking)} files of split '{self._split}' are missing: {named(lacking)}; "
                "unpack the archives of the forms and xml.tgz there"
            )

        def cut(form: str) -> tuple[dict[str, UInt8[ndarray, "_ _"]], set[str]]:
            boxes, stated = read_boxes(xml[form], self._unit)
            page = read_image(images[form])
            if all(stated) and any(abs(a / b - 1) > 0.05 for a, b in zip(page.shape, stated, strict=True)):
                raise InputError(
                    f"{images[form]}: {page.shape[1]} x {page.shape[0]} pixels, but {xml[form].name} was drawn on "
                    f"{stated[1]} x {stated[0]}; use the form as it was scanned"
                )
            crops = {}
            for row in by_form[form]:
                x, y, width, height = row.box
                left, top, right, bottom = boxes.get(row.id, (x, y, x + width, y + height))
                crop = page[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
                if not crop.size:
                    raise InputError(
                        f"iam/{row.id}: its box {left},{top} {right},{bottom} holds no pixel of {images[form]}; "
                        f"correct it in {xml[form]}"
                    )
                crops[row.id] = (crop if reduce is None else reduce(crop)).copy()
            return crops, set(boxes)

        crops: dict[str, UInt8[ndarray, "_ _"]] = {}
        boxed: set[str] = set()
        with ThreadPoolExecutor() as pool:  # decoding releases the interpreter lock
            done = pool.map(cut, by_form)
            for of_form, its in track(done, f"reading iam {self._split}", len(by_form), transient=True):
                crops |= of_form
                boxed |= its
        self._crops = [crops[row.id] for row in self._rows]
        unlisted = sorted(boxed.difference(row.id for row in self._table))
        self.skipped += [Skipped(f"iam/{id}", f"{self._unit} of xml/ that {self._unit}s.txt lacks") for id in unlisted]


def _absent(rows: list[Row], stated: dict[str, int]) -> list[str]:
    """Lines that seem to be missing: those that forms.txt counts beyond the ones present, or gaps in the numbering."""
    numbers: dict[str, set[str]] = {}
    for row in rows:
        numbers.setdefault(form_of(row.id), set()).add(row.id.split("-")[2])
    absent = []
    for form, own in numbers.items():
        lines = stated.get(form, 1 + max((int(number) for number in own if number in COUNTED), default=-1))
        free = [number for number in COUNTED[:lines] if number not in own]
        absent += [f"{form}-{number}" for number in free[: max(0, lines - len(own))]]
    return absent


def _header(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: not an image that can be read ({error}); unpack it again") from None
