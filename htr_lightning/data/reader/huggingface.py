"""Read line data sets from the Hugging Face Hub, or from folders of Parquet or Arrow files, using `datasets`."""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow.compute
from pyarrow.parquet import ParquetFile

from htr_lightning.data.fault import EMPTY, LINE_BREAKS, Fault, sort_out, text_fault
from htr_lightning.data.files import files_below, is_inside, twins
from htr_lightning.data.image import LINE_PIXELS, image_size, read_image
from htr_lightning.data.reader.folder import exists
from htr_lightning.data.root import data_folder
from htr_lightning.data.sample import Sample
from htr_lightning.data.split import Splits, lines_of, part_of
from htr_lightning.errors import InputError, printable
from htr_lightning.parameters import Seed

CONTENTS = "the Parquet or Arrow files"
SOURCE = "remove data.root and set data.repo to a data set on the Hub"
OUTSIDE = "image outside data.root"
TIMEOUT = 10  # seconds to wait for a response from the Hub

Rows = Any  # datasets.Dataset, or datasets.IterableDataset when streaming


class HuggingFace(Sequence[Sample]):
    """The rows of a data set with an image column and a text column.

    Memory usage does not grow with the data set: `datasets` memory-maps its Arrow files, and images are decoded on
    demand. Disk usage does grow, because Parquet files are converted to Arrow files once. With `streaming`, nothing is
    copied: rows are read directly from the Hub or the Parquet files, but only in order. A streamed data set can be
    packed or converted, but not used for training, which needs lines in random order.

    Args:
        root: folder of Parquet or Arrow files, or a folder written by `save_to_disk`; requires no network access.
        split: train, val or test.
        splits: for each split, its name on the Hub; in `root`, the prefix of its file names or the name of its folder
            ("." matches all files); or a number between 0 and 1, to draw that fraction of the training rows without
            splitting groups.
        repo: name on the Hub, if `root` is not given; with `root`, the data set that it contains, used to check the row
            counts.
        subset: configuration name on the Hub, for data sets with several configurations.
        revision: commit, tag or branch on the Hub; None uses the latest revision.
        image: column containing the images.
        text: column containing the texts; class labels are replaced by their names, numbers by their digits.
        group: column containing the writer or document; None makes each line a separate group.
        seed: random seed for splits drawn as fractions.
        check_counts: whether to raise an error if the row count of a data set listed in `splits/huggingface.tsv` is
            unexpected.
        streaming: whether to read rows in order without copying anything.
        cache_dir: folder for the Arrow files; None uses the cache of `datasets`.
        outside: whether rows may refer to image files outside `root` or, without it, outside the caches.
        name: first component of each sample id; None uses the last component of `repo`, or the name of the folder.
        empty: what to do with a line without text ("error", "skip" or "keep"). Skipped lines are counted and reported.
        faulty: what to do with a row without an image ("error" or "skip"). In a stream, a missing image is detected
            only when its row is read.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        *,
        splits: Splits,
        repo: str | None = None,
        subset: str | None = None,
        revision: str | None = None,
        image: str = "image",
        text: str = "text",
        group: str | None = None,
        seed: Seed = 0,
        check_counts: bool = True,
        streaming: bool = False,
        cache_dir: str | None = None,
        outside: bool = False,
        name: str | None = None,
        empty: str = "error",
        faulty: str = "error",
    ) -> None:
        if root is None and not repo:
            raise InputError(
                "data.repo is not set; set it to a data set on the Hub, such as data.repo=Teklia/IAM-line, or set "
                "data.root to a folder of Parquet or Arrow files"
            )
        self.root = None if root is None else data_folder(root, CONTENTS, SOURCE)
        self.image, self.streaming, self.outside = image, streaming, outside
        caches = [datasets.config.HF_CACHE_HOME, datasets.config.HF_DATASETS_CACHE, cache_dir]
        self._folders = [self.root] if self.root is not None else [Path(folder) for folder in caches if folder]
        self._source = str(repo if self.root is None else self.root)
        part = part_of(splits, split, self._source)
        if self.root is None:
            rows = _from_hub(self._source, part, subset, revision, streaming, cache_dir)
        else:
            rows = _from_folder(self.root, part, streaming, cache_dir)
        columns = [text] if group is None else [text, group]
        held = list(rows.column_names or rows.features or [])
        if lacking := [column for column in [image, *columns] if column not in held]:
            raise InputError(
                f"{self._source}: no column '{lacking[0]}' (available: {', '.join(held)[:200]}); set "
                "data.reader.image, data.reader.text and data.reader.group to the column names"
            )
        with _named(self._source):
            texts, *others = _columns(rows, columns, self._source)
            self._rows = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        if repo and check_counts:
            check_count(repo, part, len(texts))
        title = printable(name or (repo or Path(self._source).resolve().name).rpartition("/")[2])
        ids = [f"{title}/{part.strip('./') or 'row'}/{row:06d}" for row in range(len(texts))]
        faults = [fault for id, one in zip(ids, texts, strict=True) if (fault := text_fault(id, one))]
        faults += [fault._replace(id=ids[row]) for row, fault in self._imageless()]
        skipped = sort_out(faults, empty, faulty)
        self.skipped = skipped if isinstance(splits[split], str) else []  # reported once, with the training rows
        out = {fault.id for fault in faults if fault.kind != EMPTY or empty != "keep"}
        kept = [row for row, id in enumerate(ids) if id not in out]
        writers = others[0] if others else ids
        groups = [writers[row] or ids[row] for row in kept]
        chosen = lines_of(splits, split, groups, self._source, seed) if groups else []
        if not chosen:
            raise InputError(f"{self._source}: no rows found for split '{split}'; check data.reader.splits")
        self.ids = [ids[kept[index]] for index in chosen]
        self.texts = [texts[kept[index]].strip(LINE_BREAKS) for index in chosen]
        self.groups = [groups[index] for index in chosen]
        self._kept = [kept[index] for index in chosen]  # row numbers in the data set
        self._stream: Iterator[tuple[int, Any]] | None = None
        self._passed = -1  # last row read from the stream

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        id, cell = self.ids[index], self._cell(self._kept[index])
        path, content = self._content(cell)
        image = read_image(id if content is not None else path, content=content, max_pixels=LINE_PIXELS)
        return Sample(id, image, self.texts[index], self.groups[index])

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """The height and width of each image in pixels, read from its header; a stream is read once for this."""
        mapped = None if self.streaming else self._rows.data.column(self.image)
        sizes = []
        for id, row in zip(self.ids, self._kept, strict=True):
            if mapped is None:
                path, content = self._content(self._cell(row))
            else:
                scalar = mapped[row]
                path, buffer = self._content({"path": scalar["path"].as_py(), "bytes": scalar["bytes"].as_buffer()})
                content = None if buffer is None else memoryview(buffer)
            sizes.append(image_size(id if content is not None else path, content, LINE_PIXELS))
        return sizes

    def _cell(self, row: int) -> Any:
        """Return the image cell of a row; a stream can only move forward, or restart at the first row."""
        with _named(self._source):
            if not self.streaming:
                return self._rows[row][self.image]
            if self._stream is None or row == self._kept[0]:
                self._stream, self._passed = iter(enumerate(self._rows)), -1
            if row <= self._passed:
                raise InputError(
                    f"{self._source}: a stream can only be read in order, but row {row} was requested after row "
                    f"{self._passed}; pack the data set first, or set data.reader.streaming=false"
                )
            for number, cells in self._stream:
                self._passed = number
                if number == row:
                    return cells[self.image]
        raise InputError(
            f"{self._source}: ends before row {row}; the data set has changed since it was opened, so start again"
        )

    def _content(self, cell: Any) -> tuple[Path, Any]:
        """Return the path of the image in a cell, and its bytes if they are embedded."""
        path, content = Path((cell or {}).get("path") or ""), (cell or {}).get("bytes")
        path = path if self.root is None else self.root / path
        if content is None and self.streaming and self._is_outside(path):
            raise InputError(f"{path}: {OUTSIDE}; set data.reader.outside=true to allow this")
        return path, content

    def _is_outside(self, path: Path) -> bool:
        return not self.outside and not is_inside(path, self._folders)

    def _imageless(self) -> Iterator[tuple[int, Fault]]:
        """Yield each row with neither an embedded image nor the path of an existing file that may be read."""
        if self.streaming:
            return
        column = self._rows.data.column(self.image)
        held = pyarrow.compute.is_valid(pyarrow.compute.struct_field(column, "bytes"))
        for row, there in enumerate(held.to_pylist()):
            path, _ = self._content(None if there else column[row].as_py())
            if not there and self._is_outside(path):
                yield row, Fault("", OUTSIDE, f"{path}; to allow this, set data.reader.outside=true")
            elif not there and not (exists(path) and path.is_file()):
                yield row, Fault("", "row without an image", "not embedded when the table was written")


def _from_hub(
    repo: str, part: str, subset: str | None, revision: str | None, streaming: bool, cache_dir: str | None
) -> Rows:
    try:
        with nullcontext() if _answers(repo, revision) else _offline():
            parts = datasets.load_dataset(repo, subset, revision=revision, streaming=streaming, cache_dir=cache_dir)
    except datasets.exceptions.DatasetNotFoundError:
        raise InputError(
            f"{repo}: not found on the Hub, or private; check data.repo and data.reader.revision, or log in with "
            "`hf auth login`"
        ) from None
    except Exception as error:  # as in `_answers`
        raise InputError(
            f"{repo}: cannot be read from the Hub ({_reason(error)}); on a machine with network access, run "
            f"`hf download {repo} --repo-type dataset --local-dir FOLDER`, and set data.root=FOLDER"
        ) from None
    if part not in parts:
        raise InputError(_no_part(repo, part, sorted(map(str, parts))))
    return parts[part]


def _answers(repo: str, revision: str | None) -> bool:
    """Return whether the Hub responds, even if only to say that the data set does not exist."""
    try:
        huggingface_hub.HfApi().dataset_info(repo, revision=revision, timeout=TIMEOUT)
    except huggingface_hub.errors.HfHubHTTPError:
        return True
    except Exception:  # the client passes on the network errors of its own dependencies
        return False
    return True


@contextmanager
def _offline() -> Iterator[None]:
    """Use cached downloads, rather than spend a minute trying to reach the Hub if it does not respond."""
    settings: tuple[Any, ...] = (huggingface_hub.constants, datasets.config)
    before = [setting.HF_HUB_OFFLINE for setting in settings]
    try:
        for setting in settings:
            setting.HF_HUB_OFFLINE = True
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.HF_HUB_OFFLINE = value


def _from_folder(root: Path, part: str, streaming: bool, cache_dir: str | None) -> Rows:
    files = {ending: _files(root, ending) for ending in ("parquet", "arrow")}
    ending = "parquet" if files["parquet"] else "arrow"
    chosen = [path for path in files[ending] if _belongs(path.relative_to(root), part)]
    if not files[ending]:
        raise InputError(
            f"{root}: no Parquet or Arrow files found; set data.root to the folder containing them, or {SOURCE}"
        )
    if not chosen:
        raise InputError(_no_part(str(root), part, [path.relative_to(root).as_posix() for path in files[ending]]))
    for path in chosen if ending == "parquet" else []:
        with _named(str(path)):
            ParquetFile(path).close()  # reads the footer, so that the error names the corrupted file
    with _named(f"{root} ({part})"):
        if ending == "arrow" and not streaming:
            rows = datasets.concatenate_datasets([datasets.Dataset.from_file(str(path)) for path in chosen])
            rows.data.validate(full=True)  # invalid offsets would crash the process later
            return rows
        paths = {part: [str(path) for path in chosen]}
        return datasets.load_dataset(ending, data_files=paths, split=part, streaming=streaming, cache_dir=cache_dir)


def _files(root: Path, ending: str) -> list[Path]:
    """Return the files of a data set, excluding files cached next to them by `datasets`."""
    files = [path for path in files_below(root) if path.suffix == f".{ending}"]
    files = [path for path in files if not path.name.startswith(("cache-", "tmp"))]
    for path, earlier in zip(files, twins(files), strict=True):
        if earlier is not None:
            raise InputError(f"{path}: the same file as {files[earlier]}; remove the link")
    return files


def _belongs(path: Path, part: str) -> bool:
    """Return whether a file belongs to a split, e.g. `train-00000-of-00003.parquet` or `train/0000.parquet`."""
    return (
        part == "." or part in path.parts[:-1] or re.fullmatch(rf"{re.escape(part)}([-_.]\d.*)?", path.stem) is not None
    )


def _no_part(source: str, part: str, held: list[str]) -> str:
    return (
        f"{source}: no split '{part}' (available: {', '.join(held)[:200]}); set data.reader.splits to the "
        "available names, or to a fraction of the training rows, such as data.reader.splits.test=0.1"
    )


def _columns(rows: Rows, names: Sequence[str], source: str) -> list[list[str]]:
    """Read text columns without reading the images.

    Raises:
        InputError: if a column does not contain text.
    """
    features = rows.features or {}
    if isinstance(rows, datasets.Dataset):
        found = {name: rows.data.column(name).to_pylist() for name in names}
    else:
        found = {name: [] for name in names}
        for row in rows.select_columns(list(names)):
            for name in names:
                found[name].append(row[name])
    for name, values in found.items():
        classes = features.get(name)
        if isinstance(classes, datasets.ClassLabel):
            found[name] = ["" if value is None or value < 0 else classes.int2str(value) for value in values]
        if bad := next((v for v in found[name] if v is not None and not isinstance(v, str | int)), None):
            raise InputError(
                f"{source}: column '{name}' contains {type(bad).__name__} values, not text; choose another column"
            )
    return [["" if value is None else str(value) for value in found[name]] for name in names]


def check_count(repo: str, part: str, count: int) -> None:
    """Compare the row count of a split with the known count.

    Raises:
        InputError: if the counts differ.
    """
    table = (resources.files("htr_lightning.data") / "splits" / "huggingface.tsv").read_text(encoding="utf-8")
    known = {row["repo"]: row for row in csv.DictReader(table.splitlines(), delimiter="\t")}
    expected = known.get(repo, {}).get(part)
    if expected and int(expected) != count:
        raise InputError(
            f"{repo}: expected {expected} rows in '{part}', got {count}; download the missing files, set "
            "data.reader.revision to another revision, or set data.reader.check_counts=false"
        )


@contextmanager
def _named(source: str) -> Iterator[None]:
    """Convert any error that pyarrow or datasets raises for corrupted files into an InputError naming the source."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{source}: cannot be read ({_reason(error)}); download the files again") from None


def _reason(error: BaseException) -> str:
    """Return the type of the root cause and the first line of its message."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
