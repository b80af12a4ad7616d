"""Measure the frames of an AVIF image.

The decoder allocates frames of the size stated in the AV1 data, which may be larger than the size of the image that the
container states. The boxes of the container are defined in ISO/IEC 14496-12, the open bitstream units (OBUs) in
sections 5.3 to 5.5 of the AV1 specification.
"""

from collections.abc import Iterator

SEQUENCE_HEADER = 1  # type of the OBU that states the size of frames


def largest_frame(content: bytes | memoryview) -> int:
    """Return the number of pixels in the largest frame of an AVIF image.

    Raises:
        ValueError: if the image is corrupted, or an image sequence.
    """
    content = memoryview(content)
    if bytes(_box(content, b"ftyp")[:4]) == b"avis":
        raise ValueError("image sequence")
    inside = _box(content, b"meta")[4:]
    pixels = [
        _frame_pixels(_Bits(body))
        for item in _coded_items(content, inside)
        for kind, body in _obus(item)
        if kind == SEQUENCE_HEADER
    ]
    return max(pixels)  # raises ValueError if there is no frame


class _Bits:
    """A reader of unsigned big-endian integers of any number of bits."""

    def __init__(self, content: memoryview) -> None:
        self._content, self._position = content, 0

    def __call__(self, count: int) -> int:
        self._position += count
        first, end = (self._position - count) // 8, -(-self._position // 8)
        if end > len(self._content):
            raise ValueError("truncated")
        return int.from_bytes(self._content[first:end]) >> (8 * end - self._position) & ((1 << count) - 1)


def _boxes(content: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the type and the content of each box."""
    while content:
        bits, start = _Bits(content), 8
        size, kind = bits(32), bits(32).to_bytes(4)
        if size == 1:
            size, start = bits(64), 16
        elif size == 0:
            size = len(content)
        if not start <= size <= len(content):
            raise ValueError("truncated")
        yield kind, content[start:size]
        content = content[size:]


def _box(content: memoryview, kind: bytes) -> memoryview:
    """Return the content of the only box of a type."""
    (found,) = [body for one, body in _boxes(content) if one == kind]
    return found


def _coded_items(content: memoryview, meta: memoryview) -> Iterator[memoryview]:
    """Yield the data of each item with AV1 frames."""
    entries = _box(meta, b"iinf")
    coded = set()
    for _, entry in _boxes(entries[6 if entries[:1] == b"\0" else 8 :]):
        bits = _Bits(entry)
        version, _ = bits(8), bits(24)
        id, _ = bits(32 if version == 3 else 16), bits(16)
        if version >= 2 and bits(32).to_bytes(4) == b"av01":
            coded.add(id)
    bits = _Bits(_box(meta, b"iloc"))
    version, _ = bits(8), bits(24)
    offset_size, length_size, base_size, index_size = (8 * bits(4) for _ in range(4))
    for _ in range(bits(32 if version == 2 else 16)):
        id = bits(32 if version == 2 else 16)
        method = bits(16) if version else 0
        bits(16)
        base = bits(base_size)
        data = b""
        for _ in range(bits(16)):
            bits(index_size if version else 0)
            start, length = base + bits(offset_size), bits(length_size)
            if id in coded:
                source = content if method == 0 else _box(meta, b"idat")
                if method > 1 or start + length + len(data) > len(source):
                    raise ValueError("truncated")
                data += source[start : start + length] if length else source[start:]
        if id in coded:
            yield memoryview(data)


def _obus(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the type and the content of each OBU."""
    while data:
        bits = _Bits(data)
        bits(1)
        kind, has_extension, has_size, _ = bits(4), bits(1), bits(1), bits(1)
        start = 1 + has_extension
        size = len(data) - start
        if has_size:
            size = 0
            bits(8 * has_extension)
            for place in range(8):
                start += 1
                more, part = bits(1), bits(7)
                size |= part << (7 * place)
                if not more:
                    break
        if start + size > len(data):
            raise ValueError("truncated")
        yield kind, data[start : start + size]
        data = data[start + size :]


def _frame_pixels(bits: _Bits) -> int:
    """Return the number of pixels of the frames that follow a sequence header."""
    bits(4)
    if bits(1):  # a still picture
        bits(5)
    else:
        if bits(1):
            raise ValueError("timing information, as in a video")
        has_delay, points = bits(1), bits(5) + 1
        for _ in range(points):
            bits(12)
            bits(bits(5) > 7)
            bits(4 * (has_delay and bits(1)))
    width_bits, height_bits = bits(4) + 1, bits(4) + 1
    return (bits(width_bits) + 1) * (bits(height_bits) + 1)
