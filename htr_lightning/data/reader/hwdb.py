"""The file formats of CASIA-HWDB: `.gnt` holds the characters of a writer, `.dgrl` the lines of a page.

Liu et al. (2011), "CASIA online and offline Chinese handwriting databases", ICDAR. All numbers are little-endian. The
functions here find where everything lies, on the memory-mapped file: no bitmap is read before it is asked for.
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
PAGE = struct.Struct("<III")  # height, width, lines
UNITS = struct.Struct("<I")  # of a line's label, which follows
BOX = struct.Struct("<IIII")  # top, left, height, width; the bitmap follows
SHORTEST = UNITS.size + BOX.size + 1  # bytes of a line


class CharacterFile(NamedTuple):
    """Where the characters of a `.gnt` file lie."""

    labels: list[bytes]  # two bytes each, as they lie
    boxes: Int[ndarray, "N 3"]  # height, width, and the first pixel's place in bytes
    cut: str  # what stands at the end of a file that was cut short; "" where it is whole


class Line(NamedTuple):
    """Where a line of a `.dgrl` file lies."""

    label: list[bytes]  # a unit for each character
    size: tuple[int, int]  # height, width
    offset: int  # of the bitmap, in bytes


class LineFile(NamedTuple):
    """Where the lines of a `.dgrl` file lie."""

    lines: list[Line]
    promised: int  # lines, as the file states it: more than there are where it was cut short
    bits: int  # of a pixel
    rest: int  # bytes behind the last whole line


def index_gnt(path: Path) -> CharacterFile:
    """The characters of a `.gnt` file, by one pass over the heads of its records.

    Width stands before height. The next record is found by them; the record's own size must agree.

    Raises:
        InputError: a size is zero, or a record's size is not that of its head and pixels.
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
                    "which do not agree; it is no .gnt file or a damaged one: copy it again"
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

    Height stands before width, and top before left: the opposite of `.gnt`.

    Raises:
        InputError: the header is another one, or a size or count cannot be.
    """
    with mapped(path) as content:
        end = len(content)
        start, unit, bits = _dgrl_header(path, content)
        _, _, count = PAGE.unpack_from(content, start)
        if count * SHORTEST > end:
            raise InputError(f"{path}: promises {count} lines in {end} bytes; copy it again")
        lines: list[Line] = []
        offset = start + PAGE.size
        while len(lines) < count and offset + UNITS.size <= end:
            (units,) = UNITS.unpack_from(content, offset)
            label, box = offset + UNITS.size, offset + UNITS.size + units * unit
            if units * unit > end:
                raise InputError(f"{path}: line {len(lines)} promises {units} characters in {end} bytes; copy it again")
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
    """Its length in bytes, the bytes of a label unit and the bits of a pixel."""
    if len(content) < HEAD.size or HEAD.unpack_from(content)[1].rstrip(b"\0") != b"DGRL":
        raise InputError(f"{path}: no .dgrl file (it begins with {content[: HEAD.size]!r}); copy it again")
    length = HEAD.unpack_from(content)[0]
    if not HEAD.size + CODES.size <= length <= len(content) - PAGE.size:
        raise InputError(f"{path}: a header of {length} bytes in a file of {len(content)}; copy it again")
    encoding, unit, bits = CODES.unpack_from(content, length - CODES.size)
    encoding = encoding.split(b"\0")[0]
    if not encoding.upper().startswith((b"GB", b"ASCII")) or not 1 <= unit <= 4 or bits not in (1, 8):
        raise InputError(
            f"{path}: labels in {encoding!r} of {unit} bytes and pixels of {bits} bits; "
            "only GB or ASCII of 1 to 4 bytes and pixels of 1 or 8 bits are read: copy it again"
        )
    return length, unit, bits


@lru_cache(maxsize=1 << 16)
def character(code: bytes) -> str:
    """The character of a label unit, "" where there is none.

    A GB code, its lead byte first, or an ASCII character padded with NUL; 0xFF and codes that stand for nothing mark
    characters that were deleted or could not be told.
    """
    try:
        text = code.decode("gb18030").strip("\0")
    except UnicodeDecodeError:
        return ""
    return text if len(text) == 1 and unicodedata.category(text) != "Cc" else ""


def read_bitmap(path: Path, offset: int, size: tuple[int, int], bits: int = 8) -> UInt8[ndarray, "H W"]:
    """One bitmap, dark ink on paper of 255.

    In a bitmap of 1 bit, its rows filled up to whole bytes, the rarer value is ink: the format does not tell which.

    Raises:
        InputError: the file is gone, or is shorter than when its index was made.
    """
    height, width = size
    image = np.empty((height, _row_bytes(width, bits)), np.uint8)
    try:
        # Four times as fast as a map made for each bitmap; a map that is kept counts what was read as memory taken.
        with open(path, "rb", buffering=0) as file:
            file.seek(offset)
            count = file.readinto(image.data)
    except OSError as error:
        raise _unreadable(path, error) from None
    if count != image.size:
        raise InputError(f"{path}: has become shorter since it was opened; copy it again and start anew")
    return image if bits == 8 else dark_on_light(255 * (1 - np.unpackbits(image, axis=1, count=width)))


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """A file mapped into memory for the time of a pass."""
    try:
        with open(path, "rb", buffering=0) as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:  # what mmap says of an empty file
        raise InputError(f"{path}: the file is empty; copy it again") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    with content:
        yield content


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: {error.strerror}; check data.root and copy the file again")


def _row_bytes(width: int, bits: int) -> int:
    return -(-width * bits // 8)
