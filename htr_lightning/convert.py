"""Convert data sets to the formats of other programs: kraken pairs, PyLaia tables, Hugging Face Parquet and PAGE.

Texts are written as they are used in training: normalised and in logical order.
"""

import csv
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.page import write_page
from htr_lightning.data.page.page import Line, Page
from htr_lightning.data.page.written import About
from htr_lightning.data.sample import Sample
from htr_lightning.errors import InputError
from htr_lightning.output import filling

HUGGING_FACE = {"train": "train", "val": "validation", "test": "test"}
NOT_IN_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
NAME_LENGTH = 60  # in characters: up to 180 bytes in Chinese; file systems allow 255
ROW_GROUP = 256  # number of lines that Parquet readers decode at a time


class Row(NamedTuple):
    """A line to be written to a data set."""

    split: str
    name: str  # unique name of its files, without suffix
    sample: Sample


def convert(
    data: LineDataModule,
    splits: Sequence[str],
    file_format: str,
    folder: Path,
    advance: Callable[[int], None] = lambda lines: None,
) -> None:
    """Write the lines in the given splits of a data set to a folder.

    Args:
        data: data set to convert; see `build.open_data`.
        splits: any of train, val and test.
        file_format: output format, a key of `FORMATS`.
        folder: output folder, created if it does not exist.
        advance: progress callback, called with the number of lines just processed.

    Raises:
        InputError: if the folder is not empty or cannot be created, or a line cannot be read or written in the format.
    """
    with filling(folder) as inside:
        FORMATS[file_format](rows_of(data, splits, Counter(), advance), inside)


def to_kraken(rows: Iterable[Row], folder: Path) -> None:
    """Write `SPLIT/NAME.png` and `SPLIT/NAME.gt.txt` for each line, for kraken, Calamari and OCR-D."""
    for split, name, sample in _listed(rows, folder):
        _save(folder / split / f"{name}.png", sample.image)
        _check_spaces(sample, "a one-line text file")
        (folder / split / f"{name}.gt.txt").write_text(sample.text + "\n", encoding="utf-8")


def to_pylaia(rows: Iterable[Row], folder: Path) -> None:
    """Write `images/NAME.png`, a table with names and tokens for each split, and `syms.txt` with all tokens."""
    symbols = set()
    with ExitStack() as stack:
        tables: dict[str, Any] = {}
        for split, name, sample in _listed(rows, folder):
            _save(folder / "images" / f"{name}.png", sample.image)
            _check_spaces(sample, "a PyLaia table")
            tokens = ["<space>" if character == " " else character for character in sample.text]
            symbols.update(tokens)
            if split not in tables:
                path = folder / f"{split}.txt"
                tables[split] = stack.enter_context(open(path, "w", encoding="utf-8"))
            tables[split].write(" ".join([name, *tokens]) + "\n")
    numbered = enumerate(["<ctc>", *sorted(symbols)])
    (folder / "syms.txt").write_text("".join(f"{symbol} {id}\n" for id, symbol in numbered), encoding="utf-8")


def to_parquet(rows: Iterable[Row], folder: Path) -> None:
    """Write one Parquet file per split, with the image, text, id and group of each line, for the `datasets` library."""
    import pyarrow as pa  # a 50 MB package that nothing else needs
    from pyarrow.parquet import ParquetWriter

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = [("image", image), ("text", pa.string()), ("id", pa.string()), ("group", pa.string())]
    features = {"image": {"_type": "Image"}} | {n: {"dtype": "string", "_type": "Value"} for n, _ in columns[1:]}
    schema = pa.schema(columns, metadata={"huggingface": json.dumps({"info": {"features": features}})})
    for split, of_split in groupby(rows, key=lambda row: row.split):
        with ParquetWriter(folder / f"{HUGGING_FACE[split]}.parquet", schema) as writer:
            while some := list(islice(of_split, ROW_GROUP)):
                table = [
                    {
                        "image": {"bytes": _png(s.image), "path": f"{name}.png"},
                        "text": s.text,
                        "id": s.id,
                        "group": s.group,
                    }
                    for _, name, s in some
                ]
                writer.write_table(pa.Table.from_pylist(table, schema))


def to_page(rows: Iterable[Row], folder: Path) -> None:
    """Write each line as a page (`NAME.png` and `NAME.xml`), and list all pages in `splits.tsv` for `data=page_xml`."""
    with open(folder / "splits.tsv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(["page", "split"])
        for split, name, sample in _listed(rows, folder):
            table.writerow([name, split])
            _save(folder / f"{name}.png", sample.image)
            path, (height, width) = folder / f"{name}.xml", sample.image.shape
            corners = [(0.0, 0.0), (float(width), 0.0), (float(width), float(height)), (0.0, float(height))]
            line = Line("line_1", sample.text, corners, [], "region_1")
            path.write_bytes(write_page.new_page(Page(path, f"{name}.png", width, height, [line]), About()))


FORMATS: dict[str, Callable[[Iterable[Row], Path], None]] = {
    "kraken": to_kraken,
    "pylaia": to_pylaia,
    "parquet": to_parquet,
    "page": to_page,
}


def file_name(id: str, taken: Counter[str]) -> str:
    """Return a file name for a sample, made of letters, digits, - and _, and unique even if case is ignored.

    Args:
        id: sample id; its end is kept, because it distinguishes the lines on a page.
        taken: counts of the names used so far, updated in place.
    """
    letters = re.sub(r"[^\w-]+", "_", unicodedata.normalize("NFC", id))
    stem = letters[-NAME_LENGTH:].strip("_-") or "line"
    name = stem
    while taken[name.casefold()]:
        taken[stem.casefold()] += 1
        name = f"{stem}-{taken[stem.casefold()]}"
    taken[name.casefold()] += 1
    return name


def rows_of(
    data: LineDataModule, splits: Sequence[str], taken: Counter[str], advance: Callable[[int], None]
) -> Iterator[Row]:
    """Yield the lines in the given splits, with normalised references; `taken` is passed to `file_name`."""
    for split in splits:
        lines = data.lines(split)
        for index in range(len(lines)):
            sample = lines.reader[index]
            sample = sample._replace(text=lines.normalizer(sample.text))
            if bad := NOT_IN_XML.search(sample.text):
                raise InputError(
                    f"{sample.id}: the text contains U+{ord(bad[0]):04X}, which cannot be written as text; remove it"
                )
            yield Row(split, file_name(sample.id, taken), sample)
            advance(1)


def _listed(rows: Iterable[Row], folder: Path) -> Iterator[Row]:
    """Yield the rows unchanged and list them in `names.tsv` with their ids and groups."""
    # Line buffering leaves nothing to write when an error in the caller discards this generator.
    with open(folder / "names.tsv", "w", buffering=1, encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(["name", "split", "id", "group"])
        for row in rows:
            table.writerow([row.name, row.split, row.sample.id, row.sample.group])
            yield row


def _check_spaces(sample: Sample, target: str) -> None:
    if bad := next((c for c in sample.text if c.isspace() and c != " "), None):
        raise InputError(
            f"{sample.id}: the text contains U+{ord(bad):04X}, which is not allowed in {target}; set "
            "model.normalizer.collapse_spaces=true"
        )


def _png(image: UInt8[ndarray, "H W"]) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def _save(path: Path, image: UInt8[ndarray, "H W"]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_png(image))
