"""Convert images and arrays of any kind to 8-bit greyscale, in strips, so that colours are never held twice."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

STRIP = 1 << 20  # maximum number of pixels in a strip, unless a row has more
CONTRAST = 64  # minimum grey levels between paper and ink in the visible part of a picture that includes paper


def grey(image: Image.Image) -> UInt8[ndarray, "H W"]:
    """Convert a Pillow image in any mode to 8-bit greyscale.

    If pixels have more than 8 bits, the 8 highest bits in use are kept, since scanners may store 12 bits in 16. Floats
    are interpreted as values in [0, 1], [0, 255] or [0, 65535], whichever is the smallest range that contains all
    finite ones; NaN becomes black. Transparent pixels become the grey level that `_background` chooses.

    Raises:
        ValueError: if an integer is negative.
    """
    convert: Callable[[Image.Image], ndarray]
    if image.mode == "F":
        peak = max(np.nan_to_num(np.asarray(strip), posinf=0).max() for strip in _strips(image))
        white = next((white for white in (1, 255) if peak <= white), 65535)

        def convert(strip: Image.Image) -> ndarray:
            finite = np.nan_to_num(np.asarray(strip), posinf=white, neginf=0)
            return (finite * (255 / white)).round().clip(0, 255)
    elif image.mode.startswith("I"):
        if any(np.asarray(strip).min() < 0 for strip in _strips(image)):
            raise ValueError("negative values")
        spare = max(0, max(int(np.asarray(strip).max()) for strip in _strips(image)).bit_length() - 8)

        def convert(strip: Image.Image) -> ndarray:
            return (np.asarray(strip) >> spare).clip(0, 255)
    elif image.mode == "LAB":

        def convert(strip: Image.Image) -> ndarray:
            return np.asarray(strip.getchannel("L"))
    elif "A" in image.getbands() or "transparency" in image.info:
        background = _background(image)

        def convert(strip: Image.Image) -> ndarray:
            strip = strip.convert("RGBA")
            if background is not None:
                strip = Image.alpha_composite(Image.new("RGBA", strip.size, (background,) * 3), strip)
            return np.asarray(strip.convert("L"))
    else:

        def convert(strip: Image.Image) -> ndarray:
            return np.asarray(strip.convert("L"))

    pixels, top = np.empty((image.height, image.width), np.uint8), 0
    for strip in _strips(image):
        pixels[top : top + strip.height] = convert(strip)
        top += strip.height
    return pixels


def _strips(image: Image.Image) -> Iterator[Image.Image]:
    rows = max(1, STRIP // max(1, image.width))
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def _background(image: Image.Image) -> int | None:
    """Return the grey level to put behind a transparent picture, or None if it is to be read as an opaque one.

    If only ink is visible, it is white, or black for light ink. If most of a sheet of paper is visible, it is the grey
    level of the paper. A picture of which nothing is visible has a wrong alpha channel.
    """
    weights = np.zeros(256)  # visible area at each grey level
    for strip in _strips(image):
        levels, alpha = (np.asarray(band).ravel() for band in strip.convert("RGBA").convert("LA").split())
        weights += np.bincount(levels, alpha, minlength=256)
    visible = weights.sum()
    if not visible:
        return None
    darkest, middle, lightest = np.searchsorted(weights.cumsum(), np.multiply((0.01, 0.5, 0.99), visible)).tolist()
    if visible > 255 * image.width * image.height / 2 and lightest - darkest >= CONTRAST:
        return int(middle)
    return 0 if darkest > 127 else 255


def grey_array(array: ndarray) -> UInt8[ndarray, "H W"]:
    """Convert an array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) to 8-bit greyscale.

    Integers are interpreted as values in [0, 255]; if any is larger, up to 65535, all are reduced to 8 bits as in
    `grey`. Floats are interpreted as values in [0, 1] or, if any is greater than 1, in [0, 255]. A boolean True is
    white.

    Raises:
        ValueError: if the shape, the data type or a value is unsupported.
    """
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,), (4,)) or not array.size:
        raise ValueError(f"expected an array of shape (H, W), (H, W, 3) or (H, W, 4), got {array.shape}")
    if array.dtype.kind not in "buif":
        raise ValueError(f"expected an array of numbers, got {array.dtype}")
    lowest, highest = array.min(), array.max()
    floats = array.dtype.kind == "f"
    if not 0 <= lowest <= highest <= (255 if floats else 65535):  # false for NaN
        raise ValueError(
            f"expected values from 0 to 255{' or from 0 to 1' if floats else ''}, got {lowest} to {highest}"
        )
    if floats:
        array = (array * (255 if highest <= 1 else 1)).round()
    elif array.dtype.kind == "b":
        array = array * np.uint8(255)
    elif highest > 255:
        array = array >> (int(highest).bit_length() - 8)
    pixels = array.astype(np.uint8)
    return grey(Image.fromarray(pixels)) if pixels.shape[2:] in ((3,), (4,)) else pixels.reshape(pixels.shape[:2])
