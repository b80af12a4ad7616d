"""Two passes against their definition: every label sequence scored by both."""

import math

import pytest
import torch

from decoder.test_prefix_beam import EXACT, Bigram, lines, sums
from htr_lightning.decoder.prefix_beam import PrefixBeam
from htr_lightning.decoder.rescoring import Rescoring
from htr_lightning.errors import InputError

FIRST = 3  # id of the first character


def written(ids: tuple[int, ...]) -> float:
    """A stub of a decoder that writes; it likes some sequences, by chance, much more than others."""
    return -1.0 - 7.0 * (hash((ids, 5)) % 1000) / 1000


def judge(readings: list[list[list[int]]]) -> list[list[float]]:
    return [[written(tuple(ids)) for ids in some] for some in readings]


def rescoring(share: float, automaton=None, **settings: float) -> Rescoring:
    decoder = Rescoring(**(EXACT | {"readings": 500, "ctc_share": share, "max_length": 9} | settings))
    decoder.automaton = automaton
    return decoder


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("alpha", [0.0, 0.8])
def test_the_best_readings_are_those_of_both_scores(share: float, alpha: float) -> None:
    log_probs, model = lines(3, 5, 3, seed=1), Bigram(2)
    lengths = torch.tensor([5, 3, 1])
    found = rescoring(share, model if alpha else None, alpha=alpha, beta=0.2).n_best(
        log_probs, lengths, judge, FIRST, 4
    )
    for line, length, some in zip(log_probs, lengths.tolist(), found, strict=True):
        scored = []
        for ids, ctc in sums(line[:length]).items():
            both = share * ctc + (1 - share) * written(tuple(id + FIRST - 1 for id in ids))
            scored.append((both + alpha * model.log_prob(ids) + 0.2 * len(ids), both, [id + FIRST - 1 for id in ids]))
        for (score, both, ids), one in zip(sorted(scored, reverse=True), some, strict=False):
            assert one.ids == ids
            assert (one.score, one.log_prob) == (pytest.approx(score, abs=1e-4), pytest.approx(both, abs=1e-4))


def test_ctc_alone_is_the_beam() -> None:
    log_probs, lengths = lines(2, 6, 4, seed=2), torch.tensor([6, 4])
    plain = PrefixBeam(**EXACT).n_best(log_probs, lengths, 3)
    assert rescoring(1.0).n_best(log_probs, lengths, judge, 1, 3) == plain


def test_a_line_that_says_nothing_for_sure_is_no_error() -> None:
    nothing = torch.full((1, 2, 3), math.nan)
    (found,) = rescoring(0.5)(nothing, torch.tensor([2]), judge, FIRST)
    assert (found.ids, found.log_prob) == ([], -math.inf)


@pytest.mark.parametrize("settings", [{"ctc_share": 1.5}, {"readings": 0}, {"max_length": 0}, {"width": 0}])
def test_impossible_settings_are_named(settings: dict) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(InputError, match=f"decoder.{name}={value}"):
        rescoring(**({"share": 0.5} | {"share" if name == "ctc_share" else name: value}))
