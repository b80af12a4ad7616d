"""Load images as greyscale arrays and reduce their size."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import Condition

import cv2
import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from htr_lightning.data.avif import largest_frame
from htr_lightning.data.files import is_special
from htr_lightning.data.grey import grey
from htr_lightning.errors import InputError

MIN_SIDE = 3  # pixels; a smaller image cannot contain a character
MAX_SIDE = 100_000  # pixels; a larger value indicates a corrupted header
MAX_PIXELS = 260_000_000  # an A0 sheet at 400 dpi has 248 million pixels
MAX_COLOURED = 140_000_000  # each pixel takes up to eight bytes; an A1 sheet at 400 dpi has 124 million pixels
AT_ONCE = 140_000_000  # pixels that threads decode at the same time, unless a single image has more
MAX_PAGES = 1000  # of a TIFF file
MAX_HEAVY = 80_000_000  # in colour in formats whose decoders take up to 24 bytes; an A2 sheet at 400 dpi has 62 million
HEAVY = ("JPEG2000", "WEBP", "AVIF")
MAX_SCANS = 50  # of a progressive JPEG, which normally has about ten; each one passes over the whole image
MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # start of a JPEG segment that states its length
SCAN, END = b"\xff\xda", b"\xff\xd9"
LEVELS = np.arange(256, dtype=np.float64)  # grey levels
LINE_PIXELS = 50_000_000  # maximum number of pixels in a line, e.g. 100,000 x 500
ORIENTATION = ExifTags.Base.Orientation
KIND, COPY, MASK = ExifTags.Base.NewSubfileType, 1, 4  # TIFF subfile types: reduced copy and transparency mask
# Pillow's decoders for other formats run external programs, are slow or are rarely used
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "WEBP", "GIF", "PPM", "JPEG2000", "AVIF")
# Endings of file names in these formats; those in the last row are unknown to Pillow
SUFFIXES = (
    *(ending for form in FORMATS for ending, of in Image.registered_extensions().items() if of == form),
    *(".mpo", ".jif", ".jfi", ".pjp", ".pjpeg", ".btf", ".tf8"),
)
# Endings of images and scans in other formats, which are reported instead of being ignored
OTHER_SUFFIXES = (
    ".ai", ".arw", ".bpg", ".cr2", ".cr3", ".crw", ".cur", ".dcm", ".dcx", ".dds", ".djv", ".djvu", ".dng", ".emf",
    ".eps", ".exr", ".fits", ".hdr", ".heic", ".heics", ".heif", ".hif", ".icns", ".ico", ".jb2", ".jbig", ".jbig2",
    ".jls", ".jng", ".jpm", ".jxl", ".jxr", ".nef", ".orf", ".pcd", ".pct", ".pcx", ".pdf", ".pef", ".pic", ".pict",
    ".ps", ".psb", ".psd", ".pxm", ".qoi", ".raf", ".ras", ".rw2", ".sgi", ".sr", ".srw", ".svg", ".svgz", ".tga",
    ".wbmp", ".wdp", ".wmf", ".xbm", ".xcf", ".xpm", ".xps"
)  # fmt: skip
HEADER = 16384  # bytes; enough to find the image size in almost all files

Image.MAX_IMAGE_PIXELS = None  # Pillow would only warn, whereas `read_image` raises an error
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")  # about damaged metadata, which is common in scans


def read_image(
    path: str | Path,
    size: tuple[int, int] | None = None,
    content: bytes | memoryview | None = None,
    max_pixels: int = MAX_PIXELS,
) -> UInt8[ndarray, "H W"]:
    """Load an image as greyscale, rotated according to its EXIF orientation.

    Args:
        path: path to an image in one of `FORMATS`; transparent pixels become white.
        size: expected (height, width). Some programs annotate the stored pixels and ignore EXIF, so if only the
            unrotated image has this size, it is returned.
        content: content of the file, for images stored in a table; `path` is then used only in error messages.
        max_pixels: maximum number of pixels, checked before decoding.

    Raises:
        InputError: if the file is missing, not an image, truncated or too large.
    """
    with decoded(path, content, max_pixels) as image:
        pixels, orientation = grey(image), image.getexif().get(ORIENTATION, 1)
    if orientation == 1:
        return pixels
    stored = Image.fromarray(pixels)  # rotated in grey, because colours take four times the memory
    stored.getexif()[ORIENTATION] = orientation
    turned: UInt8[ndarray, "H W"] = np.array(ImageOps.exif_transpose(stored))
    return pixels if size is not None and turned.shape != size and pixels.shape == size else turned


@contextmanager
def decoded(
    path: str | Path, content: bytes | memoryview | None = None, max_pixels: int = MAX_PIXELS
) -> Iterator[Image.Image]:
    """Open and decode an image in its own colours, before its EXIF orientation is applied; see `read_image`.

    Raises:
        InputError: if the file is missing, not an image, truncated or too large, or using the image fails.
    """
    with _opened(path, content, max_pixels) as image, _decoding(image.width * image.height):
        _check_scans(image)
        image.load()  # rotates a TIFF, which would otherwise be rotated twice
        _check_palette(image)
        yield image


def image_size(
    path: str | Path, content: bytes | memoryview | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """Return the (height, width) of the image that `read_image` would return, reading only the file header.

    Args:
        path: path to the image.
        content: content of the file (see `read_image`).
        max_pixels: maximum number of pixels.

    Raises:
        InputError: if the file is missing, not an image or too large.
    """
    if content is not None and len(content) > HEADER:
        try:
            return image_size(path, content[:HEADER], max_pixels)  # avoids reading the rest of a memory-mapped file
        except InputError:
            pass  # an unusually long header, or an error that is raised again below
    with _opened(path, content, max_pixels) as image:
        # Pillow rotates a TIFF when opening it. A PNG with EXIF data after its pixels would have to be decoded first.
        stated = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
        sideways = stated and image.getexif().get(ORIENTATION) in (5, 6, 7, 8)
        return (image.width, image.height) if sideways else (image.height, image.width)


def read_size(path: str | Path, size: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) of an image, reading only the file header.

    Args:
        path: path to the image.
        size: expected (height, width), returned if the image has this size after a quarter turn.

    Raises:
        InputError: if the file is missing, not an image or too large.
    """
    with _opened(path) as image:
        return size if (image.width, image.height) == size else (image.height, image.width)


@contextmanager
def _opened(
    path: str | Path, content: bytes | memoryview | None = None, max_pixels: int = MAX_PIXELS
) -> Iterator[Image.Image]:
    """Open an image, check its size before decoding it, and convert errors into InputErrors that name the file."""
    if content is None and is_special(Path(path)):
        raise InputError(f"{path}: not a regular file; save the image as a file first")
    try:
        # Given a path, Pillow would memory-map an uncompressed TIFF and corrupt it when rotating.
        with (
            open(path, "rb") if content is None else BytesIO(content) as file,
            Image.open(file, formats=FORMATS) as image,
        ):
            limit = max_pixels
            if image.mode not in ("1", "L", "P"):
                limit = min(limit, MAX_HEAVY if image.format in HEAVY else MAX_COLOURED)
            if max(image.size) > MAX_SIDE or image.size[0] * image.size[1] > limit:
                raise InputError(
                    f"{path}: the image is too large ({image.size[0]} x {image.size[1]} pixels); crop it or scale it "
                    "down"
                )
            # Cameras append previews to a photo (MPO).
            if image.format not in ("MPO", "TIFF") and getattr(image, "is_animated", False):
                raise InputError(f"{path}: a sequence of images; save one of them as PNG")
            if image.format == "AVIF":
                file.seek(0)
                if (pixels := largest_frame(file.read())) > limit:
                    raise InputError(f"{path}: contains a frame of {pixels:,} pixels; save the image as PNG")
            if isinstance(image, TiffImageFile) and (pages := _pages(image)) > 1:
                count = f"{pages} pages" if pages < MAX_PAGES else f"at least {MAX_PAGES:,} pages"
                raise InputError(f"{path}: contains {count}; split it into one file per page, e.g. with tiffsplit")
            yield image
    except InputError:
        raise
    except IsADirectoryError:
        raise InputError(f"{path}: a folder, not an image; use the path of an image") from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; check the path, or the list that contains it") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image in a supported format; convert it to PNG, JPEG or TIFF") from None
    except Exception as error:  # decoders can raise anything for a corrupted file
        if isinstance(error, OSError) and error.strerror:
            raise InputError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: the image is corrupted or truncated ({reason}); download it again") from None


class _Decoding:
    """A limit on the number of pixels that the threads of this process decode at the same time."""

    def __init__(self) -> None:
        self._changed, self._pixels = Condition(), 0

    @contextmanager
    def __call__(self, pixels: int) -> Iterator[None]:
        """Wait until an image with a number of pixels may be decoded, and count it until the end of the block."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pixels or self._pixels + pixels <= AT_ONCE)
            self._pixels += pixels
        try:
            yield
        finally:
            with self._changed:
                self._pixels -= pixels
                self._changed.notify_all()


_decoding = _Decoding()


def _check_scans(image: Image.Image) -> None:
    """Raise ValueError if a JPEG file has so many scans that decoding it would take minutes."""
    if not isinstance(image, JpegImageFile) or image.fp is None:
        return
    image.fp.seek(0)
    content = image.fp.read(4 * image.width * image.height + (1 << 24))  # more than the pixels and metadata take
    scans, position = 0, 2
    while (found := MARKER.search(content, position)) and found[0] != END:
        scans += found[0] == SCAN
        if scans > MAX_SCANS:
            raise ValueError(f"more than {MAX_SCANS} scans")
        position = found.end() + int.from_bytes(content[found.end() : found.end() + 2])  # skip the segment


def _check_palette(image: Image.Image) -> None:
    """Raise ValueError if a pixel of a PNG has no colour in the palette; Pillow would make it black."""
    if image.format == "PNG" and image.mode == "P" and image.palette is not None:
        colours = len(image.palette.getdata()[1]) // len(image.palette.mode)
        if (largest := int(np.max(image.getextrema()))) >= colours:
            raise ValueError(f"colour {largest} of a palette of {colours}")


def _pages(image: TiffImageFile) -> int:
    """Return the number of images in a TIFF file, excluding reduced copies and masks, and select the first one.

    At most `MAX_PAGES` images are examined, because `n_frames` takes minutes for a file of a few megabytes.
    """
    pages = []
    for frame in range(MAX_PAGES):
        try:
            image.seek(frame)
        except EOFError:
            break
        if not image.tag_v2.get(KIND, 0) & (COPY | MASK):
            pages.append(frame)
    image.seek(pages[0] if pages else 0)
    return len(pages)


def histogram(image: UInt8[ndarray, "H W"]) -> Float64[ndarray, "256"]:
    """Return the number of pixels at each grey level."""
    return cv2.calcHist([image], [0], None, [256], (0, 256)).ravel().astype(np.float64)  # twice as fast as bincount


def shrink_to_height(image: UInt8[ndarray, "H W"], height: int) -> UInt8[ndarray, "h w"]:
    """Scale an image down to at most `height` rows, averaging by area, since subsampling would break thin strokes."""
    size = shrunk_size((image.shape[0], image.shape[1]), height)
    return image if size == image.shape else cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def shrunk_size(size: tuple[int, int], height: int) -> tuple[int, int]:
    """Return the (height, width) of the image that `shrink_to_height` returns."""
    return size if size[0] <= height else (height, max(1, round(size[1] * height / size[0])))


def reduce_rows(image: UInt8[ndarray, "H W"], rows: int | None) -> UInt8[ndarray, "h w"]:
    """Scale an image down to at most `rows` rows, averaging by area and keeping its aspect ratio.

    An image that would become too narrow is returned unchanged, as is any image if `rows` is None.
    """
    if reduced_size((image.shape[0], image.shape[1]), rows) == image.shape:
        return image
    assert rows is not None
    return shrink_to_height(image, rows)


def reduced_size(size: tuple[int, int], rows: int | None) -> tuple[int, int]:
    """Return the (height, width) of the image that `reduce_rows` returns for an image of the given (height, width)."""
    small = size if rows is None else shrunk_size(size, rows)
    return small if small[1] >= MIN_SIDE else size
