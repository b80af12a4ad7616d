"""Loading image files as greyscale arrays."""

import os
import random
import resource
import struct
import sys
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from subprocess import run

import numpy as np
import pytest
from PIL import Image

from htr_lightning.data import image as image_module
from htr_lightning.data.image import image_size, read_image, read_size, shrink_to_height
from htr_lightning.errors import InputError

ROWS = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20  # all pixels differ, so that any rotation is detected

# The displayed image for each value of the EXIF tag Orientation (TIFF 6.0, page 36).
SHOWN = {
    1: ROWS,
    2: np.fliplr(ROWS),
    3: np.rot90(ROWS, 2),
    4: np.flipud(ROWS),
    5: ROWS.T,
    6: np.rot90(ROWS, -1),
    7: np.rot90(ROWS, 2).T,
    8: np.rot90(ROWS, 1),
}


def save(image: Image.Image, path: Path, orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_an_image_is_rotated_as_exif_says(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = save(Image.fromarray(ROWS), tmp_path / f"turned.{suffix}", orientation)
    np.testing.assert_array_equal(read_image(path), SHOWN[orientation])
    np.testing.assert_array_equal(read_image(path, SHOWN[orientation].shape), SHOWN[orientation])


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_where_only_the_stored_pixels_have_the_stated_size_exif_is_ignored(tmp_path: Path, orientation: int) -> None:
    path = save(Image.fromarray(ROWS), tmp_path / "stored.png", orientation)
    np.testing.assert_array_equal(read_image(path, ROWS.shape), ROWS)


def test_a_file_of_several_pages_is_refused_and_one_with_a_small_copy_read(tmp_path: Path) -> None:
    pages = [Image.fromarray(ROWS), Image.fromarray(ROWS.T.copy())]
    path = tmp_path / "pages.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match=r"pages.tif: contains 2 pages; split it"):
        read_image(path)
    for kind in (1, 4):  # a reduced copy and a mask
        copy = pages[0].resize((2, 2))
        copy.encoderinfo = {"tiffinfo": {254: kind}}
        pages[0].save(path, save_all=True, append_images=[copy])
        np.testing.assert_array_equal(read_image(path), ROWS)
        whole = Image.fromarray(ROWS)
        whole.encoderinfo = {"tiffinfo": {254: 0}}
        pages[0].resize((2, 2)).save(path, save_all=True, append_images=[whole], tiffinfo={254: kind})
        np.testing.assert_array_equal(read_image(path), ROWS)
        assert image_size(path) == ROWS.shape


def png(size: tuple[int, int], content: bytes, kind: int = 0, **chunks: bytes) -> bytes:
    """A PNG of 8 bits with the given (width, height), compressed pixels, colour type and further chunks before them."""
    header = struct.pack(">2I5B", *size, 8, kind, 0, 0, 0)
    parts = [("IHDR", header), *chunks.items(), ("IDAT", content), ("IEND", b"")]
    written = [struct.pack(">I", len(body)) + name.encode() + body + struct.pack(">I", zlib.crc32(name.encode() + body))
               for name, body in parts]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def tiff(directories: int) -> bytes:
    """A TIFF with many images of 4 x 4 pixels that share their pixels."""
    entries = [(256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 16)]
    size, start = 2 + 12 * len(entries) + 4, 24
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<2H2I", *entry) for entry in entries)
    ends = [start + size * number if number < directories else 0 for number in range(1, directories + 1)]
    return struct.pack("<2sHI", b"II", 42, start) + bytes(16) + b"".join(directory + struct.pack("<I", e) for e in ends)


def progressive(scans: int) -> bytes:
    """A JPEG in which a scan that refines nothing is repeated."""
    file = BytesIO()
    Image.new("L", (512, 512), 255).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    start = content.rindex(b"\xff\xc4", 0, content.rindex(b"\xff\xda"))
    return content[:-2] + content[start:-2] * scans + content[-2:]


def code_stream(size: tuple[int, int]) -> bytes:
    """A JPEG 2000 of one tile of the given (width, height) in colour."""
    file = BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG2000", no_jp2=True)
    content = bytearray(file.getvalue())
    struct.pack_into(">8I", content, content.index(b"\xff\x51") + 6, *size, 0, 0, *size, 0, 0)
    return bytes(content)


HOSTILE = {
    "size in a header": ("png", png((2**31 - 1, 2**31 - 1), b""), "too large"),
    "colours": ("j2k", code_stream((20_000, 6_000)), "too large"),
    "one text": ("png", png((1, 1), b"", zTXt=b"a\0\0" + zlib.compress(bytes(1 << 24))), "too large"),
    "one profile": ("png", png((1, 1), b"", iCCP=b"a\0\0" + zlib.compress(bytes(1 << 24))), "too large"),
    "palette": ("png", png((2, 1), zlib.compress(b"\0\0\xff"), 3, PLTE=bytes(6)), "colour 255 of a palette of 2"),
    "pages": ("tif", tiff(50_000), "at least 1,000 pages"),
    "scans": ("jpg", progressive(100), "more than 50 scans"),
    "header of text": ("pgm", b"P5\n999999999999 999999999999\n65535\n", "too long"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_small_file_cannot_make_its_reader_wait_or_run_out_of_memory(tmp_path: Path, name: str) -> None:
    suffix, content, message = HOSTILE[name]
    path = tmp_path / f"hostile.{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"hostile\.{suffix}.*{message}"):
        read_image(path)


def test_a_jpeg_with_the_usual_number_of_scans_is_read(tmp_path: Path) -> None:
    thumbnail_and_video = b"\xff\xda" * 100  # in metadata and after the end, where phones append a video
    content = progressive(20)
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail_and_video)) + thumbnail_and_video
    (tmp_path / "x.jpg").write_bytes(content[:2] + segment + content[2:] + thumbnail_and_video)
    assert (read_image(tmp_path / "x.jpg") == 255).all()


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_a_sequence_of_images_is_refused_because_all_but_the_first_would_be_lost(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"both.{suffix}"
    Image.fromarray(ROWS).save(path, save_all=True, append_images=[Image.fromarray(255 - ROWS)])
    with pytest.raises(InputError, match=rf"both\.{suffix}: a sequence of images; save one"):
        read_image(path)


def test_a_pipe_a_device_and_a_link_to_itself_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "loop.png").symlink_to("loop.png")
    for name, message in (("pipe", "not a regular file"), ("device", "not a regular"), ("loop", "cannot be read")):
        for read in (read_image, image_size):
            with pytest.raises(InputError, match=rf"{name}\.png: {message}"):
                read(tmp_path / f"{name}.png")


def test_a_truncated_jpeg_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"short\.jpg"):
        read_image(path)


@pytest.mark.parametrize(
    "content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"<svg/>", b"%PDF-1.7"]
)
def test_a_file_that_is_not_an_image_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "text.jpg").write_bytes(content)
    with pytest.raises(InputError, match=r"text\.jpg"):
        read_image(tmp_path / "text.jpg")


def test_a_missing_image_and_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.png: no such image"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(InputError, match=tmp_path.name):
        read_image(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "gif", "webp", "pgm"])
def test_a_damaged_image_is_read_or_refused_but_nothing_else(tmp_path: Path, suffix: str) -> None:
    dice = random.Random(suffix)
    good = tmp_path / f"good.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32), dtype=np.uint8)).save(good)
    content, path = good.read_bytes(), tmp_path / f"bad.{suffix}"
    refused: list[str] = []
    for attempt in range(60):
        damaged = bytearray(content[: dice.randrange(1, len(content))] if attempt < 20 else content)
        for _ in range(0 if attempt < 20 else 4):
            damaged[dice.randrange(min(len(damaged), 200))] = dice.randrange(256)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warnings about data that it repairs
            try:
                assert read_image(path).dtype == np.uint8
            except InputError as error:
                refused.append(str(error))
    assert refused
    assert all(f"bad.{suffix}" in message for message in refused)


def header(kind: str, width: int, height: int) -> bytes:
    """Return an image file whose header states a size but which contains almost no pixels."""
    if kind == "pgm":
        return f"P5 {width} {height} 255\n".encode()
    if kind == "bmp":
        return b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    colour = {"png": 0, "png_rgba": 6}[kind]
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" * 99)),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


@pytest.mark.parametrize(("kind", "side"), [("png", 50_000), ("png_rgba", 12_000), ("bmp", 50_000), ("pgm", 50_000)])
def test_a_header_that_promises_too_much_is_refused_before_memory_is_taken(
    tmp_path: Path, kind: str, side: int
) -> None:
    path = tmp_path / f"huge.{kind[:3]}"
    path.write_bytes(header(kind, side, side))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (read_image, partial(read_size, size=(1, 1))):
        with pytest.raises(InputError, match=rf"huge\.\w+: .*{side} x {side} pixels"):
            read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_the_size_is_read_off_the_header(tmp_path: Path) -> None:
    Image.fromarray(ROWS).save(tmp_path / "a.png")
    assert read_size(tmp_path / "a.png", (99, 99)) == (3, 4)
    assert read_size(tmp_path / "a.png", (4, 3)) == (4, 3)  # as rotated by EXIF


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "huge.pgm").write_bytes(b"P5 90000 90000 255\n")
    with pytest.raises(InputError, match="90000 x 90000"):
        read_image(tmp_path / "huge.pgm")


def test_shrinking_keeps_aspect_and_ink_and_never_enlarges() -> None:
    image = np.random.default_rng(0).integers(0, 256, (100, 333), dtype=np.uint8)
    small = shrink_to_height(image, 40)
    assert small.shape == (40, round(333 * 0.4))
    assert float(small.mean()) == pytest.approx(float(image.mean()), abs=1)
    np.testing.assert_array_equal(shrink_to_height(image, 100), image)
    assert shrink_to_height(np.zeros((900, 2), np.uint8), 10).shape == (10, 1)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "bmp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kept", ["file", "bytes"])
def test_the_size_of_an_image_is_read_from_its_header(tmp_path: Path, suffix: str, orientation: int, kept: str) -> None:
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise = np.random.default_rng(0).integers(0, 256, (200, 310), dtype=np.uint8)
    Image.fromarray(noise).save(path, **({} if suffix == "bmp" else {"exif": exif}))
    content = None if kept == "file" else path.read_bytes()
    image = read_image("row 1" if content else path, content=content)
    assert image_size(path, content) == image.shape
    assert image.shape == ((310, 200) if orientation > 4 and suffix != "bmp" else (200, 310))


def test_the_size_of_a_truncated_image_is_known_and_that_of_another_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "short.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 310), dtype=np.uint8)).save(path)
    assert image_size(path, path.read_bytes()[:40_000]) == (200, 310)
    for content in (b"", b"no image", bytes(50_000)):
        with pytest.raises(InputError, match="row 7: not an image"):
            image_size("row 7", content)
    with pytest.raises(InputError, match=r"row 7: .*310 x 200 pixels"):
        image_size("row 7", path.read_bytes(), max_pixels=60_000)
    with pytest.raises(InputError, match=r"row 7: .*310 x 200 pixels"):
        read_image("row 7", content=path.read_bytes(), max_pixels=60_000)


def test_formats_that_start_programs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "line.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n")
    with pytest.raises(InputError, match=r"line\.png: not an image"):
        read_image(tmp_path / "line.png")


def test_threads_decode_a_limited_number_of_pixels_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert, running, together = image_module.grey, [], []

    def slow(image: Image.Image) -> np.ndarray:
        running.append(image.width * image.height)
        together.append(list(running))
        time.sleep(0.01)
        running.remove(image.width * image.height)
        return convert(image)

    monkeypatch.setattr(image_module, "AT_ONCE", 600)
    monkeypatch.setattr(image_module, "grey", slow)
    sizes = [(10, 20), (20, 20), (30, 30), (5, 5)] * 4  # one kind is larger than the limit
    for number, size in enumerate(sizes):
        Image.new("L", size).save(tmp_path / f"{number}.png")
    (tmp_path / "damaged.png").write_bytes((tmp_path / "2.png").read_bytes()[:-30])
    with pytest.raises(InputError, match="corrupted or truncated"):
        read_image(tmp_path / "damaged.png")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read_image, [tmp_path / f"{number}.png" for number in range(len(sizes))]))
    assert [image.shape[::-1] for image in found] == sizes
    assert all(sum(pixels) <= 600 or pixels == [900] for pixels in together)


def test_damaged_metadata_does_not_print_warnings(tmp_path: Path) -> None:
    """Pillow warns of an EXIF block whose software tag claims more text than there is."""
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHII", 8, 1, 305, 2, 5000, 26) + b"text"
    path = tmp_path / "line.jpg"
    Image.fromarray(np.full((20, 60), 200, np.uint8)).save(path, exif=exif)
    read = "import sys; from htr_lightning.data.image import read_image; print(read_image(sys.argv[1]).shape)"
    noisy = "import sys; from PIL import Image; Image.open(sys.argv[1]).getexif()[305]"
    assert "Warning" in run([sys.executable, "-c", noisy, str(path)], capture_output=True, text=True).stderr
    done = run([sys.executable, "-c", read, str(path)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("(20, 60)\n", "")
