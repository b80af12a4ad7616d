"""The `Reader` returned by `htr_lightning.load`, which transcribes images and files."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, overload

from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from htr_lightning.data.grey import grey, grey_array
from htr_lightning.data.image import read_image
from htr_lightning.errors import InputError, check_integer
from htr_lightning.reading.sources import find_sources
from htr_lightning.reading.transcribe import TranscribedLine, read_images, transcribe
from htr_lightning.transcription import Transcriber, Transcription

Readable = str | Path | Image.Image | ndarray


class Reader:
    """A trained recognizer, or an ensemble of several, that transcribes images and files.

    Args:
        transcriber: recognizer or ensemble in eval mode, on the device to use.
    """

    def __init__(self, transcriber: Transcriber) -> None:
        self.transcriber = transcriber

    def __repr__(self) -> str:
        kinds = ", ".join(type(member).__name__ for member in self.transcriber.members)
        return f"Reader({kinds}, {len(self.card['alphabet'])} characters)"

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
            image: path, Pillow image or NumPy array; or a list of these. Arrays have the shape (H, W), (H, W, 3) or
                (H, W, 4) and values in [0, 255]; floats may be in [0, 1] instead.
            n_best: maximum number of alternatives per image; 0 for none. For single characters, the confidences of the
                alternatives are class probabilities, which add up to 1 over all classes unless they are calibrated.

        Raises:
            InputError: if an image cannot be read, in which case the message contains its path or its index in the
                list, or if `n_best` is invalid or not supported by the decoder.
        """
        check_integer("n_best", n_best, 0)
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
            n_best: see `read`.

        Raises:
            InputError: if a path matches no file, several files describe the same page, or `n_best` is invalid.
        """
        check_integer("n_best", n_best, 0)
        names = [paths] if isinstance(paths, str | Path) or not isinstance(paths, Iterable) else list(paths)
        for name in names:
            if not isinstance(name, str | Path):
                raise InputError(f"expected paths, got {type(name).__name__}; use `read` for images in memory")
        sources, errors, notes = find_sources(map(str, names))
        if errors:
            raise InputError(errors[0])
        for note in notes:
            warnings.warn(note, stacklevel=2)
        return [line for line in transcribe(self.transcriber, sources, n_best) if not line.is_empty_page]


def _to_grey(image: Readable, index: int) -> UInt8[ndarray, "H W"]:
    if isinstance(image, str | Path):
        if Path(image).suffix.lower() == ".xml":
            raise InputError(f"{image}: is a page, not an image; use `transcribe` for pages")
        return read_image(image)
    try:
        if isinstance(image, ndarray):
            return grey_array(image)
        if isinstance(image, Image.Image):
            return grey_array(grey(image))
    except (ValueError, OSError) as error:
        raise InputError(f"{_name(image, index)}: {error}") from None
    raise InputError(
        f"{_name(image, index)}: expected a path, a Pillow image or a NumPy array, got {type(image).__name__}"
    )


def _name(image: Readable, index: int) -> str:
    return str(image) if isinstance(image, str | Path) else f"image {index}"
