"""Decode the class probabilities of single characters."""

import math

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from htr_lightning.decoder.hypothesis import Hypothesis
from htr_lightning.decoder.language import Automaton
from htr_lightning.errors import InputError


class ArgMax:
    """A decoder for single characters, whose hypotheses consist of one label each."""

    inputs = "classes"
    has_posterior = True

    def __call__(self, probabilities: Float[ndarray, "B C"]) -> list[Hypothesis]:
        """Return the most likely class of each image."""
        classes = probabilities.argmax(1)
        best = np.take_along_axis(probabilities, classes[:, None], 1)[:, 0]
        return [_hypothesis(label, p) for label, p in zip(classes.tolist(), best.tolist(), strict=True)]

    def n_best(self, probabilities: Float[ndarray, "B C"], n: int) -> list[list[Hypothesis]]:
        """Return the `n` most likely classes of each image, best first."""
        classes = np.argsort(-probabilities, axis=1, kind="stable")[:, :n]
        found = np.take_along_axis(probabilities, classes, 1).tolist()
        return [
            [_hypothesis(label, p) for label, p in zip(*one, strict=True)]
            for one in zip(classes.tolist(), found, strict=True)
        ]

    def with_automaton(self, automaton: Automaton | None) -> "ArgMax":
        """Return this decoder. Raises InputError if `automaton` is not None."""
        if automaton is not None:
            raise InputError("models of single characters do not support language models or lexicons; use a line model")
        return self


def _hypothesis(label: int, probability: float) -> Hypothesis:
    log_prob = math.log(probability) if probability > 0 else -math.inf
    return Hypothesis([label], log_prob, log_prob, (probability,))
