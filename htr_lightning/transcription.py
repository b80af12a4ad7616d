"""Transcriptions, and the interface for objects that transcribe images."""

import json
import re
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
from htr_lightning.metrics import confidence as measure
from htr_lightning.metrics.calibration import Calibration
from htr_lightning.metrics.confidence import Trials
from htr_lightning.output import beside
from htr_lightning.text.align import carried
from htr_lightning.text.normalize import Normalizer


class Alternative(NamedTuple):
    """One of several hypotheses for an image; its score is a natural logarithm, and a higher score is better."""

    text: str
    confidence: float
    score: float


class Transcription(NamedTuple):
    """The text of an image and its confidence, which is a probability per character.

    The confidence of a character is the calibrated probability of its label (see `decoder.hypothesis.Hypothesis`), and
    that of a word the calibrated mean of these probabilities.
    """

    text: str
    confidence: float
    alternatives: tuple[Alternative, ...] = ()  # best first, if requested
    words: tuple[float, ...] = ()  # confidence of each word of `text.split()`
    characters: tuple[float, ...] = ()  # confidence of each character of the text
    boxes: tuple[Character, ...] = ()  # where its characters lie, if requested and known


class Prediction(NamedTuple):
    """The transcription of a line and its reference."""

    id: str
    reference: str
    hypothesis: str
    confidence: float
    group: str
    words: tuple[float, ...] = ()  # see `Transcription`; empty in files of earlier versions
    characters: tuple[float, ...] = ()


def prediction(id: str, reference: str, group: str, read: Transcription) -> Prediction:
    """Return the prediction for a line."""
    return Prediction(id, reference, read.text, read.confidence, group, read.words, read.characters)


def trials_by_level(predictions: Iterable[Prediction]) -> dict[str, list[Trials]]:
    """Return the trials of lines, words and characters (see `metrics.confidence`); levels without trials are left out.

    Lines of which only the line has a confidence are left out for words and characters.
    """
    found: dict[str, list[Trials]] = {"line": [], "word": [], "character": []}
    for one in predictions:
        found["line"].append(measure.line_trials(one.reference, one.hypothesis, one.confidence))
        if one.characters:
            found["word"] += measure.unit_trials(one.reference.split(), one.hypothesis.split(), one.words)
            found["character"] += measure.unit_trials(one.reference, one.hypothesis, one.characters)
    return {level: trials for level, trials in found.items() if trials}


PREDICTIONS = "predictions.jsonl"  # in the folder of a run or an evaluation
DIGITS = 6  # of the confidences of words and characters


def write_predictions(folder: Path, predictions: Iterable[Prediction]) -> None:
    """Write predictions to `PREDICTIONS` in a folder, one JSON object per line.

    Raises:
        OSError: if the file cannot be written.
    """
    with beside(folder / PREDICTIONS) as new, new.open("w", encoding="utf-8") as file:
        for prediction in predictions:
            plain = prediction._asdict() | {
                level: [round(one, DIGITS) for one in values]
                for level, values in (("words", prediction.words), ("characters", prediction.characters))
            }
            file.write(printable(json.dumps(plain, ensure_ascii=False)) + "\n")


WORD = re.compile(r"\S+")  # as `str.split` divides a text
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
    calibration: Calibration

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


class Interpreted(NamedTuple):
    """The text of a hypothesis, its probability per character on average, and the probability of each character."""

    text: str
    confidence: float
    characters: Sequence[float]


def of_labels(text: str, hypothesis: Hypothesis, order: Sequence[int] | None = None) -> Interpreted:
    """Return the interpretation of a hypothesis with a label for each character of its text.

    Args:
        text: text of the hypothesis.
        hypothesis: hypothesis without special labels.
        order: position of the label of each character; None for the same order.
    """
    own: Sequence[float] = hypothesis.probabilities  # which a decoder need not know
    own = own or [hypothesis.confidence] * len(text)
    return Interpreted(text, hypothesis.confidence, own if order is None else [own[place] for place in order])


def transcriptions(
    decoder: Decoder,
    scores: Sequence[Any],
    inked: Sequence[bool],
    n_best: int,
    interpret: Callable[[Hypothesis], Interpreted],
    normalizer: Normalizer,
    calibration: Calibration,
) -> list[Transcription]:
    """Decode the scores of a network into normalised texts with calibrated confidences.

    If several alternatives have the same normalised text, only the best of them is kept. A blank image is
    transcribed as empty text with a confidence of 1, whatever its scores.

    Args:
        decoder: decoder for the scores.
        scores: arguments of the decoder.
        inked: whether each image contains ink, i.e. is not blank.
        n_best: maximum number of alternatives per image; 0 for none.
        interpret: function that returns the text of a hypothesis and its confidences before normalisation and
            calibration.
        normalizer: normalizer for transcriptions.
        calibration: calibration of the confidences.
    """

    def alternative(hypothesis: Hypothesis) -> Alternative:
        text, confidence, _ = interpret(hypothesis)
        return Alternative(normalizer(text), calibration.line(confidence), hypothesis.score)

    def best(hypothesis: Hypothesis) -> Transcription:
        return finished(interpret(hypothesis), normalizer, calibration)

    blank = Transcription("", 1.0, (Alternative("", 1.0, 0.0),) if n_best else ())
    if n_best:
        found = [
            best(several[0])._replace(alternatives=distinct(map(alternative, several)))
            for several in decoder.n_best(*scores, n_best)
        ]
    else:
        found = [best(one) for one in decoder(*scores)]
    return [one if ink else blank for one, ink in zip(found, inked, strict=True)]


def with_boxes(found: Sequence[Transcription], boxes: Sequence[tuple[Character, ...]]) -> list[Transcription]:
    """Return transcriptions with the places of the characters of their texts, and with their confidences."""
    return [
        one._replace(boxes=tuple(box._replace(confidence=p) for box, p in zip(its, one.characters, strict=bool(its))))
        for one, its in zip(found, boxes, strict=True)
    ]


def finished(found: Interpreted, normalizer: Normalizer, calibration: Calibration) -> Transcription:
    """Return the transcription for a text and its confidences before normalisation and calibration."""
    text = normalizer(found.text)
    characters = carried(found.text, text, found.characters)
    words = [characters[word.start() : word.end()] for word in WORD.finditer(text)]
    return Transcription(
        text,
        calibration.line(found.confidence),
        words=tuple(calibration.word(sum(its) / len(its)) for its in words),
        characters=tuple(calibration.character(one) for one in characters),
    )


def distinct(alternatives: Iterable[Alternative]) -> tuple[Alternative, ...]:
    """Return the alternatives (best first) that have another text than all before them."""
    found: dict[str, Alternative] = {}
    for alternative in alternatives:
        found.setdefault(alternative.text, alternative)
    return tuple(found.values())
