"""Images as grey arrays: reading files, cutting lines out of pages, finding the polarity."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageOps, UnidentifiedImageError

from htr_lightning.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".pgm", ".jp2")
MAX_SIDE = 100_000  # pixels; more is a broken header, not a scan
MAX_PIXELS = 400_000_000  # an A0 sheet at 400 dpi has 250 million
LINE_PIXELS = 50_000_000  # a line of 500 x 100,000
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM", "JPEG2000")  # others start programs or run long
HEADER = 16384  # bytes of an image file that mostly say its size
ORIENTATION = 0x0112  # the EXIF tag

Image.MAX_IMAGE_PIXELS = None  # Pillow's own bound warns; `read_image` refuses with a message instead


def read_image(
    path: str | Path,
    size: tuple[int, int] | None = None,
    content: bytes | memoryview | None = None,
    max_pixels: int = MAX_PIXELS,
) -> UInt8[ndarray, "H W"]:
    """The image of a file in grey, turned as its EXIF tag says.

    Args:
        path: of an image in one of `FORMATS`; transparent pixels become white.
        size: expected (height, width). Some exports draw on the pixels as stored and ignore EXIF: where only the
            unturned image has this size, that one is returned.
        content: the file's bytes, where they are kept in a table; `path` is then its name in messages.
        max_pixels: a larger image is refused before it is decoded.

    Raises:
        InputError: the file is missing, not an image, cut short or too large.
    """
    with _opened(path, content, max_pixels) as image:
        image.load()  # turns a TIFF already, and would do so a second time later
        stored = image.height, image.width
        turned = ImageOps.exif_transpose(image)
        if size is not None and (turned.height, turned.width) != size and stored == size:
            turned = image
        return grey(turned)


def image_size(
    path: str | Path, content: bytes | memoryview | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """Height and width that `read_image` would give, from the file's header alone.

    Raises:
        InputError: the file is missing, not an image or too large.
    """
    if content is not None and len(content) > HEADER:
        try:
            return image_size(path, content[:HEADER], max_pixels)  # leaves the rest of a mapped file on the disk
        except InputError:
            pass  # a longer header than usual, or a fault that is told below
    with _opened(path, content, max_pixels) as image:
        # A TIFF is turned when it is opened, and a PNG would be decoded to look for the tag behind its pixels.
        told = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
        sideways = told and image.getexif().get(ORIENTATION) in (5, 6, 7, 8)
        return (image.width, image.height) if sideways else (image.height, image.width)


@contextmanager
def _opened(path: str | Path, content: bytes | memoryview | None, max_pixels: int) -> Iterator[Image.Image]:
    """An image of sane size, its pixels not yet decoded; what goes wrong while it is open names the file."""
    try:
        # By its path Pillow would map an unpacked TIFF into memory, and scramble one that is to be turned.
        with (
            open(path, "rb") if content is None else BytesIO(content) as file,
            Image.open(file, formats=FORMATS) as image,
        ):
            if max(image.size) > MAX_SIDE or image.size[0] * image.size[1] > max_pixels:
                raise InputError(
                    f"{path}: {image.size[0]} x {image.size[1]} pixels is no page or line; cut or scale it"
                )
            yield image
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; check the path or the name in the list that gave it") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image that can be read; convert it to PNG, JPEG or TIFF") from None
    except Exception as error:  # of damaged bytes the decoders raise anything: struct.error, KeyError, SyntaxError, ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: the image is damaged or cut short ({reason}); copy it again") from None


def grey(image: Image.Image) -> UInt8[ndarray, "H W"]:
    """A Pillow image of any mode as 8-bit grey; 16-bit images keep their most significant bits."""
    if image.mode.startswith("I"):
        pixels = np.asarray(image, dtype=np.int64)
        return (pixels >> 8 if pixels.max(initial=0) > 255 else pixels).clip(0, 255).astype(np.uint8)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("L"))


def dark_on_light(image: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "H W"]:
    """The image with dark ink on light paper, inverted where it is the other way round.

    Ink covers the smaller part of a line, so brightness has its long tail on the ink's side: the polarity is the sign
    of the third central moment. An image without contrast is returned as it is.
    """
    counts = np.bincount(image.ravel(), minlength=256)
    levels = np.arange(256)
    deviation = levels - (counts @ levels) / image.size
    return 255 - image if np.count_nonzero(counts) > 1 and counts @ deviation**3 > 0 else image


def crop_line(
    page: UInt8[ndarray, "H W"], polygon: Sequence[tuple[float, float]], angle: float = 0.0
) -> UInt8[ndarray, "h w"]:
    """One line cut out of its page: the polygon's box, what lies outside the polygon painted in the paper's grey.

    Args:
        page: the page image.
        polygon: at least three corners (x, y) in pixels; a box is the polygon of its corners.
        angle: degrees by which the line runs downhill; it is turned level.

    Raises:
        ValueError: fewer than three corners, or nothing of the polygon lies on the page.
    """
    corners = np.asarray(polygon, dtype=np.float32).reshape(-1, 2)
    if len(corners) < 3:
        raise ValueError(f"polygon of {len(corners)} points; a line needs at least 3")
    left, top, right, bottom = page_box(corners, page.shape)
    if right - left < 1 or bottom - top < 1:
        raise ValueError("polygon encloses no pixel of the page")
    if angle:
        box = corners.clip((left, top), (right, bottom))
        x, y = (corners.min(0) + corners.max(0)) / 2
        turn = cv2.getRotationMatrix2D((float(x), float(y)), angle, 1.0)
        corners = corners @ turn[:, :2].T.astype(np.float32) + turn[:, 2].astype(np.float32)
        box = box @ turn[:, :2].T.astype(np.float32) + turn[:, 2].astype(np.float32)
        left, top = np.floor(box.min(0)).astype(int)
        right, bottom = np.ceil(box.max(0)).astype(int)
        turn[:, 2] -= (left, top)
        crop = cv2.warpAffine(page, turn, (int(right - left), int(bottom - top)), borderMode=cv2.BORDER_REPLICATE)
    else:
        crop = page[top:bottom, left:right].copy()
    inside = np.zeros(crop.shape, dtype=np.uint8)
    cv2.fillPoly(inside, [np.round(corners - (left, top)).astype(np.int32)], 1)
    covered = inside.astype(bool)
    if not covered.any():
        raise ValueError("polygon encloses no pixel of the page")
    crop[~covered] = np.median(crop[covered])
    return crop


def page_box(polygon: Sequence[tuple[float, float]] | ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the part of a polygon's box that lies on a page of (height, width)."""
    corners = np.asarray(polygon, dtype=np.float64).clip((0, 0), size[::-1])
    (left, top), (right, bottom) = np.floor(corners.min(0)), np.ceil(corners.max(0))
    return int(left), int(top), int(right), int(bottom)


def shrink_to_height(image: UInt8[ndarray, "H W"], height: int) -> UInt8[ndarray, "h w"]:
    """The image at most `height` pixels high, aspect kept; area-averaged, since sampling would break thin strokes."""
    if image.shape[0] <= height:
        return image
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
