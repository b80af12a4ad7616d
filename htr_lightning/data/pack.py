"""A data set decoded once, as one memory-mapped, checksummed file.

The file consists of, in this order:

    MAGIC
    block {"height": rows that lines are reduced to, or null; "source": fingerprint of what is packed}
    chunks, each a block {"split": name, "lines": [[id, text, group, height, width, CRC-32 of the pixels], ...]}
        followed by the pixels of these lines, one byte each, row by row
    block {name of a split: {"chunks": [offset of each], "skipped": [[id, kind, detail], ...]}}
    offset of that last block (u64), END

A block is its length (u32), the CRC-32 of its content (u32) and its content in JSON; numbers are little-endian. Every
chunk is complete in itself, so packing can resume after the last one, and only one is held in memory.
"""

import json
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO
from zlib import crc32

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from htr_lightning.data.image import MAX_SIDE
from htr_lightning.data.preprocess import FitHeight, Preprocess, reduce_rows
from htr_lightning.data.sample import Reader, Sample, Skipped
from htr_lightning.errors import InputError

MAGIC, END = b"HTRPACK1", b"HTRPACK."
BLOCK, TAIL = struct.Struct("<II"), struct.Struct("<Q8s")
CHUNK_LINES, CHUNK_BYTES = 1024, 32 << 20  # largest number of lines and pixels in a chunk


class Pack(Sequence[Sample]):
    """One split of a packed file. Opening it checks everything but the pixels, which are checked as lines are read.

    Args:
        path: a file written by `htr pack`.
        split: train, val or test.
        preprocess: what the lines are to be preprocessed with; None: not checked.

    Raises:
        InputError: there is no such file or split, it is damaged, or its lines are too small for `preprocess`.
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
                raise InputError(f"{path}: has no split '{split}', only {', '.join(splits)}; pack that split as well")
            self.height: int | None = header["height"]
            if preprocess is not None:
                self._check(packed_height(preprocess))
            self.skipped = [Skipped(*skipped) for skipped in splits[split]["skipped"]]
            for offset in splits[split]["chunks"]:
                file.seek(offset)
                lines = _read_block(file)["lines"]
                self.ids += [line[0] for line in lines]
                self.texts += [line[1] for line in lines]
                self.groups += [line[2] for line in lines]
                positions.append(_positions(file, lines))
            self._positions = np.concatenate(positions)
        self._bytes = np.memmap(self.path, np.uint8, "r").view(ndarray)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """Raises InputError if the pixels are not those that were packed."""
        index = range(len(self))[index]
        start, height, width, checksum = self._positions[index].tolist()
        pixels = self._bytes[start : start + height * width]
        if crc32(pixels.data) != checksum:
            raise InputError(f"{self.path}: the pixels of {self.ids[index]} are damaged; pack the data again")
        image = pixels.reshape(height, width).copy()  # not a view: augmentation may write into it
        return Sample(self.ids[index], image, self.texts[index], self.groups[index])

    def __reduce__(self) -> tuple[type["Pack"], tuple[str, str]]:
        return Pack, (str(self.path), self.split)  # a worker opens the file itself: pickling would copy the mapping

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return [(height, width) for height, width in self._positions[:, 1:3].tolist()]

    def _check(self, needed: int | None) -> None:
        if self.height is not None and (needed is None or needed > self.height):
            wants = "whole images" if needed is None else f"{needed} rows"
            raise InputError(
                f"{self.path}: its lines are reduced to {self.height} rows, but this model takes {wants}; run htr pack "
                "again with the overrides of this model"
            )


class PackWriter:
    """Writes a packed file; used in a `with` block, whose end completes the file.

    Everything goes to `path`.part in complete chunks. If that file exists, packing is resumed, and the result is the
    same, byte for byte, as without an interruption.

    Args:
        path: the file; it must not exist.
        height: rows to which taller lines are reduced, see `packed_height`; None: not at all.
        source: a fingerprint of what the lines depend on: packing is not resumed with anything else.

    Raises:
        InputError: the file exists, cannot be written, or was started with other settings.
    """

    def __init__(self, path: str | Path, height: int | None, source: str = "") -> None:
        self.path, self.height = Path(path), height
        self.part = self.path.with_name(f"{self.path.name}.part")
        if self.path.exists():
            raise InputError(f"{self.path}: exists already and is not overwritten; choose another name or delete it")
        self._chunks: dict[str, list[int]] = {}
        self._splits: dict[str, dict[str, list]] = {}  # those that are complete
        header = {"height": height, "source": source}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.part, "a+b")  # noqa: SIM115
        except OSError as error:
            raise InputError(f"{self.part}: {error.strerror}; choose another --out") from None
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
        """Pack the lines of a split that have not been packed yet.

        Args:
            split: its name.
            reader: its lines.
            advance: called with the count of lines done, for a progress bar.

        Raises:
            InputError: a line cannot be read, the lines packed so far are not the reader's, or the disk is full.
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
        """Write a block and the data that follows it to disk; returns its offset."""
        offset = self._file.tell()
        block = json.dumps(content, separators=(",", ":")).encode()
        try:
            self._file.write(BLOCK.pack(len(block), crc32(block)) + block)
            for image in images:
                self._file.write(image.data)
            self._file.write(tail)
            self._file.flush()
            os.fsync(self._file.fileno())  # what precedes the next chunk is safe
        except OSError as error:
            raise InputError(
                f"{self.part}: not written ({error.strerror}); free space and run the same command again to resume"
            ) from None
        return offset

    def _finish(self) -> None:
        self._append(self._splits, [], TAIL.pack(self._file.tell(), END))
        self._file.close()
        os.replace(self.part, self.path)

    def _resume(self, header: dict[str, Any]) -> None:
        """Start a file, or find the end of the last complete chunk of an unfinished one."""
        self._file.seek(0)
        magic = self._file.read(len(MAGIC))
        if magic != MAGIC[: len(magic)]:
            raise InputError(f"{self.part}: not written by htr pack; move it away or choose another --out")
        try:
            started = _read_block(self._file)
        except ValueError:  # not even the first block
            self._file.seek(0)
            self._file.truncate()
            self._file.write(MAGIC)
            self._append(header, [])
            return
        if started != header:
            raise InputError(
                f"{self.part}: was started with other settings; give those again, or delete it to start over"
            )
        while True:
            offset = self._file.tell()
            try:
                block = _read_block(self._file)
                split, lines = block["split"], block["lines"]
                for line in lines:
                    if crc32(self._file.read(_area(line))) != line[5]:
                        raise ValueError("pixels")
            except (ValueError, KeyError):  # truncated, or the last block of the file
                self._file.seek(offset)
                self._file.truncate()
                return
            self._chunks.setdefault(split, []).append(offset)

    def _compare(self, chunks: Sequence[int], reader: Reader) -> int:
        """The number of lines that are packed already; they must be the first lines of the reader."""
        end, done = self._file.tell(), 0
        known = list(zip(reader.ids, reader.texts, reader.groups, strict=True))
        for offset in chunks:
            self._file.seek(offset)
            packed = [tuple(line[:3]) for line in _read_block(self._file)["lines"]]
            if packed != known[done : done + len(packed)]:
                raise InputError(f"{self.part}: was started with other lines; delete it to start over")
            done += len(packed)
        self._file.seek(end)
        return done


def packed_height(preprocess: Preprocess) -> int | None:
    """Rows to which lines can be reduced when they are packed, since `preprocess` does the same; None: not at all."""
    return preprocess.height if isinstance(preprocess, FitHeight) else None


def packed_splits(path: str | Path) -> list[str]:
    """The splits of a packed file.

    Raises:
        InputError: there is no such file, or it is damaged.
    """
    with _reading(Path(path)) as file:
        return list(_read_index(file)[1])


def _reduce(sample: Sample, height: int | None) -> UInt8[ndarray, "_ _"]:
    """The image of a line with at most `height` rows, by the same steps as `FitHeight`."""
    rows, columns = sample.image.shape
    if not 0 < min(rows, columns) <= max(rows, columns) <= MAX_SIDE:
        raise InputError(f"{sample.id}: {columns} x {rows} pixels cannot be a line; correct or remove it")
    return sample.image if height is None else reduce_rows(FitHeight(height).reduce(sample.image), height)


def _area(line: list) -> int:
    return line[3] * line[4]


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    """An open packed file; an InputError if it is missing or damaged."""
    try:
        with open(path, "rb") as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{path}: no such packed file; make it with htr pack, or set data.pack=null") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a file written by htr pack") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: damaged, or not written by htr pack ({error}); pack the data again") from None


def _read_index(file: BinaryIO) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first and the last block of a packed file."""
    if (magic := file.read(len(MAGIC))) != MAGIC:
        raise ValueError(f"it begins with {magic!r}")
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
        raise ValueError("its end is not where its index says")
    return header, splits


def _read_block(file: BinaryIO) -> Any:
    """The content of the block at the position of the file. Raises ValueError if it is truncated or damaged."""
    head = file.read(BLOCK.size)
    if len(head) < BLOCK.size:
        raise ValueError("truncated")
    length, checksum = BLOCK.unpack(head)
    if length > os.fstat(file.fileno()).st_size - file.tell():
        raise ValueError("truncated")
    content = file.read(length)
    if crc32(content) != checksum:
        raise ValueError("a checksum does not match")
    return json.loads(content)


def _positions(file: BinaryIO, lines: Sequence[list]) -> Int64[ndarray, "N 4"]:
    """Offset, height, width and checksum of the pixels of lines, which begin at the position of the file.

    Raises ValueError if the file is too short to hold them.
    """
    numbers = np.array([line[3:] for line in lines], np.int64).reshape(-1, 3)
    sides = numbers[:, :2]
    if not 0 < sides.min() <= sides.max() <= MAX_SIDE:
        raise ValueError(f"a side of {sides.min()} or {sides.max()} pixels")
    ends = file.tell() + np.cumsum(sides.prod(1))
    if ends[-1] > os.fstat(file.fileno()).st_size:
        raise ValueError("truncated")
    return np.column_stack([ends - sides.prod(1), numbers])
