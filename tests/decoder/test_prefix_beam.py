"""Prefix beam search against its definition: every path of every label sequence written out and summed."""

import math
from collections import defaultdict
from itertools import product

import numpy as np
import pytest
import torch

from htr_lightning.decoder.ctc import Greedy, collapse
from htr_lightning.decoder.language import Automaton
from htr_lightning.decoder.prefix_beam import PrefixBeam, likely_frames

EXACT = {"width": 1500, "top_labels": 10, "min_probability": 0.0, "prune_margin": math.inf}


class Bigram:
    """A stub of a language model: a state is the last class, or `classes` at the start of the line."""

    def __init__(self, classes: int, seed: int = 0) -> None:
        table = np.random.default_rng(seed).normal(size=(classes + 1, classes + 1)).astype(np.float32) * 2
        self.table = table - np.logaddexp.reduce(table, axis=1, keepdims=True)
        self.start = classes

    def look_up(self, states: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = self.table[states[:, :, None], classes[:, None, :]]
        return scores, np.broadcast_to(classes[:, None, :], scores.shape).astype(np.int64)

    def ends(self, states: np.ndarray) -> np.ndarray:
        return self.table[states, -1]

    def log_prob(self, ids: tuple[int, ...]) -> float:
        path = [self.start, *(id - 1 for id in ids)]
        steps = zip(path, [*path[1:], len(self.table) - 1], strict=True)
        return math.fsum(float(self.table[step]) for step in steps)


def beam(automaton: Automaton | None = None, **settings: float) -> PrefixBeam:
    return PrefixBeam(**(EXACT | settings)).with_automaton(automaton)


def lines(*shape: int, seed: int, scale: float = 2.0) -> np.ndarray:
    torch.manual_seed(seed)
    return (scale * torch.randn(*shape)).log_softmax(2).numpy()


def sums(log_probs: np.ndarray) -> dict[tuple[int, ...], float]:
    """log p_ctc of every label sequence: over all paths."""
    frames, classes = log_probs.shape
    paths = defaultdict(list)
    for path in product(range(classes), repeat=frames):
        paths[tuple(collapse(path))].append(math.fsum(log_probs[t, c].item() for t, c in enumerate(path)))
    return {ids: torch.tensor(some, dtype=torch.double).logsumexp(0).item() for ids, some in paths.items()}


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_all_sequences_have_the_sum_of_their_paths_and_come_in_order(frames: int, classes: int) -> None:
    log_probs = lines(2, frames, classes, seed=frames)
    found = beam().n_best(log_probs, np.array([frames, frames]), 1500)
    for line, hypotheses in zip(log_probs, found, strict=True):
        expected = sums(line)
        assert {tuple(h.ids): h.log_prob for h in hypotheses} == pytest.approx(expected, abs=1e-5)
        assert len(hypotheses) == len(expected)
        scores = [h.score for h in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert scores == pytest.approx([h.log_prob for h in hypotheses], abs=1e-9)


@pytest.mark.parametrize(("frames", "classes"), [(1, 4), (3, 4), (5, 3), (5, 4)])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (0.6, 1.3), (0.0, -0.7), (2.0, 0.5)])
def test_scores_with_a_language_model_are_those_of_the_definition(
    frames: int, classes: int, alpha: float, beta: float
) -> None:
    log_probs, model = lines(1, frames, classes, seed=classes), Bigram(classes - 1)
    found = beam(model, alpha=alpha, beta=beta).n_best(log_probs, np.array([frames]), 1500)[0]
    expected = sums(log_probs[0])
    scores = {ids: p + alpha * model.log_prob(ids) + beta * len(ids) for ids, p in expected.items()}
    assert {tuple(h.ids): h.score for h in found} == pytest.approx(scores, abs=1e-4)
    assert {tuple(h.ids): h.log_prob for h in found} == pytest.approx(expected, abs=1e-5)
    assert [tuple(h.ids) for h in found] == sorted(scores, key=scores.__getitem__, reverse=True)


def test_a_length_score_needs_no_language_model() -> None:
    log_probs = lines(1, 4, 3, seed=3)
    found = beam(beta=0.4).n_best(log_probs, np.array([4]), 1500)[0]
    assert [h.score for h in found] == pytest.approx([h.log_prob + 0.4 * len(h.ids) for h in found])


def test_log_prob_is_the_ctc_loss_of_torch_on_long_lines() -> None:
    log_probs = lines(3, 60, 12, seed=1, scale=5.0)
    lengths = np.array([60, 41, 30])
    for row, hypothesis in enumerate(beam(width=300, top_labels=11)(log_probs, lengths)):
        loss = torch.nn.functional.ctc_loss(
            torch.from_numpy(log_probs[row, : lengths[row], None]).double(),
            torch.tensor(hypothesis.ids)[None],
            torch.from_numpy(lengths[row : row + 1]),
            torch.tensor([len(hypothesis.ids)]),
            reduction="sum",
        )
        assert hypothesis.log_prob == pytest.approx(-loss.item(), abs=0.5)  # pruned paths are missing
        assert hypothesis.log_prob <= -loss.item() + 1e-6  # and no path is counted twice


def test_wider_and_less_pruned_searches_find_no_lower_scores() -> None:
    log_probs, lengths = lines(40, 30, 8, seed=5), np.full(40, 30)
    scores = []
    for width in (1, 2, 4, 16, 64):
        best = beam(width=width, top_labels=4, min_probability=0.001, prune_margin=20.0)(log_probs, lengths)
        scores.append(sum(h.score for h in best))
    assert scores == sorted(scores)
    strict = beam(width=16, top_labels=1, min_probability=0.3, prune_margin=2.0)(log_probs, lengths)
    assert sum(h.score for h in strict) < scores[-1]


def test_blank_frames_change_nothing_but_the_probability() -> None:
    log_probs = lines(1, 6, 4, seed=2, scale=0.5)  # all labels are above the threshold
    nearly = np.log(np.array([[0.9997, 1e-4, 1e-4, 1e-4]], np.float32))
    spread = np.concatenate([*[nearly] * 3, log_probs[0, :3], nearly, log_probs[0, 3:], nearly])
    blank = np.full((1, 4), -math.inf, np.float32)
    blank[0, 0] = nearly[0, 0]
    certain = np.concatenate([*[blank] * 3, log_probs[0, :3], blank, log_probs[0, 3:], blank])
    pruned = beam(min_probability=0.001).n_best(spread[None], np.array([11]), 50)[0]
    exact = beam().n_best(certain[None], np.array([11]), 50)[0]
    assert [h.ids for h in pruned] == [h.ids for h in exact]
    assert [h.log_prob for h in pruned] == pytest.approx([h.log_prob for h in exact], abs=1e-5)


def test_best_sequence_is_not_always_that_of_the_best_path() -> None:
    """The three paths of label 1 are together more likely than the empty one, the best single path."""
    log_probs = np.log(np.array([[[0.6, 0.4], [0.6, 0.4]]], np.float32))
    lengths = np.array([2])
    assert Greedy()(log_probs, lengths)[0].ids == []  # 0.36
    assert beam()(log_probs, lengths)[0].ids == [1]  # 0.24 + 0.24 + 0.16


@pytest.mark.parametrize("width", [1, 4])
def test_it_equals_greedy_if_every_frame_is_certain(width: int) -> None:
    torch.manual_seed(0)
    paths = torch.randint(0, 5, (6, 40))
    log_probs = (torch.nn.functional.one_hot(paths, 5) * 12.0).log_softmax(2).numpy()
    lengths = np.full(6, 40)
    found = beam(width=width, min_probability=0.001)(log_probs, lengths)
    assert [h.ids for h in found] == [h.ids for h in Greedy()(log_probs, lengths)]
    for one, best in zip(found, Greedy()(log_probs, lengths), strict=True):
        assert one.log_prob == pytest.approx(best.log_prob, abs=0.01)


@pytest.mark.parametrize("with_model", [False, True])
def test_a_line_reads_the_same_alone_and_in_a_batch(with_model: bool) -> None:
    log_probs = lines(6, 25, 7, seed=4, scale=4.0)
    log_probs[2] = np.log([0.9999, *[1e-5] * 6])  # only blanks
    lengths = np.array([25, 9, 25, 1, 0, 17])
    decoder = beam(
        Bigram(6) if with_model else None,
        width=8,
        top_labels=3,
        min_probability=0.002,
        prune_margin=9.0,
        alpha=0.5,
        beta=1.0,
    )
    together = decoder.n_best(log_probs, lengths, 3)
    for row, length in enumerate(lengths.tolist()):
        assert decoder.n_best(log_probs[row : row + 1, :length], np.array([length]), 3)[0] == together[row]
    assert together[2][0].ids == together[4][0].ids == []


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0, 1e4])
def test_confidence_is_a_probability_and_hypotheses_differ(scale: float) -> None:
    log_probs = lines(5, 40, 12, seed=0, scale=scale)
    for some in beam(Bigram(11), width=8, top_labels=4, alpha=0.5, beta=3.0).n_best(log_probs, np.arange(36, 41), 5):
        assert 0 < len(some) <= 5
        assert len({tuple(h.ids) for h in some}) == len(some)
        assert all(0 <= h.confidence <= 1 for h in some)


def test_nan_gives_an_empty_hypothesis() -> None:
    nothing = beam(width=4)(np.full((2, 5, 3), math.nan, np.float32), np.array([5, 3]))
    assert [h.ids for h in nothing] == [[], []]
    assert [h.confidence for h in nothing] == [0.0, 0.0]


@pytest.mark.parametrize(("probability", "top"), [(0.001, 8), (0.02, 3), (0.0, 50)])
def test_likely_frames_are_those_of_torch_line_by_line(probability: float, top: int) -> None:
    log_probs, lengths = lines(7, 40, 12, seed=3, scale=4.0), np.array([40, 0, 13, 39, 40, 1, 22])
    log_probs[4, :, 1:] = -30.0 - np.arange(11)  # only blanks
    threshold = math.log(probability) if probability else -math.inf
    found = likely_frames(log_probs, lengths, top, threshold)
    assert sorted(found.order.tolist()) == list(range(7))
    assert found.counts.tolist() == sorted(found.counts.tolist(), reverse=True)
    for row, (line, count) in enumerate(zip(found.order.tolist(), found.counts.tolist(), strict=True)):
        frames = torch.from_numpy(log_probs[line, : lengths[line]])
        times = [time for time, frame in enumerate(frames) if (frame[1:] >= threshold).any()]
        assert count == len(times)
        blanks = frames[:, 0].double().tolist()
        previous = 0
        for step, time in enumerate(times):
            assert found.blank[row, step] == blanks[time]
            assert found.gap[row, step] == pytest.approx(sum(blanks[previous:time]), abs=1e-12)
            assert found.has_gap[row, step] == (time > previous)
            previous = time + 1
            best = frames[time, 1:].topk(min(top, 11))
            kept = best.values >= threshold
            scored = found.scores[row, step] > -math.inf
            assert found.scores[row, step][scored].tolist() == best.values[kept].tolist()
            assert found.labels[row, step][scored].tolist() == (best.indices[kept] + 1).tolist()
        assert found.tail[row] == pytest.approx(sum(blanks[previous:]), abs=1e-12)
        assert not found.blank[row, count:].any()
        assert (found.scores[row, count:] == -math.inf).all()
