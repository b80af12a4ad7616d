"""Images as grey arrays: reading files, detecting the polarity, reducing the size."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from htr_lightning.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".pgm", ".jp2")
MAX_SIDE = 100_000  # pixels; more is a broken header, not a scan
MAX_PIXELS = 260_000_000  # an A0 sheet at 400 dpi has 248 million
MAX_COLOURED = 140_000_000  # of four bytes, twice that in conversion: an A1 sheet at 400 dpi has 124 million
LEVELS = np.arange(256, dtype=np.float64)  # of grey
LINE_PIXELS = 50_000_000  # a line of 500 x 100,000
ORIENTATION = ExifTags.Base.Orientation
KIND, COPY, MASK = ExifTags.Base.NewSubfileType, 1, 4  # of an image in a TIFF file: reduced copy, transparency mask
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM", "JPEG2000")  # others run programs or take long
HEADER = 16384  # bytes of an image file; its size is usually stated within them

Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit only warns; `read_image` refuses


def read_image(
    path: str | Path,
    size: tuple[int, int] | None = None,
    content: bytes | memoryview | None = None,
    max_pixels: int = MAX_PIXELS,
) -> UInt8[ndarray, "H W"]:
    """The image in a file as grey levels, rotated as its EXIF tag says.

    Args:
        path: of an image in one of `FORMATS`; transparent pixels become white.
        size: expected (height, width). Some exports annotate the pixels as stored and ignore EXIF: if only the image
            before rotation has this size, that one is returned.
        content: the bytes of the file, for images in a table; `path` is then its name in messages.
        max_pixels: a larger image is refused before it is decoded.

    Raises:
        InputError: the file is missing, not an image, truncated or too large.
    """
    with _opened(path, content, max_pixels) as image:
        image.load()  # this rotates a TIFF, which would otherwise happen a second time later
        stored = image.height, image.width
        turns = image.getexif().get(ORIENTATION, 1) != 1
        turned = ImageOps.exif_transpose(image) if turns else image  # it copies an image that it does not rotate
        if size is not None and (turned.height, turned.width) != size and stored == size:
            turned = image
        return grey(turned)


def image_size(
    path: str | Path, content: bytes | memoryview | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """Height and width that `read_image` would return, from the file's header alone.

    Raises:
        InputError: the file is missing, not an image or too large.
    """
    if content is not None and len(content) > HEADER:
        try:
            return image_size(path, content[:HEADER], max_pixels)  # the rest of a mapped file stays on the disk
        except InputError:
            pass  # a longer header than usual, or an error that is raised below
    with _opened(path, content, max_pixels) as image:
        # A TIFF is rotated when it is opened; for a tag behind the pixels a PNG would have to be decoded.
        stated = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
        sideways = stated and image.getexif().get(ORIENTATION) in (5, 6, 7, 8)
        return (image.width, image.height) if sideways else (image.height, image.width)


def read_size(path: str | Path, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of an image, from its header alone; `size` if that is the same rotated by a quarter turn.

    Raises:
        InputError: the file is missing, not an image or too large.
    """
    with _opened(path) as image:
        return size if (image.width, image.height) == size else (image.height, image.width)


@contextmanager
def _opened(
    path: str | Path, content: bytes | memoryview | None = None, max_pixels: int = MAX_PIXELS
) -> Iterator[Image.Image]:
    """An image of acceptable size, its pixels not yet decoded; errors while it is open name the file."""
    try:
        # Given a path, Pillow would map an uncompressed TIFF into memory, and scramble one that is to be rotated.
        with (
            open(path, "rb") if content is None else BytesIO(content) as file,
            Image.open(file, formats=FORMATS) as image,
        ):
            limit = max_pixels if image.mode in ("1", "L", "P") else min(max_pixels, MAX_COLOURED)
            if max(image.size) > MAX_SIDE or image.size[0] * image.size[1] > limit:
                raise InputError(
                    f"{path}: {image.size[0]} x {image.size[1]} pixels are too many for a page; crop or scale it"
                )
            if isinstance(image, TiffImageFile) and (pages := _pages(image)) > 1:
                raise InputError(f"{path}: has {pages} pages in one file; split it, e.g. with tiffsplit")  # fmt: skip
            yield image
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; check the path or the name in the list that gave it") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image that can be read; convert it to PNG, JPEG or TIFF") from None
    except Exception as error:  # for a damaged header its decoders raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: the image is damaged or truncated ({reason}); copy it again") from None


def _pages(image: TiffImageFile) -> int:
    """Number of images in a TIFF file, without reduced copies and masks; afterwards the first one is open."""
    if image.n_frames == 1:
        return 1
    pages = []
    for frame in range(image.n_frames):
        image.seek(frame)
        if not image.tag_v2.get(KIND, 0) & (COPY | MASK):
            pages.append(frame)
    image.seek(pages[0] if pages else 0)
    return len(pages)


def grey(image: Image.Image) -> UInt8[ndarray, "H W"]:
    """A Pillow image of any mode as 8-bit grey levels.

    With more bits, the eight highest in use are kept, since scanners store 12 bits in 16; floats are fractions
    of white, or 8 or 16-bit values if they are larger.
    """
    if image.mode == "F":
        floats = np.nan_to_num(np.asarray(image))
        white = next((white for white in (1, 255) if floats.max(initial=0) <= white), 65535)
        return (floats * (255 / white)).round().clip(0, 255).astype(np.uint8)
    if image.mode.startswith("I"):
        pixels = np.asarray(image)
        spare = max(0, int(pixels.max(initial=0)).bit_length() - 8)
        return (pixels >> spare).clip(0, 255).astype(np.uint8)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image if image.mode == "L" else image.convert("L"))


def histogram(image: UInt8[ndarray, "H W"]) -> Float64[ndarray, "256"]:
    """The number of pixels of each grey level."""
    return cv2.calcHist([image], [0], None, [256], (0, 256)).ravel().astype(np.float64)  # twice as fast as bincount


def light_on_dark(counts: Float64[ndarray, "256"]) -> bool:
    """Whether an image with this histogram has light ink on dark paper.

    Ink covers the smaller part of a line, so the distribution of brightness has its long tail on the side of the ink:
    the polarity is the sign of the third central moment. An image without contrast counts as dark on light.
    """
    deviation = LEVELS - (counts @ LEVELS) / counts.sum()
    return bool(np.count_nonzero(counts) > 1 and counts @ (deviation * deviation * deviation) > 0)


def dark_on_light(image: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "H W"]:
    """The image with dark ink on light paper, inverted if need be."""
    return 255 - image if light_on_dark(histogram(image)) else image


def shrink_to_height(image: UInt8[ndarray, "H W"], height: int) -> UInt8[ndarray, "h w"]:
    """The image at most `height` pixels high, aspect kept; averaged by area: sampling would break thin strokes."""
    size = shrunk_size((image.shape[0], image.shape[1]), height)
    return image if size == image.shape else cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def shrunk_size(size: tuple[int, int], height: int) -> tuple[int, int]:
    """The (height, width) that `shrink_to_height` returns."""
    return size if size[0] <= height else (height, max(1, round(size[1] * height / size[0])))
