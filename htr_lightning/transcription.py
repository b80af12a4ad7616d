"""What reading an image gives, and what everything that reads images has in common."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.data.preprocess import Preprocess
from htr_lightning.metrics.calibration import PlattScaling
from htr_lightning.text.normalize import Normalizer


class Alternative(NamedTuple):
    """One of several hypotheses for an image; the score is a natural logarithm, the best one has the highest."""

    text: str
    confidence: float
    score: float


class Transcription(NamedTuple):
    """The text of an image; the confidence is a probability per character."""

    text: str
    confidence: float
    alternatives: tuple[Alternative, ...] = ()  # best first, if requested


class Prediction(NamedTuple):
    """A transcription beside its reference."""

    id: str
    reference: str
    hypothesis: str
    confidence: float
    group: str


@runtime_checkable
class Transcriber(Protocol):
    """Turns images into text: a recognizer, or an ensemble of several."""

    card: dict[str, Any]
    preprocess: Preprocess  # says which images can be read, and roughly how wide they will be
    normalizer: Normalizer
    calibration: PlattScaling

    def read(self, images: Sequence[UInt8[ndarray, "_ _"]]) -> list[Transcription]: ...


def from_alternatives(alternatives: Iterable[Alternative]) -> Transcription:
    """The transcription of an n-best list, in which every text is kept once, where it scores best: texts may become
    equal when they are normalised."""
    distinct: dict[str, Alternative] = {}
    for alternative in alternatives:
        distinct.setdefault(alternative.text, alternative)
    kept = tuple(distinct.values())
    return Transcription(kept[0].text, kept[0].confidence, kept)


def postprocess(read: Transcription, normalizer: Normalizer, calibration: PlattScaling) -> Transcription:
    """A transcription with normalised text and calibrated confidences."""
    alternatives = tuple(one._replace(confidence=calibration(one.confidence)) for one in read.alternatives)
    return Transcription(normalizer(read.text), calibration(read.confidence), alternatives)
