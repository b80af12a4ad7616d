"""Transcriptions, and the interface for objects that transcribe images."""

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.characters import Character
from htr_lightning.data.preprocess import Preprocess
from htr_lightning.decoder.hypothesis import Decoder, Hypothesis
from htr_lightning.errors import printable
from htr_lightning.metrics.calibration import PlattScaling
from htr_lightning.output import beside
from htr_lightning.text.normalize import Normalizer


class Alternative(NamedTuple):
    """One of several hypotheses for an image; its score is a natural logarithm, and a higher score is better."""

    text: str
    confidence: float
    score: float


class Transcription(NamedTuple):
    """The text of an image and its confidence, which is a probability per character."""

    text: str
    confidence: float
    alternatives: tuple[Alternative, ...] = ()  # best first, if requested
    characters: tuple[Character, ...] = ()  # of the text, if requested and known


class Prediction(NamedTuple):
    """The transcription of a line and its reference."""

    id: str
    reference: str
    hypothesis: str
    confidence: float
    group: str


PREDICTIONS = "predictions.jsonl"  # in the folder of a run or an evaluation


def write_predictions(folder: Path, predictions: Iterable[Prediction]) -> None:
    """Write predictions to `PREDICTIONS` in a folder, one JSON object per line.

    Raises:
        OSError: if the file cannot be written.
    """
    with beside(folder / PREDICTIONS) as new, new.open("w", encoding="utf-8") as file:
        for prediction in predictions:
            file.write(printable(json.dumps(prediction._asdict(), ensure_ascii=False)) + "\n")


Read = Callable[..., list[Transcription]]  # called with images and n_best; see `Transcriber.read`


@runtime_checkable
class Transcriber(Protocol):
    """The interface for objects that transcribe images: recognizers, exported recognizers and ensembles.

    Attributes:
        card: metadata of the checkpoint.
        single_characters: whether each image contains a single character rather than a line.
        preprocess: preprocessing, which checks image sizes and estimates widths.
        normalizer: normalizer for transcriptions.
        calibration: calibration of the confidences.
    """

    card: dict[str, Any]
    single_characters: bool
    preprocess: Preprocess
    normalizer: Normalizer
    calibration: PlattScaling

    @property
    def aligns(self) -> bool:
        """Whether it knows where in an image the characters of a text lie."""
        ...

    @property
    def members(self) -> Sequence["Transcriber"]:
        """The recognizers of an ensemble; for a single recognizer, only itself."""
        ...

    def read(
        self, images: Sequence[UInt8[ndarray, "_ _"]], n_best: int = 0, boxes: bool = False
    ) -> list[Transcription]:
        """Transcribe raw images as one batch.

        Args:
            images: greyscale images of any size.
            n_best: maximum number of alternatives per image; 0 for none.
            boxes: whether to find the characters of each text, if the recognizer aligns.

        Raises:
            ValueError: if an image is too small or too wide to be a line.
            InputError: if `n_best` is larger than 1 and the decoder finds only one hypothesis.
        """
        ...

    def align(self, images: Sequence[UInt8[ndarray, "_ _"]], texts: Sequence[str]) -> list[tuple[Character, ...]]:
        """Find the characters of given texts, such as corrected ones, in raw images.

        Returns:
            The characters of each text; none if the recognizer does not align, or the text does not fit the image.

        Raises:
            ValueError: if an image is too small or too wide to be a line.
        """
        ...

    def workers(self) -> AbstractContextManager[Sequence[Read]]:
        """Yield functions like `read` that can run at the same time, each in its own thread."""
        ...


def transcriptions(
    decoder: Decoder,
    scores: Sequence[Any],
    inked: Sequence[bool],
    n_best: int,
    interpret: Callable[[Hypothesis], tuple[str, float]],
    normalizer: Normalizer,
    calibration: PlattScaling,
) -> list[Transcription]:
    """Decode the scores of a network into normalised texts with calibrated confidences.

    If several alternatives have the same normalised text, only the best of them is kept. A blank image is
    transcribed as empty text with a confidence of 1, whatever its scores.

    Args:
        decoder: decoder for the scores.
        scores: arguments of the decoder.
        inked: whether each image contains ink, i.e. is not blank.
        n_best: maximum number of alternatives per image; 0 for none.
        interpret: function that returns the text of a hypothesis and its confidence per character, before
            normalisation and calibration.
        normalizer: normalizer for transcriptions.
        calibration: calibration of the confidences.
    """

    def finish(hypothesis: Hypothesis) -> Alternative:
        text, confidence = interpret(hypothesis)
        return Alternative(normalizer(text), calibration(confidence), hypothesis.score)

    blank = Transcription("", 1.0, (Alternative("", 1.0, 0.0),) if n_best else ())
    if n_best:
        found = [from_alternatives([finish(one) for one in several]) for several in decoder.n_best(*scores, n_best)]
    else:
        found = [Transcription(*finish(best)[:2]) for best in decoder(*scores)]
    return [one if ink else blank for one, ink in zip(found, inked, strict=True)]


def with_characters(found: Sequence[Transcription], characters: Sequence[tuple[Character, ...]]) -> list[Transcription]:
    """Return transcriptions with the characters of their texts."""
    return [one._replace(characters=its) for one, its in zip(found, characters, strict=True)]


def from_alternatives(alternatives: Sequence[Alternative]) -> Transcription:
    """Return the transcription for an n-best list (best first), keeping each text once."""
    distinct: dict[str, Alternative] = {}
    for alternative in alternatives:
        distinct.setdefault(alternative.text, alternative)
    kept = tuple(distinct.values())
    return Transcription(kept[0].text, kept[0].confidence, kept)
