"""What `htr_lightning.load` returns: images and files in, transcriptions out."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from htr_lightning.data.image import grey, read_image
from htr_lightning.errors import InputError
from htr_lightning.reading.transcribe import TranscribedLine, find_sources, read_images, transcribe
from htr_lightning.transcription import Transcriber, Transcription

Readable = str | Path | Image.Image | ndarray


class Reader:
    """A trained recognizer, or an ensemble of several, that reads images of lines and files.

    Args:
        transcriber: in evaluation mode, on the device to use.
    """

    def __init__(self, transcriber: Transcriber) -> None:
        self.transcriber = transcriber

    @property
    def card(self) -> dict[str, Any]:
        """What the checkpoint says about itself: alphabet, config, data, figures, versions."""
        return self.transcriber.card

    @overload
    def read(self, image: Readable, n_best: int = 0) -> Transcription: ...

    @overload
    def read(self, image: list[Readable] | tuple[Readable, ...], n_best: int = 0) -> list[Transcription]: ...

    def read(
        self, image: Readable | list[Readable] | tuple[Readable, ...], n_best: int = 0
    ) -> Transcription | list[Transcription]:
        """The text of an image of one line, or the texts of a list of them.

        Args:
            image: a file, a Pillow image or an array "H W" or "H W 3" with values 0 to 255; or a list of these.
            n_best: number of alternatives per line; 0 for none.

        Raises:
            InputError: an image cannot be read; it is named by its file, or by its index.
        """
        if not isinstance(image, list | tuple):
            return self.read([image], n_best)[0]
        images = [_to_grey(one, index) for index, one in enumerate(image)]
        found = []
        for index, outcome in enumerate(read_images(self.transcriber, images, n_best)):
            if isinstance(outcome, str):
                raise InputError(f"{_name(image[index], index)}: {outcome}")
            found.append(outcome)
        return found

    def transcribe(self, paths: str | Path | Iterable[str | Path], n_best: int = 0) -> list[TranscribedLine]:
        """Every line of some files in order; what cannot be read is in the list with its `error`.

        Args:
            paths: images, folders, globs, and PAGE, ALTO or METS files.
            n_best: see `read`.

        Raises:
            InputError: a path matches no file, or a file is neither an image nor a page.
        """
        sources, errors = find_sources([str(path) for path in ([paths] if isinstance(paths, str | Path) else paths)])
        if errors:
            raise InputError(errors[0])
        return list(transcribe(self.transcriber, sources, n_best))


def _to_grey(image: Readable, index: int) -> UInt8[ndarray, "H W"]:
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, ndarray) and image.dtype == np.uint8 and image.ndim == 2:
        return image
    try:
        return grey(Image.fromarray(image) if isinstance(image, ndarray) else image)
    except (TypeError, ValueError, AttributeError):
        raise InputError(f"{_name(image, index)}: not an image; give a file, a Pillow image, or an array of 0 to 255 "
                         "with two dimensions, or three for colour") from None  # fmt: skip


def _name(image: Readable, index: int) -> str:
    return str(image) if isinstance(image, str | Path) else f"image {index}"
