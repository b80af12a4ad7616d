"""Read the file formats of CASIA-HWDB: `.gnt` for a writer's characters, and `.dgrl` for the lines of a page.

See Liu et al. (2011), "CASIA online and offline Chinese handwriting databases", ICDAR. All numbers are little-endian.
Files are memory-mapped and indexed once; bitmaps are read on demand.
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

from htr_lightning.data.image import MAX_PIXELS
from htr_lightning.errors import InputError

RECORD = struct.Struct("<I2sHH")  # .gnt, before the pixels: record size in bytes, label, width, height
HEAD = struct.Struct("<I8s")  # start of .dgrl: header size in bytes, "DGRL"; text of any length follows
CODES = struct.Struct("<20sHH")  # end of the header: encoding, bytes per label unit, bits per pixel
PAGE = struct.Struct("<III")  # height, width, number of lines
UNITS = struct.Struct("<I")  # number of units in a line's label, which follows
BOX = struct.Struct("<IIII")  # top, left, height, width; followed by the bitmap
MIN_LINE = UNITS.size + BOX.size + 1  # size in bytes of the smallest possible line


class CharacterFile(NamedTuple):
    """The characters in a `.gnt` file, and their offsets."""

    labels: list[bytes]  # two bytes per label, as stored
    boxes: Int[ndarray, "N 3"]  # height, width, byte offset of the first pixel
    cut: str  # description of an incomplete last record; "" if the file is complete


class Line(NamedTuple):
    """A line in a `.dgrl` file, and its offset."""

    label: list[bytes]  # one unit per character
    size: tuple[int, int]  # height, width
    offset: int  # byte offset of the bitmap


class LineFile(NamedTuple):
    """The lines in a `.dgrl` file, and their offsets."""

    lines: list[Line]
    stated: int  # number of lines according to the header; more than in `lines` if the file is truncated
    bits: int  # bits per pixel
    rest: int  # number of bytes after the last complete line


def index_gnt(path: Path) -> CharacterFile:
    """Index the characters in a `.gnt` file in one pass over the record headers.

    In each record, width comes before height. Together, they determine where the next record starts, and they must
    agree with the record size.

    Raises:
        InputError: if a width or height is zero, or does not match the record size.
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
                    f"{path}: the record at byte {offset} has an invalid header ({size} bytes for {width} x {height} "
                    "pixels); the file is corrupted or not a .gnt file; download it again"
                )
            if after > end:
                break
            labels.append(label)
            boxes.append((height, width, offset + RECORD.size))
            offset = after
    cut = f"{path}: the record at byte {offset} ends after {end - offset} bytes" if offset < end else ""
    return CharacterFile(labels, np.array(boxes, dtype=np.int64).reshape(-1, 3), cut)


def index_dgrl(path: Path) -> LineFile:
    """Index the lines in a `.dgrl` file in one pass over their labels and boxes.

    Unlike in `.gnt`, height comes before width; top comes before left.

    Raises:
        InputError: if the header is malformed, or a size or count is invalid.
    """
    with mapped(path) as content:
        end = len(content)
        start, unit, bits = _dgrl_header(path, content)
        _, _, count = PAGE.unpack_from(content, start)
        if count * MIN_LINE > end:
            raise InputError(f"{path}: the header claims {count} lines in a file of {end} bytes; download it again")
        lines: list[Line] = []
        offset = start + PAGE.size
        while len(lines) < count and offset + UNITS.size <= end:
            (units,) = UNITS.unpack_from(content, offset)
            label, box = offset + UNITS.size, offset + UNITS.size + units * unit
            if units * unit > end:
                raise InputError(
                    f"{path}: line {len(lines)} claims {units} characters in a file of {end} bytes; download it again"
                )
            if box + BOX.size > end:
                break
            _, _, height, width = BOX.unpack_from(content, box)
            if not height or not width or height * width > MAX_PIXELS:
                raise InputError(
                    f"{path}: line {len(lines)} has an invalid size ({width} x {height} pixels); download it again"
                )
            pixels = box + BOX.size
            after = pixels + height * _row_bytes(width, bits)
            if after > end:
                break
            text = content[label:box]
            lines.append(Line([text[i : i + unit] for i in range(0, len(text), unit)], (height, width), pixels))
            offset = after
    return LineFile(lines, count, bits, end - offset)


def _dgrl_header(path: Path, content: mmap.mmap) -> tuple[int, int, int]:
    """Return the length of the header in bytes, the number of bytes per label unit and the number of bits per pixel."""
    if len(content) < HEAD.size or HEAD.unpack_from(content)[1].rstrip(b"\0") != b"DGRL":
        raise InputError(f"{path}: not a .dgrl file (it starts with {content[: HEAD.size]!r}); download it again")
    length = HEAD.unpack_from(content)[0]
    if not HEAD.size + CODES.size <= length <= len(content) - PAGE.size:
        raise InputError(
            f"{path}: invalid header length ({length} bytes in a file of {len(content)}); download it again"
        )
    encoding, unit, bits = CODES.unpack_from(content, length - CODES.size)
    encoding = encoding.split(b"\0")[0]
    if not encoding.upper().startswith((b"GB", b"ASCII")) or not 1 <= unit <= 4 or bits not in (1, 8):
        raise InputError(
            f"{path}: expected GB or ASCII labels with 1 to 4 bytes per unit and 1 or 8 bits per pixel, got "
            f"{encoding!r} labels with {unit} bytes per unit and {bits} bits per pixel; download it again"
        )
    return length, unit, bits


@lru_cache(maxsize=1 << 16)
def character(code: bytes) -> str:
    """Decode a label unit, or return "" if the unit is not a character.

    A unit is a GB code, lead byte first, or an ASCII character padded with NUL. 0xFF and unassigned codes mark
    characters that were crossed out or could not be identified.
    """
    try:
        text = code.decode("gb18030").strip("\0")
    except UnicodeDecodeError:
        return ""
    return text if len(text) == 1 and unicodedata.category(text) not in ("Cc", "Zl", "Zp") else ""


def read_bitmap(path: Path, offset: int, size: tuple[int, int], bits: int = 8) -> UInt8[ndarray, "H W"]:
    """Read a bitmap as dark ink on white (255) paper.

    The format does not specify the polarity of 1-bit bitmaps, so the rarer value is taken as ink.

    Args:
        path: path to the file.
        offset: byte offset of the bitmap.
        size: height and width in pixels.
        bits: number of bits per pixel; rows of 1-bit bitmaps are padded to whole bytes.

    Raises:
        InputError: if the file is missing, or shorter than when it was indexed.
    """
    height, width = size
    image = np.empty((height, _row_bytes(width, bits)), np.uint8)
    try:
        # Four times as fast as mapping the file for each bitmap; a permanent mapping would count as process memory.
        with open(path, "rb", buffering=0) as file:
            file.seek(offset)
            count = file.readinto(image.data)
    except OSError as error:
        raise _unreadable(path, error) from None
    if count != image.size:
        raise InputError(f"{path}: has become shorter since it was indexed; download it again and restart")
    if bits == 8:
        return image
    ink = np.unpackbits(image, axis=1, count=width)
    return 255 * (ink if ink.mean() > 0.5 else 1 - ink)  # ink covers the smaller part of a line


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """Memory-map a file for one pass."""
    try:
        with open(path, "rb", buffering=0) as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:  # raised by mmap for an empty file
        raise InputError(f"{path}: the file is empty; download it again") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    with content:
        yield content


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: {error.strerror}; check data.root, or download the file again")


def _row_bytes(width: int, bits: int) -> int:
    return -(-width * bits // 8)
