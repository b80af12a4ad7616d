"""The file formats of CASIA-HWDB, written here byte by byte and read back to the pixel."""

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from casia_files import dgrl, gnt, noise
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from htr_lightning.data.reader.hwdb import character, index_dgrl, index_gnt, read_bitmap
from htr_lightning.errors import InputError

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
SEEDS = st.integers(0, 2**32 - 1)
CHARACTERS = st.sampled_from("啊座一齄郎A7!。，（“αЖ镕")
anew = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the file is written anew


@anew
@given(st.lists(st.tuples(CHARACTERS, SIZES), min_size=1, max_size=6), SEEDS)
def test_gnt_gives_back_labels_and_pixels(
    tmp_path: Path, characters: list[tuple[str, tuple[int, int]]], seed: int
) -> None:
    rng, path = np.random.default_rng(seed), tmp_path / "1001-c.gnt"
    images = [noise(rng, *size) for _, size in characters]
    path.write_bytes(gnt(zip([text for text, _ in characters], images, strict=True)))
    file = index_gnt(path)
    assert file.cut == ""
    assert [character(label) for label in file.labels] == [text for text, _ in characters]
    for image, (height, width, offset) in zip(images, file.boxes.tolist(), strict=True):
        np.testing.assert_array_equal(read_bitmap(path, offset, (height, width)), image)


@anew
@given(
    st.lists(st.tuples(st.lists(CHARACTERS, max_size=5), SIZES), max_size=5), st.binary(max_size=90),
    st.sampled_from([1, 8]), SEEDS,
)  # fmt: skip
def test_dgrl_gives_back_labels_and_pixels(
    tmp_path: Path, lines: list[tuple[list[str], tuple[int, int]]], illustration: bytes, bits: int, seed: int
) -> None:
    rng, path = np.random.default_rng(seed), tmp_path / "001-P16.dgrl"
    images = [noise(rng, *size) if bits == 8 else binary(rng, *size) for _, size in lines]
    texts = [text for text, _ in lines]
    path.write_bytes(dgrl(list(zip(texts, images, strict=True)), illustration, bits))
    file = index_dgrl(path)
    assert (file.stated, file.rest, file.bits) == (len(lines), 0, bits)
    assert [[character(unit) for unit in line.label] for line in file.lines] == texts
    for image, line in zip(images, file.lines, strict=True):
        np.testing.assert_array_equal(read_bitmap(path, line.offset, line.size, bits), image)


def test_the_rarer_bit_is_ink(tmp_path: Path) -> None:
    image, path = binary(np.random.default_rng(0), 7, 13), tmp_path / "a.dgrl"
    for written in (image, 255 - image):
        path.write_bytes(dgrl([("啊", written)], bits=1))
        (line,) = index_dgrl(path).lines
        np.testing.assert_array_equal(read_bitmap(path, line.offset, line.size, 1), image)


def binary(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Black on white, the black pixels fewer than a half."""
    image = np.full(height * width, 255, np.uint8)
    image[rng.permutation(image.size)[: (image.size - 1) // 2]] = 0
    return image.reshape(height, width)


def test_the_bytes_are_those_of_the_published_layout(tmp_path: Path) -> None:
    """啊 is 0xB0A1; a record of 3 columns and 2 rows, and a line of the same size, spelt out by hand."""
    pixels, image = bytes(range(6)), np.arange(6, dtype=np.uint8).reshape(2, 3)
    record = bytes.fromhex("10000000 b0a1 0300 0200") + pixels
    header = (
        bytes.fromhex("29000000 4447524c00000000") + b"#ab!\0" + b"GB".ljust(20, b"\0") + bytes.fromhex("0200 0800")
    )
    page = bytes.fromhex("0a000000 14000000 01000000")
    line = bytes.fromhex("02000000 b0a1 4100 05000000 07000000 02000000 03000000") + pixels
    assert gnt([("啊", image)]) == record
    assert dgrl([("啊A", image)], b"#ab!\0")[len(header) + len(page) :].startswith(line[:8])
    (tmp_path / "a.gnt").write_bytes(record)
    (tmp_path / "a.dgrl").write_bytes(header + page + line)
    one, two = index_gnt(tmp_path / "a.gnt"), index_dgrl(tmp_path / "a.dgrl")
    assert one.labels == two.lines[0].label[:1] == [b"\xb0\xa1"]
    assert one.boxes.tolist() == [[2, 3, 10]]
    np.testing.assert_array_equal(read_bitmap(tmp_path / "a.gnt", 10, (2, 3)), image)
    np.testing.assert_array_equal(read_bitmap(tmp_path / "a.dgrl", two.lines[0].offset, two.lines[0].size), image)


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        (b"\xb0\xa1", "啊"), (b"\xd7\xf9", "座"), (b"A\0", "A"), (b"\0A", "A"), (b"7", "7"), (b"\xa3\xac", "，"),
        (b"\x81\x40", "丂"), (b"\x90\x30\x81\x30", "\U00010000"), (b"\x81\x30\x81\x30", ""), (b"\xff\xff", ""),
        (b"\xff\0", ""), (b"A\xff", ""), (b"\xb0\0", ""), (b"\0\0", ""), (b"", ""), (b"AB", ""), (b"\n\0", ""),
        ("\x85".encode("gb18030"), ""), ("\u2028".encode("gb18030"), ""), ("\u2029".encode("gb18030"), ""),
    ],
)  # fmt: skip
def test_a_unit_is_decoded_by_itself(unit: bytes, text: str) -> None:
    assert character(unit) == text


@pytest.mark.parametrize("encoding", [b"GB", b"GBK", b"ASCII"])
@pytest.mark.parametrize("unit", [1, 2])
def test_labels_of_one_byte_are_read_too(tmp_path: Path, encoding: bytes, unit: int) -> None:
    path = tmp_path / "a.dgrl"
    path.write_bytes(dgrl([("ab", noise(np.random.default_rng(0), 4, 5))], encoding=encoding, unit=unit))
    (line,) = index_dgrl(path).lines
    assert [character(unit) for unit in line.label] == ["a", "b"]


def test_a_gnt_file_truncated_anywhere_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "a.gnt"
    records = [gnt([(text, noise(rng, height, 5))]) for text, height in zip("啊A座", (3, 4, 2), strict=True)]
    ends = np.cumsum([len(record) for record in records]).tolist()
    content = b"".join(records)
    for size in range(1, len(content) + 1):
        path.write_bytes(content[:size])
        file = index_gnt(path)
        assert len(file.labels) == len(file.boxes) == sum(end <= size for end in ends)
        start = max([0, *(end for end in ends if end <= size)])
        assert file.cut == (
            "" if size in ends else f"{path}: the record at byte {start} ends after {size - start} bytes"
        )


@pytest.mark.parametrize("bits", [1, 8])
def test_a_dgrl_file_truncated_anywhere_is_read_as_far_as_it_goes_or_refused(tmp_path: Path, bits: int) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "a.dgrl"
    lines = [("啊A座", noise(rng, 5, 11)), ("阿", noise(rng, 3, 9))]
    content = dgrl(lines, bits=bits)
    ends = [len(dgrl(lines[:count], bits=bits)) for count in range(3)]
    whole = set()
    for size in range(len(content) + 1):
        path.write_bytes(content[:size])
        try:
            file = index_dgrl(path)
        except InputError as error:
            one_line(error, path)
            assert size < ends[0]
            continue
        whole.add(len(file.lines))
        assert file.stated == 2
        assert len(file.lines) == sum(end <= size for end in ends[1:])
        assert file.rest == size - ends[len(file.lines)]
    assert whole == {0, 1, 2}


GNT = gnt([("啊", np.zeros((4, 5), np.uint8)), ("座", np.zeros((4, 5), np.uint8))])
DGRL = dgrl([("啊座", np.zeros((4, 5), np.uint8))])


def spoilt(content: bytes, at: int, form: str, *values: int | bytes) -> bytes:
    changed = bytearray(content)
    struct.pack_into(f"<{form}", changed, at, *values)
    return bytes(changed)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (spoilt(GNT, 0, "I", 31), "byte 0 has an invalid header (31 bytes for 5 x 4 pixels)"),
        (spoilt(GNT, 30, "I", 0), "byte 30 has an invalid header (0 bytes"),
        (spoilt(GNT, 0, "I", 2**32 - 1), "4294967295 bytes"),
        (spoilt(GNT, 6, "HH", 0, 4), "0 x 4 pixels"),
        (spoilt(GNT, 0, "I2sHH", 10, b"AB", 5, 0), "(10 bytes for 5 x 0 pixels)"),
        (spoilt(GNT, 6, "HH", 65535, 65535), "65535 x 65535 pixels"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not a .gnt file"),
    ],
)
def test_a_damaged_gnt_file_is_refused_in_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.gnt"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        index_gnt(path)
    one_line(caught.value, path, words)


BODY = 36 + len(b"#HWDB\0")  # where the page's sizes stand


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"DGRL", "not a .dgrl file"),
        (spoilt(DGRL, 4, "4s", b"DGR\0"), r"not a .dgrl file (it starts with b'*\x00\x00\x00DGR\x00\x00"),
        (spoilt(DGRL, 0, "I", 35), "header length (35 bytes"),
        (spoilt(DGRL, 0, "I", 2**32 - 1), "header length (4294967295 bytes"),
        (spoilt(DGRL, 0, "I", 41), "labels with"),
        (spoilt(DGRL, BODY - 4, "H", 0), "with 0 bytes per unit"),
        (spoilt(DGRL, BODY - 4, "H", 65535), "with 65535 bytes per unit"),
        (spoilt(DGRL, BODY - 2, "H", 24), "24 bits per pixel"),
        (spoilt(DGRL, BODY - 24, "5s", b"UTF-8"), "b'UTF-8' labels"),
        (spoilt(DGRL, BODY + 8, "I", 2**32 - 1), "claims 4294967295 lines"),
        (spoilt(DGRL, BODY + 12, "I", 2**32 - 1), "line 0 claims 4294967295 characters"),
        (spoilt(DGRL, BODY + 28, "I", 0), "line 0 has an invalid size (5 x 0 pixels)"),
        (spoilt(DGRL, BODY + 32, "I", 0), "line 0 has an invalid size (0 x 4 pixels)"),
        (spoilt(DGRL, BODY + 28, "II", 2**32 - 1, 2**32 - 1), "an invalid size (4294967295 x 4294967295 pixels)"),
    ],
)
def test_a_damaged_dgrl_file_is_refused_in_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.dgrl"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        index_dgrl(path)
    one_line(caught.value, path, words)


def one_line(error: InputError, path: Path, words: str = "") -> None:
    assert str(error).startswith(f"{path}: ")
    assert words in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("name", ["a.gnt", "a.dgrl"])
def test_mutated_files_give_characters_or_one_line(tmp_path: Path, name: str) -> None:
    rng, path = np.random.default_rng(0), tmp_path / name
    image = noise(rng, 6, 9)
    content = gnt([("啊", image), ("A", image)] * 3) if name == "a.gnt" else dgrl([("啊A座", image)] * 4)
    read, refused = 0, 0
    for _ in range(200):
        changed = bytearray(content[: rng.integers(1, len(content) + 1) if rng.random() < 0.3 else None])
        for place in rng.integers(0, min(len(changed), 90) if rng.random() < 0.5 else len(changed), rng.integers(1, 4)):
            changed[place] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
        path.write_bytes(changed)
        try:
            if name == "a.gnt":
                boxes = index_gnt(path).boxes.tolist()
                sizes, bits = [((height, width), offset) for height, width, offset in boxes], 8
            else:
                file = index_dgrl(path)
                sizes, bits = [(line.size, line.offset) for line in file.lines], file.bits
        except InputError as error:
            one_line(error, path)
            refused += 1
            continue
        for size, offset in sizes:
            assert read_bitmap(path, offset, size, bits).shape == size
        read += 1
    assert read > 25
    assert refused > 25


def test_a_file_that_went_or_shrank_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gnt"
    path.write_bytes(GNT)
    height, width, offset = index_gnt(path).boxes[1].tolist()
    path.write_bytes(GNT[:-1])
    with pytest.raises(InputError, match="has become shorter"):
        read_bitmap(path, offset, (height, width))
    path.unlink()
    with pytest.raises(InputError, match="No such file"):
        read_bitmap(path, offset, (height, width))


def test_a_file_is_not_loaded_for_its_index(tmp_path: Path) -> None:
    path = tmp_path / "a.gnt"
    with open(path, "wb") as file:  # one record of a gigabyte, of which the disk holds the head only
        file.write(struct.pack("<I2sHH", 10 + 65535 * 16384, b"\xb0\xa1", 65535, 16384))
        file.truncate(10 + 65535 * 16384)
        file.seek(0, 2)
        file.write(GNT)
    tracemalloc.start()
    assert len(index_gnt(path).labels) == 3
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
