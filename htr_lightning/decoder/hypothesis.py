"""What decoders give, and what every decoder can do."""

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

from htr_lightning.decoder.language import Automaton
from htr_lightning.errors import InputError


class Hypothesis(NamedTuple):
    """Label ids, their natural log-probability given the image, and the score by which the decoder ranks them."""

    ids: list[int]
    log_prob: float
    score: float

    @property
    def confidence(self) -> float:
        """Probability per label, in [0, 1]; of an empty hypothesis, its own."""
        return math.exp(self.log_prob / max(1, len(self.ids)))


@runtime_checkable
class Decoder(Protocol):
    """Turns the scores of a network into label sequences.

    The kind of scores depends on the family: frame log-probabilities and lengths for CTC, `autoregressive.Steps` for
    autoregressive models, class probabilities for single characters. A recognizer's `scores` are its decoder's
    arguments. Decoders hold settings only, so one may serve several recognizers.

    Attributes:
        inputs: the kind of scores: "frames", "steps", "frames and steps", or "classes".
        has_posterior: whether the scores of its n-best hypotheses are log-probabilities up to a constant per line, so
            that an ensemble can weight hypotheses by them.
    """

    inputs: str
    has_posterior: bool

    def __call__(self, *scores: Any, **_: Any) -> list[Hypothesis]:
        """The best hypothesis of each line."""
        ...

    def n_best(self, *scores_and_n: Any, **_: Any) -> list[list[Hypothesis]]:
        """Up to n different hypotheses of each line, best first; n comes last.

        Raises:
            InputError: it finds only one, and n is larger.
        """
        ...

    def with_automaton(self, automaton: Automaton | None) -> "Decoder":
        """This decoder with another language model or lexicon, or with none.

        Raises:
            InputError: the decoder can use neither.
        """
        ...


@runtime_checkable
class BeamDecoder(Decoder, Protocol):
    """A decoder that searches several hypotheses, with a language model if there is one: `n_best` in two steps."""

    def prepare(self, *scores: Any, **_: Any) -> Any:
        """What is searched; it does not depend on the language model and its weights."""
        ...

    def search(self, prepared: Any, n: int) -> list[list[Hypothesis]]:
        """See `n_best`."""
        ...


def check_counts(**settings: int) -> None:
    """Refuse settings of a decoder that are not positive whole numbers, by name."""
    for name, value in settings.items():
        if value < 1:
            raise InputError(f"decoder.{name}={value}: must be at least 1")
        if value != int(value):
            raise InputError(f"decoder.{name}={value}: must be a whole number")


def check_single(n: int, beam: str) -> None:
    """Refuse n-best lists for a greedy decoder.

    Args:
        n: hypotheses that are requested.
        beam: option of `decoder=` that finds several.
    """
    if n > 1:
        raise InputError(
            f"n_best={n}: a greedy decoder finds one hypothesis per line; remove --greedy, use a checkpoint written by "
            f"htr tune-decoder, or train with decoder={beam}"
        )
