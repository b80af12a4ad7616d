"""Decoding against the definition of Graves et al. (2006), by writing out every path."""

import math
from itertools import groupby, product

import pytest
import torch

from htr_lightning.decoder.ctc import BLANK, Greedy, Hypothesis, collapse


def b(path: tuple[int, ...]) -> list[int]:
    """Graves' map B: merge repeated labels, then remove the blanks."""
    return [label for label, _ in groupby(path) if label != BLANK]


@pytest.mark.parametrize("frames", range(7))
def test_collapse_is_graves_map_on_every_path(frames: int) -> None:
    for path in product(range(3), repeat=frames):
        assert collapse(path) == b(path)


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("seed", range(10))
def test_greedy_is_the_likeliest_of_all_paths(frames: int, seed: int) -> None:
    torch.manual_seed(seed)
    log_probs = (3 * torch.randn(2, frames, 3)).log_softmax(2)
    hypotheses = Greedy()(log_probs, torch.tensor([frames, frames]))
    for line, hypothesis in zip(log_probs.tolist(), hypotheses, strict=True):
        scores = {
            path: math.fsum(line[frame][label] for frame, label in enumerate(path))
            for path in product(range(3), repeat=frames)
        }
        best = max(scores, key=scores.__getitem__)
        assert hypothesis.ids == b(best)
        assert hypothesis.log_prob == pytest.approx(scores[best], abs=1e-6)


def test_frames_behind_a_line_are_not_read() -> None:
    torch.manual_seed(0)
    log_probs = torch.randn(4, 9, 5).log_softmax(2)
    lengths = torch.tensor([9, 4, 1, 0])
    for row, (length, hypothesis) in enumerate(zip(lengths.tolist(), Greedy()(log_probs, lengths), strict=True)):
        alone = Greedy()(log_probs[row : row + 1, :length], torch.tensor([length]))
        assert [hypothesis] == alone


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0, 1e4])
def test_confidence_is_a_probability(scale: float) -> None:
    torch.manual_seed(0)
    log_probs = (scale * torch.randn(8, 40, 12)).log_softmax(2)
    for hypothesis in Greedy()(log_probs, torch.arange(33, 41)):
        assert 0 <= hypothesis.confidence <= 1


def test_confidence_is_the_geometric_mean_over_labels() -> None:
    assert Hypothesis([1, 2], math.log(0.25), 0.0).confidence == pytest.approx(0.5)
    assert Hypothesis([], math.log(0.25), 0.0).confidence == pytest.approx(0.25)


@pytest.mark.parametrize("frames", [0, 3])
def test_a_line_without_frames_is_empty_and_sure(frames: int) -> None:
    (hypothesis,) = Greedy()(torch.randn(1, frames, 4).log_softmax(2), torch.tensor([0]))
    assert hypothesis == Hypothesis([], 0.0, 0.0)
    assert hypothesis.confidence == 1
