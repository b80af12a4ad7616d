"""What reading an image gives, and what everything that reads images has in common."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.data.preprocess import Preprocess
from htr_lightning.decoder.hypothesis import Decoder, Hypothesis
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


Read = Callable[..., list[Transcription]]  # of images and n_best, see `Transcriber`


@runtime_checkable
class Transcriber(Protocol):
    """Turns images into text: a recognizer, an exported one, or an ensemble.

    Attributes:
        card: what the checkpoint says about itself.
        single_characters: whether it reads one character per image rather than a line.
        preprocess: says which images can be read, and roughly how wide they will be.
        normalizer: of the texts.
        calibration: of the confidences.
    """

    card: dict[str, Any]
    single_characters: bool
    preprocess: Preprocess
    normalizer: Normalizer
    calibration: PlattScaling

    @property
    def members(self) -> Sequence["Transcriber"]:
        """The recognizers of an ensemble; any other has itself."""
        ...

    def read(self, images: Sequence[UInt8[ndarray, "_ _"]], n_best: int = 0) -> list[Transcription]:
        """The text of raw images, as one batch.

        Args:
            images: grey, of any size.
            n_best: alternatives of each, at most; 0 for none.

        Raises:
            ValueError: an image is too small or too wide to be a line.
            InputError: its decoder finds only one hypothesis, and `n_best` is larger.
        """
        ...

    def workers(self) -> AbstractContextManager[Sequence[Read]]:
        """Functions like `read` that may run at the same time, each in one thread."""
        ...


def transcriptions(
    decoder: Decoder,
    scores: Sequence[Any],
    n_best: int,
    interpret: Callable[[Hypothesis], tuple[str, float]],
    normalizer: Normalizer,
    calibration: PlattScaling,
) -> list[Transcription]:
    """The decoded scores of a network as normalised texts with calibrated confidences.

    Of alternatives that have the same text once normalised, the best is kept.

    Args:
        decoder: see `Decoder`.
        scores: its arguments.
        n_best: see `Transcriber.read`.
        interpret: gives the text of a hypothesis and its confidence per character, before normalisation and
            calibration.
        normalizer, calibration: see `Transcriber`.
    """

    def finish(hypothesis: Hypothesis) -> Alternative:
        text, confidence = interpret(hypothesis)
        return Alternative(normalizer(text), calibration(confidence), hypothesis.score)

    if not n_best:
        return [Transcription(*finish(best)[:2]) for best in decoder(*scores)]
    return [from_alternatives([finish(one) for one in several]) for several in decoder.n_best(*scores, n_best)]


def from_alternatives(alternatives: Sequence[Alternative]) -> Transcription:
    """The transcription of an n-best list, best first, in which every text is kept once."""
    distinct: dict[str, Alternative] = {}
    for alternative in alternatives:
        distinct.setdefault(alternative.text, alternative)
    kept = tuple(distinct.values())
    return Transcription(kept[0].text, kept[0].confidence, kept)
