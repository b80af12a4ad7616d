"""Lines found on pages are scored by their definition."""

from itertools import permutations

import editdistance
import numpy as np
import pytest

from htr_lightning.data.page.page import Line
from htr_lightning.evidence.segmentation import (
    LineScore,
    assign,
    band_overlaps,
    match,
    order_free_edits,
    page_edits,
    score_lines,
)


def line(x0: float, y0: float, x1: float, y1: float) -> Line:
    return Line("", "", [], [(float(x0), float(y0)), (float(x1), float(y1))], "")


PAGE = [line(100, y, 900, y) for y in range(100, 1000, 50)]


def test_a_band_overlaps_as_two_rectangles_do() -> None:
    """The intersection over union of equal rectangles that are moved by a fraction f is (1 - f) / (1 + f)."""
    base = [(0.0, 0.0), (1000.0, 0.0)]
    for fraction in (0.0, 0.1, 0.25, 0.5, 0.75):
        down, right = [[(x + 1000 * a, y + 40 * b) for x, y in base] for a, b in ((0, fraction), (fraction, 0))]
        expected = (1 - fraction) / (1 + fraction)
        assert band_overlaps([base], [down, right], 40.0) == pytest.approx(np.array([[expected] * 2]), abs=0.03)
    half = [(0.0, 0.0), (500.0, 0.0)]
    assert band_overlaps([base], [half, [], [(3.0, 3.0)]], 40.0) == pytest.approx(np.array([[0.5, 0, 0]]), abs=0.01)


@pytest.mark.parametrize("scale", [0.1, 1, 7])
def test_scores_do_not_depend_on_order_or_scale(scale: float) -> None:
    def scaled(lines: list[Line]) -> list[Line]:
        return [one._replace(baseline=[(x * scale, y * scale) for x, y in one.baseline]) for one in lines]

    shifted = [line(100, 100 + 50 * n + 10, 900, 100 + 50 * n + 10) for n in range(18)]  # a fifth of the distance
    assert score_lines(scaled(PAGE), scaled(shifted[::-1])) == (18, 18, 18)
    apart = [line(100, 100 + 50 * n + 20, 900, 100 + 50 * n + 20) for n in range(18)]  # two fifths: 0.6 / 1.4
    assert score_lines(scaled(PAGE), scaled(apart)).matched == 0


def test_each_line_is_found_once_and_halves_are_not_enough() -> None:
    twice = PAGE + PAGE
    score = score_lines(PAGE, twice)
    assert (score.recall, score.precision) == (1, 0.5)
    thirds = [line(x, 100, x + 260, 100) for x in (100, 370, 640)]
    assert score_lines(PAGE, thirds).matched == 0
    assert score_lines(PAGE, []).plus(score_lines([], PAGE)) == LineScore(0, 18, 18)
    assert score_lines([], []) == LineScore(0, 0, 0)
    assert (LineScore(0, 0, 0).recall, LineScore(0, 0, 0).precision) == (1, 1)
    upside_down = [one._replace(baseline=one.baseline[::-1]) for one in PAGE]
    assert score_lines(PAGE, upside_down).matched == 0


def test_matching_takes_the_best_pair_first() -> None:
    assert match(np.array([[1.0, 0.5], [0.9, 3.0]]), 2.0) == [(0, 1), (1, 0)]
    assert match(np.array([[1.0, 0.5], [3.0, 4.0]]), 2.0) == [(0, 1)]


def test_the_best_pairs_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    for size in range(6):
        for _ in range(20):
            costs = rng.integers(0, 9, (size, size)).astype(float)
            found = assign(costs)
            assert sorted(found) == list(range(size))
            best = min(sum(costs[row, one[row]] for row in range(size)) for one in permutations(range(size)))
            assert sum(costs[row, column] for row, column in enumerate(found)) == best


def test_edits_of_pages() -> None:
    texts = ["un chat", "deux chiens", "trois", "quatre"]
    assert page_edits(texts, texts) == order_free_edits(texts, texts[::-1]) == 0
    assert page_edits(texts, texts[1:]) == len("un chat\n")
    assert order_free_edits(texts, texts[1:]) == order_free_edits(texts[1:], texts) == len("un chat")
    assert page_edits(texts, [texts[1], texts[0], *texts[2:]]) > 0
    wrong = ["trois", "un chats", "quatr", "x"]
    pairs = min(sum(editdistance.eval(a, b) for a, b in zip(texts, some, strict=True)) for some in permutations(wrong))
    assert order_free_edits(texts, wrong) == pairs
    assert order_free_edits([], ["ab"]) == order_free_edits(["ab"], []) == 2
    assert order_free_edits([], []) == page_edits([], []) == 0
