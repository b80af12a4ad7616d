"""Files of CASIA-HWDB written byte by byte, as the formats say, and characters to put into them."""

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

Characters = Iterable[tuple[str | bytes, np.ndarray]]
Lines = Sequence[tuple[Sequence[str | bytes], np.ndarray]]


def code(character: str | bytes) -> bytes:
    """The GB code, its lead byte first; ASCII is filled up with NUL."""
    return character if isinstance(character, bytes) else character.encode("gbk").ljust(2, b"\0")


def gnt(characters: Characters) -> bytes:
    """Size of the record, label, WIDTH, HEIGHT, pixels."""
    return b"".join(
        struct.pack("<I2sHH", 10 + image.size, code(label), image.shape[1], image.shape[0]) + image.tobytes()
        for label, image in characters
    )


def dgrl(
    lines: Lines, illustration: bytes = b"#HWDB\0", bits: int = 8, encoding: bytes = b"GB", unit: int = 2
) -> bytes:
    """A header of any length; page HEIGHT and WIDTH, count of lines; for each its label, top, left, HEIGHT, WIDTH."""
    content = struct.pack("<I8s", 36 + len(illustration), b"DGRL\0\0\0\0") + illustration
    content += struct.pack("<20sHH", encoding, unit, bits) + struct.pack("<3I", 3000, 2000, len(lines))
    for number, (label, image) in enumerate(lines):
        content += struct.pack("<I", len(label)) + b"".join(code(character)[:unit] for character in label)
        content += struct.pack("<4I", 90 * number, 50, *image.shape)
        content += image.tobytes() if bits == 8 else np.packbits(image < 255, axis=1).tobytes()
    return content


def noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return rng.integers(0, 256, (height, width), dtype=np.uint8)


def drawn(character: str, rng: np.random.Generator, size: int = 48) -> np.ndarray:
    """A character of few strokes: which ones is told by the character, how they run by the hand."""
    strokes = np.random.default_rng(ord(character)).uniform(0.1, 0.9, (5, 2, 2))
    strokes += rng.normal(0, 0.02, strokes.shape)
    image = np.full((size, size), 255, np.uint8)
    for start, end in np.round(strokes * size).astype(int):
        cv2.line(image, start.tolist(), end.tolist(), int(rng.integers(0, 60)), 3, cv2.LINE_AA)
    return image


def write_characters(root: Path, alphabet: str, writers: int, each: int = 1) -> None:
    """Files of characters by writers of whom the last quarter stands in the folder of testing."""
    for number in range(writers):
        rng = np.random.default_rng(number)
        folder = root / ("HWDB1.1tst_gnt" if number >= writers * 3 // 4 else "HWDB1.1trn_gnt")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{1001 + number}-c.gnt").write_bytes(gnt((c, drawn(c, rng)) for c in alphabet * each))


def write_lines(root: Path, alphabet: str, writers: int, lines: int = 3, length: int = 4) -> None:
    """Pages of lines by writers of whom the last quarter stands in the folder of testing."""
    for number in range(writers):
        rng = np.random.default_rng(number)
        folder = root / ("HWDB2.0Test" if number >= writers * 3 // 4 else "HWDB2.0Train")
        folder.mkdir(parents=True, exist_ok=True)
        texts = ["".join(rng.choice(list(alphabet), length)) for _ in range(lines)]
        page = [(text, np.hstack([drawn(character, rng) for character in text])) for text in texts]
        (folder / f"{number + 1:03}-P16.dgrl").write_bytes(dgrl(page))
