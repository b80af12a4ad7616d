"""Probabilities of labels are compared with brute force over all paths, and with what greedy decoding emits."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_lightning.decoder.autoregressive import Beam, Greedy, Steps
from htr_lightning.decoder.ctc import Greedy as CTCGreedy
from htr_lightning.decoder.ctc import best_path, collapse, label_probabilities
from htr_lightning.decoder.prefix_beam import PrefixBeam
from htr_lightning.decoder.rover import WeightedHypothesis, rover


def scores(frames: int, classes: int, seed: int) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, 2, (frames, classes))
    return (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)


@given(st.integers(1, 5), st.integers(0, 200), st.data())
def test_the_best_path_is_the_most_probable_of_all_paths_of_a_text(frames: int, seed: int, data) -> None:
    log_probs = scores(frames, 3, seed)
    paths = list(product(range(3), repeat=frames))
    ids = data.draw(st.sampled_from(sorted({tuple(collapse(path)) for path in paths})))
    total = {path: sum(log_probs[t, label] for t, label in enumerate(path)) for path in paths}
    best = max((path for path in paths if collapse(path) == list(ids)), key=lambda path: total[path])
    states, log_prob = best_path(log_probs, ids)
    assert log_prob == pytest.approx(total[best], abs=1e-4)
    found = [ids[state // 2] if state % 2 else 0 for state in states]
    assert sum(log_probs[t, label] for t, label in enumerate(found)) == pytest.approx(total[best], abs=1e-4)
    assert collapse(found) == list(ids)
    own = label_probabilities(log_probs, ids)
    expected = [
        max(float(np.exp(log_probs[t, label])) for t in np.flatnonzero(states == 2 * place + 1))
        for place, label in enumerate(ids)
    ]
    assert own == pytest.approx(expected, rel=1e-5)


@given(st.integers(1, 30), st.integers(0, 500))
def test_a_greedy_label_has_its_largest_probability_on_the_best_path(frames: int, seed: int) -> None:
    log_probs = scores(frames, 4, seed)
    (hypothesis,) = CTCGreedy()(log_probs[None], np.array([frames]))
    assert hypothesis.probabilities == pytest.approx(label_probabilities(log_probs, hypothesis.ids), rel=1e-5)
    assert hypothesis.ids == collapse(log_probs.argmax(1).tolist())
    padded = np.concatenate([log_probs, np.full((3, 4), -9.0, np.float32)])
    assert CTCGreedy()(padded[None], np.array([frames])) == [hypothesis]


@given(st.integers(1, 8), st.integers(0, 200))
def test_a_beam_search_tells_the_probability_of_each_label_of_its_best_hypothesis(frames: int, seed: int) -> None:
    log_probs = scores(frames, 4, seed)
    beam = PrefixBeam(width=64, top_labels=4, min_probability=0.0, prune_margin=1e5)
    (first, *_), *_ = beam.n_best(log_probs[None], np.array([frames]), 3)
    assert list(first.probabilities) == label_probabilities(log_probs, first.ids)
    assert len(first.probabilities) == len(first.ids)


def test_text_that_does_not_fit_into_the_frames_is_no_error() -> None:
    assert len(label_probabilities(scores(1, 3, 0), [1, 1, 2])) == 3
    assert label_probabilities(np.zeros((0, 3), np.float32), [1]) == [0.0]


def steps(lines: int, classes: int = 5, end: int = 0) -> Steps:
    """A model whose log-probabilities depend on the line and on the number of labels so far."""
    tables = [[scores(1, classes, 10 * line + step)[0] for step in range(20)] for line in range(lines)]

    def step(tokens, state):
        rows = np.stack([tables[line][count] for line, count in state])
        return rows, [(line, count + 1) for line, count in state]

    return Steps(
        step,
        lambda: [(line, 0) for line in range(lines)],
        lambda state, rows: [state[row] for row in rows],
        np.full(lines, 1),
        end,
    )


@pytest.mark.parametrize("decoder", [Greedy(6), Beam(1, 6), Beam(4, 6)])
def test_an_autoregressive_label_has_the_probability_of_its_step(decoder) -> None:
    for line, hypothesis in enumerate(decoder(steps(3))):
        own = [float(np.exp(scores(1, 5, 10 * line + count)[0, label])) for count, label in enumerate(hypothesis.ids)]
        assert hypothesis.probabilities == pytest.approx(own, rel=1e-5)
        ended = len(hypothesis.ids) < 6
        last = float(scores(1, 5, 10 * line + len(hypothesis.ids))[0, 0]) if ended else 0.0
        if ended:
            assert hypothesis.log_prob == pytest.approx(np.log(own).sum() + last, abs=1e-4)


def test_a_vote_tells_the_share_of_each_character() -> None:
    some = [WeightedHypothesis("abc", 0.9, 0), WeightedHypothesis("abd", 0.6, 1), WeightedHypothesis("ad", 0.5, 2)]
    found = rover(some, [1.0, 1.0, 1.0])
    assert len(found.characters) == len(found.text)
    assert found.characters[0] == pytest.approx((0.9 + 0.6 + 0.5) / 3)
