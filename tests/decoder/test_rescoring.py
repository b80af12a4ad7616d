"""Two passes against their definition: every label sequence scored by both."""

import math

import pytest
import torch

from decoder.test_prefix_beam import EXACT, Bigram, lines, sums
from htr_lightning.decoder.ctc import Greedy
from htr_lightning.decoder.lexicon import Lexicon
from htr_lightning.decoder.prefix_beam import PrefixBeam
from htr_lightning.decoder.rescoring import Rescoring, TwoPassInput
from htr_lightning.errors import InputError

FIRST = 3  # id of the first character


def written(ids: tuple[int, ...]) -> float:
    """A stub of a decoder that writes; it likes some sequences, by chance, much more than others."""
    return -1.0 - 7.0 * (hash((ids, 5)) % 1000) / 1000


def judge(readings: list[list[list[int]]]) -> list[list[float]]:
    return [[written(tuple(ids)) for ids in some] for some in readings]


def rescoring(share: float, automaton=None, **settings: float) -> Rescoring:
    decoder = Rescoring(**(EXACT | {"readings": 500, "ctc_weight": share, "max_length": 9} | settings))
    decoder.automaton = automaton
    return decoder


def passes(log_probs: torch.Tensor, lengths: list[int], own: list[tuple[int, ...]] | None = None) -> TwoPassInput:
    """Labels of `own` are those of the frames."""
    ids = [[label + FIRST - 1 for label in labels] for labels in own or [()] * len(lengths)]
    return TwoPassInput(log_probs, torch.tensor(lengths), ids, judge, FIRST)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("alpha", [0.0, 0.8])
@pytest.mark.parametrize("own", [None, [(1, 2), (2,), (2, 1)]])  # proposed by the beam, too, or needing too many frames
def test_the_best_readings_are_those_of_both_scores(share: float, alpha: float, own: list | None) -> None:
    log_probs, model, lengths = lines(3, 5, 3, seed=1), Bigram(2), [5, 3, 1]
    decoder = rescoring(share, model if alpha else None, alpha=alpha, beta=0.2)
    found = decoder.n_best(passes(log_probs, lengths, own), 4)
    for line, length, some in zip(log_probs, lengths, found, strict=True):
        scored = []
        for ids, ctc in sums(line[:length]).items():
            both = share * ctc + (1 - share) * written(tuple(id + FIRST - 1 for id in ids))
            scored.append((both + alpha * model.log_prob(ids) + 0.2 * len(ids), both, [id + FIRST - 1 for id in ids]))
        assert len(some) == min(4, len(scored))
        for (score, both, ids), one in zip(sorted(scored, reverse=True), some, strict=False):
            assert one.ids == ids
            assert (one.score, one.log_prob) == (pytest.approx(score, abs=1e-4), pytest.approx(both, abs=1e-4))


@pytest.mark.parametrize("alpha", [0.0, 0.8])
def test_what_the_decoder_writes_is_judged_where_the_beam_lacks_it(alpha: float) -> None:
    log_probs, model, lengths = lines(4, 5, 4, seed=3), Bigram(3), [5, 5, 4, 3]
    plain = [one.ids for one in Greedy()(log_probs, torch.tensor(lengths))]
    own = [(1, 2, 3), (3, 1), (2, 2), (1,)]
    assert all(list(labels) != best for labels, best in zip(own, plain, strict=True))
    decoder = rescoring(0.4, model if alpha else None, alpha=alpha, beta=0.2, width=1, readings=1)
    for line, length, labels, some in zip(
        log_probs, lengths, own, decoder.n_best(passes(log_probs, lengths, own), 9), strict=True
    ):
        assert [len(some), sorted(some, key=lambda one: -one.score)] == [2, some]
        both = 0.4 * sums(line[:length])[labels] + 0.6 * written(ids := tuple(label + FIRST - 1 for label in labels))
        (mine,) = (one for one in some if one.ids == list(ids))
        score = both + alpha * model.log_prob(labels) + 0.2 * len(labels)
        assert (mine.score, mine.log_prob) == (pytest.approx(score, abs=1e-4), pytest.approx(both, abs=1e-4))


def test_what_the_decoder_writes_against_the_lexicon_is_no_reading() -> None:
    log_probs = lines(1, 6, 3, seed=4)
    decoder = rescoring(0.5, Lexicon(["a", "ba"]).automaton(["a", "b"]), width=1, alpha=0.5)
    (allowed,) = decoder.n_best(passes(log_probs, [6], [(2, 1)]), 9)
    assert [2 + FIRST - 1, 1 + FIRST - 1] in [one.ids for one in allowed]
    (found,) = decoder.n_best(passes(log_probs, [6], [(2, 2)]), 9)
    assert [2 + FIRST - 1] * 2 not in [one.ids for one in found]


def test_ctc_alone_is_the_beam() -> None:
    log_probs, lengths = lines(2, 6, 4, seed=2), [6, 4]
    given = passes(log_probs, lengths)._replace(first=1, written=[[], []])
    plain = PrefixBeam(**EXACT).n_best(log_probs, torch.tensor(lengths), 3)
    for found, expected in zip(rescoring(1.0).n_best(given, 3), plain, strict=True):
        assert [one.ids for one in found] == [one.ids for one in expected]
        assert [one.score for one in found] == pytest.approx([one.score for one in expected], abs=1e-4)


def test_what_a_beam_prunes_does_not_count_less_than_what_it_missed() -> None:
    """A beam of one sums the paths that it kept; the reading that it proposes has the probability of all."""
    log_probs = lines(1, 6, 3, seed=5, scale=0.3)
    (pruned,) = PrefixBeam(**EXACT | {"width": 1})(log_probs, torch.tensor([6]))
    (found,) = rescoring(1.0, width=1, readings=1).n_best(passes(log_probs, [6], [tuple(pruned.ids)]), 9)[0]
    assert found.log_prob == pytest.approx(sums(log_probs[0])[tuple(pruned.ids)], abs=1e-4)
    assert found.log_prob > pruned.log_prob + 0.1


def test_a_line_that_says_nothing_for_sure_is_no_error() -> None:
    nothing = torch.full((1, 2, 3), math.nan)
    (found,) = rescoring(0.5)(passes(nothing, [2]))
    assert (found.ids, found.log_prob) == ([], -math.inf)


@pytest.mark.parametrize("settings", [{"ctc_weight": 1.5}, {"readings": 0}, {"max_length": 0}, {"width": 0}])
def test_impossible_settings_are_named(settings: dict) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(InputError, match=f"decoder.{name}={value}"):
        rescoring(**({"share": 0.5} | {"share" if name == "ctc_weight" else name: value}))
