"""The file formats of CASIA-HWDB: `.gnt` holds the characters of a writer, `.dgrl` the lines of a page.

Liu et al. (2011), "CASIA online and offline Chinese handwriting databases", ICDAR. All numbers are little-endian. The
functions here find the offsets in a memory-mapped file; bitmaps are read only when they are needed.
"""

import mmap
import struct
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from htr_lightning.data.image import MAX_PIXELS, dark_on_light
from htr_lightning.errors import InputError

RECORD = struct.Struct("<I2sHH")  # .gnt, before the pixels: bytes of the record, label, width, height
HEAD = struct.Struct("<I8s")  # .dgrl, first: bytes of the header, "DGRL"; an illustration of any length follows
CODES = struct.Struct("<20sHH")  # the end of the header: encoding, bytes of a label unit, bits of a pixel
PAGE = struct.Struct("<III")  # height, width, number of lines
UNITS = struct.Struct("<I")  # of a line's label, which follows
BOX = struct.Struct("<IIII")  # top, left, height, width; the bitmap follows
MIN_LINE = UNITS.size + BOX.size + 1  # bytes of the shortest line


class CharacterFile(NamedTuple):
    """The characters in a `.gnt` file and their offsets."""

    labels: list[bytes]  # two bytes each, as stored
    boxes: Int[ndarray, "N 3"]  # height, width, offset of the first pixel in bytes
    cut: str  # what is left at the end of a truncated file; "" if it is complete


class Line(NamedTuple):
    """A line in a `.dgrl` file and its offset."""

    label: list[bytes]  # a unit for each character
    size: tuple[int, int]  # height, width
    offset: int  # of the bitmap, in bytes


class LineFile(NamedTuple):
    """The lines in a `.dgrl` file and their offsets."""

    lines: list[Line]
    stated: int  # number of lines that the file states: more than there are if it is truncated
    bits: int  # of a pixel
    rest: int  # bytes after the last complete line


def index_gnt(path: Path) -> CharacterFile:
    """The characters of a `.gnt` file, by one pass over the headers of its records.

    Width comes before height. They determine where the next record begins; the size that a record states must agree.

    Raises:
        InputError: a size is zero, or the size of a record is not that of its header and pixels.
    """
    labels: list[bytes] = []
    boxes: list[tuple[int, int, int]] = []
    offset = 0
    with mapped(path) as content:
        end = len(content)
        while offset + RECORD.size <= end:
            size, label, width, height = RECORD.unpack_from(content, offset)
            after = offset + RECORD.size + width * height
            if not width or not height or size != after - offset:
                raise InputError(
                    f"{path}: the record at byte {offset} states {size} bytes and {width} x {height} pixels, "
                    "which do not agree; it is not a .gnt file, or damaged: copy it again"
                )
            if after > end:
                break
            labels.append(label)
            boxes.append((height, width, offset + RECORD.size))
            offset = after
    cut = f"{path}: the record at byte {offset} has {end - offset} bytes" if offset < end else ""
    return CharacterFile(labels, np.array(boxes, dtype=np.int64).reshape(-1, 3), cut)


def index_dgrl(path: Path) -> LineFile:
    """The lines of a `.dgrl` file, by one pass over their labels and boxes.

    Height comes before width, and top before left: the opposite of `.gnt`.

    Raises:
        InputError: the header is malformed, or a size or count is impossible.
    """
    with mapped(path) as content:
        end = len(content)
        start, unit, bits = _dgrl_header(path, content)
        _, _, count = PAGE.unpack_from(content, start)
        if count * MIN_LINE > end:
            raise InputError(f"{path}: states {count} lines in {end} bytes; copy it again")
        lines: list[Line] = []
        offset = start + PAGE.size
        while len(lines) < count and offset + UNITS.size <= end:
            (units,) = UNITS.unpack_from(content, offset)
            label, box = offset + UNITS.size, offset + UNITS.size + units * unit
            if units * unit > end:
                raise InputError(f"{path}: line {len(lines)} states {units} characters in {end} bytes; copy it again")
            if box + BOX.size > end:
                break
            _, _, height, width = BOX.unpack_from(content, box)
            if not height or not width or height * width > MAX_PIXELS:
                raise InputError(f"{path}: line {len(lines)} has {width} x {height} pixels; copy it again")
            pixels = box + BOX.size
            after = pixels + height * _row_bytes(width, bits)
            if after > end:
                break
            text = content[label:box]
            lines.append(Line([text[i : i + unit] for i in range(0, len(text), unit)], (height, width), pixels))
            offset = after
    return LineFile(lines, count, bits, end - offset)


def _dgrl_header(path: Path, content: mmap.mmap) -> tuple[int, int, int]:
    """The length of the header in bytes, the bytes per label unit and the bits per pixel."""
    if len(content) < HEAD.size or HEAD.unpack_from(content)[1].rstrip(b"\0") != b"DGRL":
        raise InputError(f"{path}: not a .dgrl file (it begins with {content[: HEAD.size]!r}); copy it again")
    length = HEAD.unpack_from(content)[0]
    if not HEAD.size + CODES.size <= length <= len(content) - PAGE.size:
        raise InputError(f"{path}: a header of {length} bytes in a file of {len(content)}; copy it again")
    encoding, unit, bits = CODES.unpack_from(content, length - CODES.size)
    encoding = encoding.split(b"\0")[0]
    if not encoding.upper().startswith((b"GB", b"ASCII")) or not 1 <= unit <= 4 or bits not in (1, 8):
        raise InputError(
            f"{path}: labels in {encoding!r} of {unit} bytes and pixels of {bits} bits; "
            "only GB or ASCII of 1 to 4 bytes and pixels of 1 or 8 bits can be read: copy it again"
        )
    return length, unit, bits


@lru_cache(maxsize=1 << 16)
def character(code: bytes) -> str:
    """The character of a label unit, "" if it has none.

    A GB code, its lead byte first, or an ASCII character padded with NUL; 0xFF and unassigned codes mark characters
    that were deleted or could not be identified.
    """
    try:
        text = code.decode("gb18030").strip("\0")
    except UnicodeDecodeError:
        return ""
    return text if len(text) == 1 and unicodedata.category(text) != "Cc" else ""


def read_bitmap(path: Path, offset: int, size: tuple[int, int], bits: int = 8) -> UInt8[ndarray, "H W"]:
    """One bitmap, dark ink on white (255) paper.

    In a 1-bit bitmap, whose rows are padded to whole bytes, the rarer value is ink: the format does not say which.

    Raises:
        InputError: the file is missing, or shorter than when it was indexed.
    """
    height, width = size
    image = np.empty((height, _row_bytes(width, bits)), np.uint8)
    try:
        # Four times as fast as mapping the file for each bitmap; a permanent map counts as memory of the process.
        with open(path, "rb", buffering=0) as file:
            file.seek(offset)
            count = file.readinto(image.data)
    except OSError as error:
        raise _unreadable(path, error) from None
    if count != image.size:
        raise InputError(f"{path}: has become shorter since it was opened; copy it again and restart")
    return image if bits == 8 else dark_on_light(255 * (1 - np.unpackbits(image, axis=1, count=width)))


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """A file mapped into memory for one pass."""
    try:
        with open(path, "rb", buffering=0) as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:  # raised by mmap for an empty file
        raise InputError(f"{path}: the file is empty; copy it again") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    with content:
        yield content


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: {error.strerror}; check data.root and copy the file again")


def _row_bytes(width: int, bits: int) -> int:
    return -(-width * bits // 8)
