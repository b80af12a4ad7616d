"""Line sets of the Hugging Face hub, or folders of their parquet and arrow files, through the `datasets` library."""

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

from htr_lightning.data.fault import EMPTY, Fault, encodable, printable, sort_out
from htr_lightning.data.image import LINE_PIXELS, image_size, read_image
from htr_lightning.data.reader.folder import exists
from htr_lightning.data.sample import Sample
from htr_lightning.data.split import Splits, lines_of, part_of
from htr_lightning.errors import InputError

TIMEOUT = 10  # seconds that the hub has to answer

Rows = Any  # a datasets.Dataset, or the IterableDataset of a stream


class HuggingFace(Sequence[Sample]):
    """The rows of a set with an image and a text column.

    Memory does not grow with the set: `datasets` maps its arrow files into memory, and images are decoded when they are
    needed. What grows is the disk: parquet files are copied into arrow files once. If that is too much, `streaming`
    copies nothing: rows come one after the other from the hub or the parquet files and can only be read in order. Such
    a set can be packed or converted, but not trained on, which needs lines in random order.

    Args:
        root: folder of parquet or arrow files, or one written by `save_to_disk`; needs no network.
        split: train, val or test.
        splits: for each split the part of the set: its name on the hub, or in a folder the beginning of the file names
            or the name of a folder ("." is all files); or a number, for that fraction of the training part, in whole
            groups.
        repo: name on the hub, if there is no `root`; with a `root`, the set whose known counts are checked.
        subset: configuration on the hub, for a set that has several.
        revision: commit, tag or branch on the hub; None: the newest.
        image: column of the images.
        text: column of the texts; class labels become their names, numbers their digits.
        group: column of the writer or document; None: every line is its own group.
        seed: of the random fractions.
        check_counts: refuse a split of a set listed in `splits/huggingface.tsv` whose size is not the known one.
        streaming: read in order and copy nothing.
        cache_dir: folder for the arrow files; None: that of `datasets`.
        name: first part of every sample id; None: the last part of `repo`, or the name of the folder.
        empty: what to do with a line without text: "error", "skip" (counted) or "keep".
        faulty: what to do with a row without image: "error" or "skip" (counted); in a stream it is found while reading.
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
        seed: int = 0,
        check_counts: bool = True,
        streaming: bool = False,
        cache_dir: str | None = None,
        name: str | None = None,
        empty: str = "error",
        faulty: str = "error",
    ) -> None:
        if root is None and not repo:
            raise InputError("data.repo is not set; give a data set of the hub, as in data.repo=Teklia/IAM-line, or a "
                             "folder of its files, as in data.root=FOLDER")  # fmt: skip
        self.root = None if root is None else Path(root)
        self.image, self.streaming = image, streaming
        self._source = str(repo if self.root is None else self.root)
        part = part_of(splits, split, self._source)
        if self.root is None:
            rows = _from_hub(self._source, part, subset, revision, streaming, cache_dir)
        else:
            rows = _from_folder(self.root, part, streaming, cache_dir)
        columns = [text] if group is None else [text, group]
        held = list(rows.column_names or rows.features or [])
        if lacking := [column for column in [image, *columns] if column not in held]:
            raise InputError(f"{self._source}: no column '{lacking[0]}' among {printable(', '.join(held)[:200])}; set "
                             "data.reader.image, text and group to the names of the columns")  # fmt: skip
        with _named(self._source):
            texts, *others = _columns(rows, columns, self._source)
            self._rows = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        if repo and check_counts:
            check_count(repo, part, len(texts))
        title = name or (repo or Path(self._source).resolve().name).rpartition("/")[2]
        ids = [f"{title}/{part.strip('./') or 'row'}/{row:06d}" for row in range(len(texts))]
        faults = [Fault(id, EMPTY) for id, text in zip(ids, texts, strict=True) if not text.strip()]
        faults += [Fault(id, "text that is not UTF-8") for id, t in zip(ids, texts, strict=True) if not encodable(t)]
        faults += [Fault(ids[row], "row without image", told) for row, told in self._imageless()]
        skipped = sort_out(faults, empty, faulty)
        self.skipped = skipped if isinstance(splits[split], str) else []  # those of the training part are reported once
        out = {fault.id for fault in faults if fault.kind != EMPTY or empty != "keep"}
        kept = [row for row, id in enumerate(ids) if id not in out]
        writers = others[0] if others else ids
        groups = [writers[row] or ids[row] for row in kept]
        chosen = lines_of(splits, split, groups, self._source, seed)
        self.ids = [ids[kept[index]] for index in chosen]
        self.texts = [texts[kept[index]] for index in chosen]
        self.groups = [groups[index] for index in chosen]
        self._kept = [kept[index] for index in chosen]  # rows of the part
        self._stream: Iterator[tuple[int, Any]] | None = None
        self._passed = -1  # row of the stream that was read last

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        id, cell = self.ids[index], self._cell(self._kept[index])
        path, content = self._content(cell)
        image = read_image(id if content is not None else path, content=content, max_pixels=LINE_PIXELS)
        return Sample(id, image, self.texts[index], self.groups[index])

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of every image, from its header; a stream is read once for it."""
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
        """The image cell of a row; in a stream that of a later row, or of the first again."""
        with _named(self._source):
            if not self.streaming:
                return self._rows[row][self.image]
            if self._stream is None or row == self._kept[0]:
                self._stream, self._passed = iter(enumerate(self._rows)), -1
            if row <= self._passed:
                raise InputError(f"{self._source}: a stream can only be read in order, but row {row} is needed after "
                                 f"row {self._passed}; pack it first, or set data.reader.streaming=false")  # fmt: skip
            for number, cells in self._stream:
                self._passed = number
                if number == row:
                    return cells[self.image]
        raise InputError(f"{self._source}: ends before row {row}; it has changed since it was opened")

    def _content(self, cell: Any) -> tuple[Path, Any]:
        """The path of the image in a cell, and its bytes if the table holds them."""
        path = Path((cell or {}).get("path") or "")
        return (path if self.root is None else self.root / path), (cell or {}).get("bytes")

    def _imageless(self) -> Iterator[tuple[int, str]]:
        """Rows without an image or the path of an existing file, as in tables written without embedding them."""
        if self.streaming:
            return
        column = self._rows.data.column(self.image)
        held = pyarrow.compute.is_valid(pyarrow.compute.struct_field(column, "bytes"))
        for row, there in enumerate(held.to_pylist()):
            path, _ = self._content(None if there else column[row].as_py())
            if not there and not (exists(path) and path.is_file()):
                yield row, "an image was not embedded when the table was written"


def _from_hub(
    repo: str, part: str, subset: str | None, revision: str | None, streaming: bool, cache_dir: str | None
) -> Rows:
    try:
        with nullcontext() if _answers(repo, revision) else _offline():
            parts = datasets.load_dataset(repo, subset, revision=revision, streaming=streaming, cache_dir=cache_dir)
    except datasets.exceptions.DatasetNotFoundError:
        raise InputError(f"{repo}: no such data set on the hub, or one that needs a login (`hf auth login`); check "
                         "data.repo and data.reader.revision") from None  # fmt: skip
    except Exception as error:  # as in `_answers`
        raise InputError(f"{repo}: cannot be read from the hub ({_reason(error)}); get its files on a machine with a "
                         f"network, `hf download {repo} --repo-type dataset --local-dir FOLDER`; set data.root=FOLDER"
                         ) from None  # fmt: skip
    if part not in parts:
        raise InputError(_no_part(repo, part, sorted(map(str, parts))))
    return parts[part]


def _answers(repo: str, revision: str | None) -> bool:
    """Whether the hub answers, even if only that there is no such data set."""
    try:
        huggingface_hub.HfApi().dataset_info(repo, revision=revision, timeout=TIMEOUT)
    except huggingface_hub.errors.HfHubHTTPError:
        return True
    except Exception:  # the client passes on network errors of the libraries below it
        return False
    return True


@contextmanager
def _offline() -> Iterator[None]:
    """Use what has been downloaded before, instead of trying for a minute to reach a hub that does not answer."""
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
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; set data.root to where the parquet or arrow files are")
    files = {ending: _files(root, ending) for ending in ("parquet", "arrow")}
    ending = "parquet" if files["parquet"] else "arrow"
    chosen = [path for path in files[ending] if _belongs(path.relative_to(root), part)]
    if not files[ending]:
        raise InputError(f"{root}: no parquet or arrow file in or below it; set data.root")
    if not chosen:
        raise InputError(_no_part(str(root), part, [path.relative_to(root).as_posix() for path in files[ending]]))
    for path in chosen if ending == "parquet" else []:
        with _named(str(path)):
            ParquetFile(path).close()  # reads the footer, so that of several files the damaged one is named
    with _named(f"{root} ({part})"):
        if ending == "arrow" and not streaming:
            rows = datasets.concatenate_datasets([datasets.Dataset.from_file(str(path)) for path in chosen])
            rows.data.validate(full=True)  # offsets out of bounds would kill the process later
            return rows
        paths = {part: [str(path) for path in chosen]}
        return datasets.load_dataset(ending, data_files=paths, split=part, streaming=streaming, cache_dir=cache_dir)


def _files(root: Path, ending: str) -> list[Path]:
    """The files of a data set, without the cache of `datasets` beside them."""
    return [path for path in sorted(root.rglob(f"*.{ending}")) if not path.name.startswith(("cache-", "tmp"))]


def _belongs(path: Path, part: str) -> bool:
    """Whether a file belongs to a part: `train.parquet`, `train-00000-of-00003.parquet`, `train/0000.parquet`."""
    return (
        part == "." or part in path.parts[:-1] or re.fullmatch(rf"{re.escape(part)}([-_.]\d.*)?", path.stem) is not None
    )


def _no_part(source: str, part: str, held: list[str]) -> str:
    return (
        f"{source}: no part '{part}' among {printable(', '.join(held)[:200])}; set data.reader.splits to the names of "
        "the parts, or to a fraction of the training part, as in data.reader.splits.test=0.1"
    )


def _columns(rows: Rows, names: Sequence[str], source: str) -> list[list[str]]:
    """The texts of some columns, read without the images.

    Raises:
        InputError: a column does not hold texts.
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
            raise InputError(f"{source}: column '{name}' holds {type(bad).__name__}, not text; choose another")
    return [["" if value is None else str(value) for value in found[name]] for name in names]


def check_count(repo: str, part: str, count: int) -> None:
    """Compare the size of a part with the known one.

    Raises:
        InputError: they differ.
    """
    table = (resources.files("htr_lightning.data") / "splits" / "huggingface.tsv").read_text(encoding="utf-8")
    known = {row["repo"]: row for row in csv.DictReader(table.splitlines(), delimiter="\t")}
    expected = known.get(repo, {}).get(part)
    if expected and int(expected) != count:
        raise InputError(
            f"{repo}: {count} rows in '{part}', but {expected} are known; complete the files, set "
            "data.reader.revision to another revision, or data.reader.check_counts=false"
        )


@contextmanager
def _named(source: str) -> Iterator[None]:
    """Reports any error that pyarrow or datasets raises for damaged files as one line that names them."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{source}: cannot be read ({_reason(error)}); copy the files again") from None


def _reason(error: BaseException) -> str:
    """The first line of the first cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
