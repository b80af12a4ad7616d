"""The `Decoder` interface and the hypotheses that decoders return."""

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

from htr_lightning.decoder.language import Automaton
from htr_lightning.errors import InputError


class Hypothesis(NamedTuple):
    """A decoded label sequence, its natural log-probability given the image, and its ranking score.

    The probability of a label is the network's own, without a language model: the largest posterior of the label over
    its frames on the most probable path (CTC; see `ctc.label_probabilities`), the probability of the step that emits it
    (autoregressive), or that of the class.
    """

    ids: list[int]
    log_prob: float
    score: float
    probabilities: tuple[float, ...] = ()  # of each label; empty if unknown, as for all hypotheses but the best one

    @property
    def confidence(self) -> float:
        """The geometric mean probability per label, in [0, 1]; for an empty hypothesis, its probability."""
        return math.exp(self.log_prob / max(1, len(self.ids)))


@runtime_checkable
class Decoder(Protocol):
    """The interface for decoders, which turn network scores into label sequences.

    The scores depend on the model: frame log-probabilities and lengths for CTC, `autoregressive.Steps` for
    autoregressive models, and class probabilities for single characters. They are returned by a recognizer's `scores`
    method. Decoders hold only settings, so several recognizers can share one decoder.

    Attributes:
        inputs: type of the scores, one of "frames", "steps", "frames and steps" and "classes".
        has_posterior: whether the scores of n-best hypotheses are log-probabilities up to a constant per line, in which
            case an ensemble uses them to weight hypotheses.
    """

    inputs: str
    has_posterior: bool

    def __call__(self, *scores: Any, **_: Any) -> list[Hypothesis]:
        """Return the best hypothesis for each line."""
        ...

    def n_best(self, *scores_and_n: Any, **_: Any) -> list[list[Hypothesis]]:
        """Return up to n distinct hypotheses for each line, best first; n is the last argument.

        Raises:
            InputError: if n is greater than 1 and the decoder is greedy.
        """
        ...

    def with_automaton(self, automaton: Automaton | None) -> "Decoder":
        """Return a copy of this decoder with a different language model or lexicon, or without one.

        Raises:
            InputError: if the decoder supports neither.
        """
        ...


@runtime_checkable
class BeamDecoder(Decoder, Protocol):
    """The interface for beam search decoders, which split `n_best` into two steps to allow repeated searches."""

    def prepare(self, *scores: Any, **_: Any) -> Any:
        """Return the input to `search`, which does not depend on the language model or its weights."""
        ...

    def search(self, prepared: Any, n: int) -> list[list[Hypothesis]]:
        """Return up to n distinct hypotheses for each line, best first."""
        ...


def check_single(n: int, beam: str) -> None:
    """Raise InputError if a greedy decoder is asked for more than one hypothesis.

    Args:
        n: number of requested hypotheses.
        beam: name of the decoder config that supports n-best lists, used in the message.
    """
    if n > 1:
        raise InputError(
            f"n_best={n}: a greedy decoder returns one hypothesis per line; remove --greedy, use a checkpoint written "
            f"by htr tune-decoder, or train with decoder={beam}"
        )
