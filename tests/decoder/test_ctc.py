"""Decoding against the definition of Graves et al. (2006), by writing out every path."""

import math
from collections import defaultdict
from itertools import groupby, product

import numpy as np
import pytest
import torch

from htr_lightning.decoder.ctc import BLANK, Greedy, collapse, log_likelihoods
from htr_lightning.decoder.hypothesis import Hypothesis
from htr_lightning.decoder.lexicon import Lexicon
from htr_lightning.errors import InputError


def random_lines(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Log-probabilities of frames."""
    logits = scale * np.random.default_rng(seed).normal(size=shape)
    return (logits - np.logaddexp.reduce(logits, axis=2, keepdims=True)).astype(np.float32)


def b(path: tuple[int, ...]) -> list[int]:
    """Graves' map B: merge repeated labels, then remove the blanks."""
    return [label for label, _ in groupby(path) if label != BLANK]


@pytest.mark.parametrize("frames", range(7))
def test_collapse_is_graves_map_on_every_path(frames: int) -> None:
    for path in product(range(3), repeat=frames):
        assert collapse(path) == b(path)


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("seed", range(10))
def test_greedy_finds_the_most_likely_of_all_paths(frames: int, seed: int) -> None:
    log_probs = random_lines(2, frames, 3, seed=seed, scale=3)
    hypotheses = Greedy()(log_probs, np.array([frames, frames]))
    for line, hypothesis in zip(log_probs.tolist(), hypotheses, strict=True):
        scores = {
            path: math.fsum(line[frame][label] for frame, label in enumerate(path))
            for path in product(range(3), repeat=frames)
        }
        best = max(scores, key=scores.__getitem__)
        assert hypothesis.ids == b(best)
        assert hypothesis.log_prob == pytest.approx(scores[best], abs=1e-6)


def test_frames_after_the_end_of_a_line_are_ignored() -> None:
    log_probs = random_lines(4, 9, 5)
    lengths = np.array([9, 4, 1, 0])
    for row, (length, hypothesis) in enumerate(zip(lengths.tolist(), Greedy()(log_probs, lengths), strict=True)):
        alone = Greedy()(log_probs[row : row + 1, :length], np.array([length]))
        assert [hypothesis] == alone


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0, 1e4])
def test_confidence_is_a_probability(scale: float) -> None:
    log_probs = random_lines(8, 40, 12, scale=scale)
    for hypothesis in Greedy()(log_probs, np.arange(33, 41)):
        assert 0 <= hypothesis.confidence <= 1


def test_confidence_is_the_geometric_mean_over_labels() -> None:
    assert Hypothesis([1, 2], math.log(0.25), 0.0).confidence == pytest.approx(0.5)
    assert Hypothesis([], math.log(0.25), 0.0).confidence == pytest.approx(0.25)


@pytest.mark.parametrize("frames", [0, 3])
def test_a_line_without_frames_is_empty_with_confidence_one(frames: int) -> None:
    (hypothesis,) = Greedy()(random_lines(1, frames, 4), np.array([0]))
    assert hypothesis == Hypothesis([], 0.0, 0.0)
    assert hypothesis.confidence == 1


def test_greedy_has_one_hypothesis_and_no_language_model() -> None:
    log_probs, lengths = random_lines(2, 7, 5), np.array([7, 3])
    assert Greedy().n_best(log_probs, lengths, 1) == [[best] for best in Greedy()(log_probs, lengths)]
    with pytest.raises(InputError, match=r"n_best=2: .*htr tune-decoder"):
        Greedy().n_best(log_probs, lengths, 2)
    with pytest.raises(InputError, match="decoder=beam"):
        Greedy().with_automaton(Lexicon(["a"]).automaton("a"))


@pytest.mark.parametrize("frames", [1, 2, 4, 6])
def test_likelihoods_are_sums_over_all_paths(frames: int) -> None:
    log_probs = random_lines(2, frames, 3, seed=frames, scale=2)
    lengths = np.array([frames, max(1, frames - 1)])
    sums: dict[tuple[int, tuple[int, ...]], float] = defaultdict(float)
    for line, length in enumerate(lengths.tolist()):
        for path in product(range(3), repeat=length):
            score = math.fsum(log_probs[line, t, label].item() for t, label in enumerate(path))
            sums[line, tuple(collapse(path))] += math.exp(score)
    every = [(line, labels) for n in range(frames + 2) for labels in product((1, 2), repeat=n) for line in (0, 1)]
    found = log_likelihoods(
        log_probs, lengths, [list(labels) for _, labels in every], np.array([at for at, _ in every])
    )
    expected = [math.log(sums[one]) if one in sums else -math.inf for one in every]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    assert -math.inf in expected  # some sequences need more frames


def test_likelihoods_agree_with_torch() -> None:
    log_probs, lengths = random_lines(6, 60, 9, seed=1, scale=2), np.array([60, 41, 60, 7, 1, 33])
    rng = np.random.default_rng(0)
    labels = [rng.integers(1, 9, size).tolist() for size in (20, 12, 0, 3, 1, 30)]
    flat, sizes = torch.tensor([label for one in labels for label in one]), torch.tensor([len(one) for one in labels])
    losses = torch.nn.functional.ctc_loss(
        torch.from_numpy(log_probs).double().transpose(0, 1), flat, torch.from_numpy(lengths), sizes, reduction="none"
    )
    found = log_likelihoods(log_probs, lengths, labels, np.arange(6))
    np.testing.assert_allclose(found, -losses.numpy(), rtol=1e-9)


def test_the_likelihood_of_nan_is_zero_and_of_no_sequence_nothing() -> None:
    nothing = np.full((1, 4, 3), np.nan, np.float32)
    assert log_likelihoods(nothing, np.array([4]), [[1]], np.array([0])).tolist() == [-math.inf]
    assert log_likelihoods(nothing, np.array([4]), [], np.zeros(0, np.int64)).tolist() == []
