"""Pack a decoded data set into a single memory-mapped, checksummed file.

The file has the following layout::

    MAGIC
    block {"height": maximum height of the lines in pixels, or null, "source": fingerprint of the packed data}
    chunks, each a block {"split": name, "lines": [[id, text, group, height, width, CRC-32 of the pixels], ...]}
        followed by the pixels of these lines, one byte per pixel, row by row
    index block {name of a split: {"chunks": [chunk offset, ...], "skipped": [[id, kind, detail], ...]}}
    offset of the index block (u64), END

A block consists of its length (u32), the CRC-32 of its content (u32) and its content as JSON. Numbers are
little-endian. Each chunk is self-contained, so interrupted packing resumes after the last complete chunk, and only one
chunk at a time is held in memory.
"""

import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO
from zlib import crc32

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from htr_lightning.data.fault import EMPTY, text_fault
from htr_lightning.data.image import MAX_SIDE, reduce_rows
from htr_lightning.data.preprocess import Preprocess
from htr_lightning.data.sample import Reader, Sample, Skipped
from htr_lightning.data.split import SPLITS
from htr_lightning.errors import InputError, printable

MAGIC, END = b"HTRPACK1", b"HTRPACK."
BLOCK, TAIL = struct.Struct("<II"), struct.Struct("<Q8s")
LINE_FIELDS = 6
CORRUPTED = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)
CHUNK_LINES, CHUNK_BYTES = 1024, 32 << 20  # a chunk is complete when it reaches either of these sizes


class Pack(Sequence[Sample]):
    """A reader for one split of a packed file.

    Everything except the pixels is verified when the file is opened; pixels are verified when a line is read.

    Args:
        path: path to a file written by `htr pack`.
        split: "train", "val" or "test".
        preprocess: preprocessing of the model that will use the lines, checked for compatibility; None skips the check.

    Raises:
        InputError: if the file or the split does not exist, the file is corrupted, or its lines are too small for
            `preprocess`.
    """

    def __init__(self, path: str | Path, split: str, preprocess: Preprocess | None = None) -> None:
        self.path, self.split = Path(path), split
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.groups: list[str] = []
        positions = [np.zeros((0, 4), np.int64)]
        with _reading(self.path) as file:
            header, splits = _read_index(file)
            if split not in splits:
                raise InputError(
                    f"{path}: no split '{split}' (available: {', '.join(splits)}); pack this split as well"
                )
            self.height: int | None = header["height"]
            if preprocess is not None:
                self._check(packed_height(preprocess))
            self.skipped = [Skipped(*_strings(skipped)) for skipped in splits[split]["skipped"]]
            end = 0
            for offset in splits[split]["chunks"]:
                if offset < end:
                    raise ValueError("overlapping chunks")
                file.seek(offset)
                lines = _read_block(file)["lines"]
                positions.append(_positions(file, lines))
                ids, texts, groups, *_ = zip(*lines, strict=True)
                self.ids += map(printable, _strings(ids))
                self.texts += _strings(texts)
                self.groups += _strings(groups)
                start, height, width, _ = positions[-1][-1].tolist()
                end = start + height * width
            if len(set(self.ids)) < len(self.ids):
                raise ValueError("duplicate ids")
            for id, text in zip(self.ids, self.texts, strict=True):
                if (fault := text_fault(id, text)) is not None and fault.kind != EMPTY:
                    raise ValueError(f"{id}: {fault.kind}")
            self._positions = np.concatenate(positions)
        self._bytes = np.memmap(self.path, np.uint8, "r").view(ndarray)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """Return a line; raise InputError if its pixels are corrupted."""
        index = range(len(self))[index]
        start, height, width, checksum = self._positions[index].tolist()
        pixels = self._bytes[start : start + height * width]
        if crc32(pixels.data) != checksum:
            raise InputError(f"{self.path}: the pixels of {self.ids[index]} are corrupted; pack the data again")
        image = pixels.reshape(height, width).copy()  # augmentation may modify it in place
        return Sample(self.ids[index], image, self.texts[index], self.groups[index])

    def __reduce__(self) -> tuple[type["Pack"], tuple[str, str]]:
        return Pack, (str(self.path), self.split)  # pickling would copy the mapped file, so each worker opens it anew

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return [(height, width) for height, width in self._positions[:, 1:3].tolist()]

    def _check(self, needed: int | None) -> None:
        if self.height is not None and (needed is None or needed > self.height):
            wants = "full-size images" if needed is None else f"a height of {needed} pixels"
            raise InputError(
                f"{self.path}: lines were packed at a height of {self.height} pixels, but this model needs {wants}; "
                "run htr pack again with this model's overrides"
            )


class PackWriter:
    """A context manager that writes a packed file and completes it on exit.

    Chunks are written to `path`.part. If this file exists, packing resumes after the last complete chunk, and the
    result is byte-for-byte identical to that of an uninterrupted run.

    Args:
        path: path to the output file, which must not exist.
        height: maximum height of the packed lines in pixels, to which taller lines are scaled down (see
            `packed_height`); None keeps the original size.
        source: fingerprint of the data and settings; packing resumes only if it is unchanged.

    Raises:
        InputError: if the file exists, cannot be written, or was started with different settings.
    """

    def __init__(self, path: str | Path, height: int | None, source: str = "") -> None:
        self.path, self.height = Path(path), height
        self.part = self.path.with_name(f"{self.path.name}.part")
        if self.path.exists():
            raise InputError(f"{self.path}: already exists; choose another --out or delete the file")
        self._chunks: dict[str, list[int]] = {}
        self._splits: dict[str, dict[str, list]] = {}  # the completed splits
        header = {"height": height, "source": source}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.part, "a+b")  # noqa: SIM115
        except OSError as error:
            raise InputError(f"{self.part}: cannot be written ({error.strerror}); choose another --out") from None
        try:
            self._resume(header)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "PackWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:
                self._finish()
        if error is not None and not any(self._chunks.values()):
            self.part.unlink()  # there is nothing to resume

    def write(self, split: str, reader: Reader, advance: Callable[[int], None] = lambda lines: None) -> None:
        """Pack the lines of a split, except those that have already been packed.

        Args:
            split: name of the split.
            reader: reader of the split.
            advance: function called with the number of lines completed since the last call, to update a progress bar.

        Raises:
            InputError: if a line cannot be read, the lines packed so far differ from the reader's, or the file cannot
                be written.
        """
        chunks = self._chunks.setdefault(split, [])
        done = self._compare(chunks, reader) if chunks else 0
        advance(done)
        lines: list[list] = []
        images: list[UInt8[ndarray, "_ _"]] = []
        size = 0
        for index in range(done, len(reader)):
            sample = reader[index]
            image = np.ascontiguousarray(_reduce(sample, self.height))
            lines.append([sample.id, sample.text, sample.group, *image.shape, crc32(image.data)])
            images.append(image)
            size += image.size
            if len(lines) == CHUNK_LINES or size >= CHUNK_BYTES or index == len(reader) - 1:
                chunks.append(self._append({"split": split, "lines": lines}, images))
                advance(len(lines))
                lines, images, size = [], [], 0
        self._splits[split] = {"chunks": chunks, "skipped": [list(skipped) for skipped in reader.skipped]}

    def _append(self, content: dict[str, Any], images: Sequence[UInt8[ndarray, "_ _"]], tail: bytes = b"") -> int:
        """Write a block and the data that follows it, and return the offset of the block."""
        offset = self._file.tell()
        block = json.dumps(content, separators=(",", ":")).encode()
        try:
            self._file.write(BLOCK.pack(len(block), crc32(block)) + block)
            for image in images:
                self._file.write(image.data)
            self._file.write(tail)
            self._file.flush()
            os.fsync(self._file.fileno())  # so that a crash can lose only the next chunk
        except OSError as error:
            raise InputError(
                f"{self.part}: cannot be written ({error.strerror}); "
                "free up some space and run the same command again to resume"
            ) from None
        return offset

    def _finish(self) -> None:
        self._append(self._splits, [], TAIL.pack(self._file.tell(), END))
        self._file.close()
        os.replace(self.part, self.path)

    def _resume(self, header: dict[str, Any]) -> None:
        """Start a new file, or truncate an unfinished one after its last complete chunk."""
        self._file.seek(0)
        magic = self._file.read(len(MAGIC))
        if magic != MAGIC[: len(magic)]:
            raise InputError(f"{self.part}: not a packed file; move it or choose another --out")
        try:
            started = _read_block(self._file)
        except ValueError:  # not even the first block is complete
            self._file.seek(0)
            self._file.truncate()
            self._file.write(MAGIC)
            self._append(header, [])
            return
        if started != header:
            raise InputError(
                f"{self.part}: started with different settings; use the same settings, or delete the file to start over"
            )
        while True:
            offset = self._file.tell()
            try:
                block = _read_block(self._file)
                for _, height, width, checksum in _positions(self._file, block["lines"]).tolist():
                    if crc32(self._file.read(height * width)) != checksum:
                        raise ValueError("pixels")
                self._chunks.setdefault(block["split"], []).append(offset)
            except CORRUPTED:  # a truncated chunk, or the index block
                self._file.seek(offset)
                self._file.truncate()
                return

    def _compare(self, chunks: Sequence[int], reader: Reader) -> int:
        """Return the number of lines already packed; raise InputError if they are not the first lines of the reader."""
        end, done = self._file.tell(), 0
        known = list(zip(reader.ids, reader.texts, reader.groups, strict=True))
        for offset in chunks:
            self._file.seek(offset)
            packed = [tuple(line[:3]) for line in _read_block(self._file)["lines"]]
            if packed != known[done : done + len(packed)]:
                raise InputError(f"{self.part}: started with different lines; delete the file to start over")
            done += len(packed)
        self._file.seek(end)
        return done


def packed_height(preprocess: Preprocess) -> int | None:
    """Return the height in pixels to which `preprocess` reduces lines first, or None if it uses full-size images."""
    return preprocess.max_rows


def packed_splits(path: str | Path) -> list[str]:
    """Return the names of the splits in a packed file.

    Raises:
        InputError: if the file is missing or corrupted.
    """
    with _reading(Path(path)) as file:
        return list(_read_index(file)[1])


def _reduce(sample: Sample, height: int | None) -> UInt8[ndarray, "_ _"]:
    """Scale the image of a line down to at most `height` rows, in the same way as `Preprocess.reduce`."""
    rows, columns = sample.image.shape
    if not 0 < min(rows, columns) <= max(rows, columns) <= MAX_SIDE:
        raise InputError(
            f"{sample.id}: image size out of range ({columns} x {rows} pixels, maximum {MAX_SIDE}); "
            "fix or remove the image"
        )
    return reduce_rows(sample.image, height)


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    """Open a packed file for reading; raise InputError if it is missing or corrupted."""
    try:
        with open(path, "rb") as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{path}: not found; create it with htr pack, set data.pack=null, or choose data of your own, "
                         "e.g. data=page_xml data.root=FOLDER") from None  # fmt: skip
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check data.pack") from None
    except CORRUPTED as error:
        raise InputError(f"{path}: corrupted or not a packed file ({error}); pack the data again") from None


def _read_index(file: BinaryIO) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the header and the index of a packed file."""
    if (magic := file.read(len(MAGIC))) != MAGIC:
        raise ValueError(f"expected {MAGIC!r} at the start, got {magic!r}")
    header = _read_block(file)
    if file.seek(0, os.SEEK_END) < TAIL.size:
        raise ValueError("truncated")
    file.seek(-TAIL.size, os.SEEK_END)
    offset, end = TAIL.unpack(file.read(TAIL.size))
    if end != END or offset >= file.tell():
        raise ValueError("truncated")
    file.seek(offset)
    splits = _read_block(file)
    if file.tell() != os.fstat(file.fileno()).st_size - TAIL.size:
        raise ValueError("invalid index offset")
    height = header["height"]
    if height is not None and (type(height) is not int or not 0 < height <= MAX_SIDE):
        raise ValueError("invalid height")
    if not set(splits) <= set(SPLITS):
        raise ValueError("unknown split")
    return header, splits


def _read_block(file: BinaryIO) -> Any:
    """Read the block at the current file position; raise ValueError if it is truncated or corrupted."""
    head = file.read(BLOCK.size)
    if len(head) < BLOCK.size:
        raise ValueError("truncated")
    length, checksum = BLOCK.unpack(head)
    if length > os.fstat(file.fileno()).st_size - file.tell():
        raise ValueError("truncated")
    content = file.read(length)
    if crc32(content) != checksum:
        raise ValueError("checksum mismatch")
    return json.loads(content)


def _strings(values: Iterable[Any]) -> list[str]:
    """Return values as a list. Raises ValueError if one is not a string that can be written to a file."""
    strings = list(values)
    if not all(isinstance(value, str) for value in strings):
        raise ValueError("expected strings")
    "".join(strings).encode()
    return strings


def _positions(file: BinaryIO, lines: Sequence[list]) -> Int64[ndarray, "N 4"]:
    """Return the offset, height, width and checksum of lines whose pixels begin at the current file position.

    Raises:
        ValueError: if a line is invalid, a size is out of range or the file is truncated.
    """
    if not lines or any(len(line) != LINE_FIELDS or {*map(type, line[3:])} != {int} for line in lines):
        raise ValueError("invalid lines")
    numbers = np.array([line[3:] for line in lines], np.int64)
    sides = numbers[:, :2]
    if not 0 < sides.min() <= sides.max() <= MAX_SIDE:
        raise ValueError(f"line height or width out of range ({sides.min()} to {sides.max()} pixels)")
    ends = file.tell() + np.cumsum(sides.prod(1))
    if ends[-1] > os.fstat(file.fileno()).st_size:
        raise ValueError("truncated")
    return np.column_stack([ends - sides.prod(1), numbers])
