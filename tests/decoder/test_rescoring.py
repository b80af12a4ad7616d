"""Two-pass decoding matches its definition, with every label sequence scored by both models."""

import math

import numpy as np
import pytest

from decoder.test_prefix_beam import EXACT, Bigram, lines, sums
from htr_lightning.decoder.autoregressive import FrameScores, Steps
from htr_lightning.decoder.ctc import Greedy
from htr_lightning.decoder.lexicon import Lexicon
from htr_lightning.decoder.prefix_beam import PrefixBeam
from htr_lightning.decoder.rescoring import Rescoring
from htr_lightning.errors import InputError

END = 2  # the last special token; label 1 is the one after it


def log_prob(ids: tuple[int, ...]) -> float:
    """A stub of an autoregressive decoder; it strongly prefers some random sequences."""
    return -1.0 - 7.0 * (hash((ids, 5)) % 1000) / 1000


def rescore(candidates: list[list[list[int]]]) -> list[list[float]]:
    return [[log_prob(tuple(ids)) for ids in some] for some in candidates]


def rescoring(weight: float, automaton=None, **settings: float) -> Rescoring:
    fixed = {"candidates": 500, "ctc_weight": weight, "max_length": 9}
    return Rescoring(**(EXACT | fixed | settings)).with_automaton(automaton)


def steps(log_probs: np.ndarray, lengths: list[int], own: list[tuple[int, ...]] | None = None) -> Steps:
    """A model whose CTC head returns `log_probs` and whose greedy hypothesis is `own`, in CTC labels."""
    rows = [[label + END for label in labels] + [END] * 10 for labels in own or [()] * len(lengths)]

    def step(tokens: np.ndarray, number: int) -> tuple[np.ndarray, int]:
        found = np.full((len(rows), 9), -np.inf)
        found[np.arange(len(rows)), [row[number] for row in rows]] = 0.0
        return found, number + 1

    frames = FrameScores(log_probs, np.array(lengths), rescore)
    return Steps(step, lambda: 0, lambda state, rows: state, np.ones(len(lengths), np.int64), END, frames)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("alpha", [0.0, 0.8])
@pytest.mark.parametrize("own", [None, [(1, 2), (2,), (2, 1)]])  # also proposed by the beam, or too long for the frames
def test_the_best_hypotheses_are_those_of_both_scores(weight: float, alpha: float, own: list | None) -> None:
    log_probs, model, lengths = lines(3, 5, 3, seed=1), Bigram(2), [5, 3, 1]
    decoder = rescoring(weight, model if alpha else None, alpha=alpha, beta=0.2)
    found = decoder.n_best(steps(log_probs, lengths, own), 4)
    for line, length, some in zip(log_probs, lengths, found, strict=True):
        scored = []
        for ids, ctc in sums(line[:length]).items():
            both = weight * ctc + (1 - weight) * log_prob(tuple(id + END for id in ids))
            scored.append((both + alpha * model.log_prob(ids) + 0.2 * len(ids), both, [id + END for id in ids]))
        assert len(some) == min(4, len(scored))
        for (score, both, ids), one in zip(sorted(scored, reverse=True), some, strict=False):
            assert one.ids == ids
            assert (one.score, one.log_prob) == (pytest.approx(score, abs=1e-4), pytest.approx(both, abs=1e-4))


@pytest.mark.parametrize("alpha", [0.0, 0.8])
def test_the_hypothesis_of_the_decoder_is_scored_if_the_beam_lacks_it(alpha: float) -> None:
    log_probs, model, lengths = lines(4, 5, 4, seed=3), Bigram(3), [5, 5, 4, 3]
    plain = [one.ids for one in Greedy()(log_probs, np.array(lengths))]
    own = [(1, 2, 3), (3, 1), (2, 2), (1,)]
    assert all(list(labels) != best for labels, best in zip(own, plain, strict=True))
    decoder = rescoring(0.4, model if alpha else None, alpha=alpha, beta=0.2, width=1, candidates=1)
    for line, length, labels, some in zip(
        log_probs, lengths, own, decoder.n_best(steps(log_probs, lengths, own), 9), strict=True
    ):
        assert [len(some), sorted(some, key=lambda one: -one.score)] == [2, some]
        both = 0.4 * sums(line[:length])[labels] + 0.6 * log_prob(ids := tuple(label + END for label in labels))
        (mine,) = (one for one in some if one.ids == list(ids))
        score = both + alpha * model.log_prob(labels) + 0.2 * len(labels)
        assert (mine.score, mine.log_prob) == (pytest.approx(score, abs=1e-4), pytest.approx(both, abs=1e-4))


def test_a_hypothesis_of_the_decoder_that_the_lexicon_forbids_is_dropped() -> None:
    log_probs = lines(1, 6, 3, seed=4)
    decoder = rescoring(0.5, Lexicon(["a", "ba"]).automaton(["a", "b"]), width=1, alpha=0.5)
    (allowed,) = decoder.n_best(steps(log_probs, [6], [(2, 1)]), 9)
    assert [2 + END, 1 + END] in [one.ids for one in allowed]
    (found,) = decoder.n_best(steps(log_probs, [6], [(2, 2)]), 9)
    assert [2 + END] * 2 not in [one.ids for one in found]


def test_ctc_alone_is_the_beam() -> None:
    log_probs, lengths = lines(2, 6, 4, seed=2), [6, 4]
    given = steps(log_probs, lengths)
    plain = PrefixBeam(**EXACT).n_best(log_probs, np.array(lengths), 3)
    for found, expected in zip(rescoring(1.0).n_best(given, 3), plain, strict=True):
        assert [[token - END for token in one.ids] for one in found] == [one.ids for one in expected]
        assert [one.score for one in found] == pytest.approx([one.score for one in expected], abs=1e-4)


def test_candidates_have_the_probability_of_all_paths() -> None:
    """A beam of one sums over the paths that it kept; its candidate is rescored over all."""
    log_probs = lines(1, 6, 3, seed=5, scale=0.3)
    (pruned,) = PrefixBeam(**EXACT | {"width": 1})(log_probs, np.array([6]))
    (found,) = rescoring(1.0, width=1, candidates=1).n_best(steps(log_probs, [6], [tuple(pruned.ids)]), 9)[0]
    assert found.log_prob == pytest.approx(sums(log_probs[0])[tuple(pruned.ids)], abs=1e-4)
    assert found.log_prob > pruned.log_prob + 0.1


def test_nan_gives_an_empty_hypothesis() -> None:
    nothing = np.full((1, 2, 3), math.nan, np.float32)
    (found,) = rescoring(0.5)(steps(nothing, [2]))
    assert (found.ids, found.log_prob) == ([], -math.inf)


def test_it_needs_ctc_heads() -> None:
    given = steps(lines(1, 4, 3, seed=0), [4])._replace(frames=None)
    with pytest.raises(InputError, match="no CTC head"):
        rescoring(0.5)(given)
