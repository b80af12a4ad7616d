"""The classes of single characters, most likely first."""

import numpy as np
import pytest

from htr_lightning.decoder.argmax import ArgMax
from htr_lightning.decoder.lexicon import Lexicon
from htr_lightning.errors import InputError

PROBABILITIES = np.array([[0.1, 0.7, 0.2], [0.5, 0.0, 0.5]], np.float32)


def test_classes_come_in_order_with_their_probabilities() -> None:
    found = ArgMax().n_best(PROBABILITIES, 9)
    assert [[one.ids for one in some] for some in found] == [[[1], [2], [0]], [[0], [2], [1]]]
    for some, row in zip(found, PROBABILITIES, strict=True):
        assert [one.confidence for one in some] == pytest.approx([row[one.ids[0]] for one in some])
        assert [one.score for one in some] == [one.log_prob for one in some]
    assert [some[0] for some in found] == ArgMax()(PROBABILITIES)
    assert [len(some) for some in ArgMax().n_best(PROBABILITIES, 2)] == [2, 2]


def test_it_uses_no_language_model() -> None:
    with pytest.raises(InputError, match="single characters"):
        ArgMax().with_automaton(Lexicon(["a"]).automaton("a"))
    assert isinstance(ArgMax().with_automaton(None), ArgMax)
