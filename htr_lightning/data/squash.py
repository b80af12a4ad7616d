"""Lines squeezed into a frame, as TrOCR sees them."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from htr_lightning.data.image import dark_on_light
from htr_lightning.data.preprocess import INK, FitFrame, Preprocess, stretch


class Squash(Preprocess):
    """The whole line in a frame of fixed size, whatever its aspect, as TrOCR was trained (Li et al., 2021,
    arXiv:2109.10282, section 3.2).

    Args:
        height: rows of the result.
        columns: columns of the result.
        contrast: whether paper is made 0 and the darkest ink 1, as `FitHeight` does; else grey levels stay as they are.
        polarity: "auto" finds light ink on dark paper and inverts it, "dark" takes ink as dark.
    """

    def __init__(self, height: int, columns: int, contrast: bool = False, polarity: str = "auto") -> None:
        self.height, self.columns, self.contrast = height, columns, contrast
        self.frame = FitFrame(height, columns, polarity)

    def width(self, size: tuple[int, int]) -> int:
        return self.columns

    def check(self, size: tuple[int, int]) -> None:
        """Raises ValueError where an image of (height, width) pixels is too small to hold a character."""
        self.frame.check(size)

    def to_array(self, image: UInt8[ndarray, "H W"]) -> Float[Tensor, "1 h w"]:
        """Raises ValueError where the image is too small to hold a character."""
        self.check((image.shape[0], image.shape[1]))
        if self.frame.polarity == "auto":
            image = dark_on_light(image)
        # Pillow averages over all pixels that it drops, on either axis; OpenCV does so only where both shrink
        grey = np.asarray(Image.fromarray(image).resize((self.columns, self.height), Image.Resampling.BILINEAR))
        return torch.from_numpy(stretch(grey) if self.contrast else INK[grey])[None]
