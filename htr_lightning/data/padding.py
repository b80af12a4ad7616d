"""Pad preprocessed lines to a common width. Does not import torch."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray


def padded(
    arrays: Sequence[Float[ndarray, "H _"]], multiple: int = 1
) -> tuple[Float[ndarray, "B 1 H W"], Int64[ndarray, " B"]]:
    """Stack arrays of equal height, padded with paper to a common width that is a multiple of `multiple`.

    Returns:
        The images, and the width of each before padding.
    """
    columns = np.array([array.shape[1] for array in arrays], np.int64)
    width = -(-int(columns.max()) // multiple) * multiple
    images = np.zeros((len(arrays), 1, arrays[0].shape[0], width), arrays[0].dtype)
    for image, array in zip(images, arrays, strict=True):
        image[0, :, : array.shape[1]] = array
    return images, columns
