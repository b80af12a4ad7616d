"""The `Reader` returned by `htr_lightning.load`, which transcribes images and files."""

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
    """A trained recognizer, or an ensemble of several, that transcribes images and files.

    Args:
        transcriber: recognizer or ensemble in eval mode, on the device to use.
    """

    def __init__(self, transcriber: Transcriber) -> None:
        self.transcriber = transcriber

    @property
    def card(self) -> dict[str, Any]:
        """The metadata of the checkpoint: alphabet, config, data, metrics and versions."""
        return self.transcriber.card

    @overload
    def read(self, image: Readable, n_best: int = 0) -> Transcription: ...

    @overload
    def read(self, image: list[Readable] | tuple[Readable, ...], n_best: int = 0) -> list[Transcription]: ...

    def read(
        self, image: Readable | list[Readable] | tuple[Readable, ...], n_best: int = 0
    ) -> Transcription | list[Transcription]:
        """Transcribe an image of one line, or a list of such images.

        Args:
            image: path, Pillow image, or array "H W" or "H W 3" with values in [0, 255]; or a list of these.
            n_best: number of alternatives per line; 0 for none.

        Raises:
            InputError: if an image cannot be read; the message contains its path or its index in the list.
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
        """Transcribe every line of the given files, in order.

        Lines and files that cannot be read are included, with `error` set.

        Args:
            paths: paths to images, folders, or PAGE, ALTO or METS files; may contain wildcards.
            n_best: number of alternatives per line; 0 for none.

        Raises:
            InputError: if a path matches no file, or an XML file is not a page.
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
        raise InputError(f"{_name(image, index)}: not an image; expected a path, a Pillow image, or an array with "
                         "values 0 to 255 and two dimensions, or three for colour") from None  # fmt: skip


def _name(image: Readable, index: int) -> str:
    return str(image) if isinstance(image, str | Path) else f"image {index}"
