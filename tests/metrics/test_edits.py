"""Error rates are compared with their definition and two other implementations."""

import random
from functools import cache

import jiwer
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.text import CharErrorRate, WordErrorRate

from htr_lightning.metrics.aggregate import EditCounts
from htr_lightning.metrics.edits import EditTotals, line_counts

lines = st.lists(st.tuples(st.text("ab é", max_size=8), st.text("ab é", max_size=8)), max_size=8)


def totals(pairs: list[tuple[str, str]]) -> EditTotals:
    metric = EditCounts()
    metric.update([reference for reference, _ in pairs], [hypothesis for _, hypothesis in pairs])
    return metric.compute()


def levenshtein(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """The Levenshtein distance by its recursive definition."""

    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return distance(len(a), len(b))


@given(st.text("ab é", max_size=9), st.text("ab é", max_size=9))
def test_line_counts_follow_the_definition(reference: str, hypothesis: str) -> None:
    words, read = tuple(reference.split()), tuple(hypothesis.split())
    assert line_counts(reference, hypothesis) == EditTotals(
        edits=levenshtein(tuple(reference), tuple(hypothesis)),
        characters=len(reference),
        word_edits=levenshtein(words, read),
        words=len(words),
        correct_lines=int(reference == hypothesis),
        lines=1,
        empty_references=int(reference == ""),
    )


@given(lines.filter(lambda pairs: any(reference.split() for reference, _ in pairs)))
def test_rates_equal_torchmetrics(pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = zip(*pairs, strict=True)
    ours = totals(pairs)
    assert ours.cer == pytest.approx(float(CharErrorRate()(hypotheses, references)), rel=1e-6)
    assert ours.wer == pytest.approx(float(WordErrorRate()(hypotheses, references)), rel=1e-6)


@pytest.mark.parametrize("length", [63, 64, 65, 127, 128, 129, 639, 640, 641])
def test_long_lines_are_counted_like_short_ones(length: int) -> None:
    dice = random.Random(length)
    reference = "".join(dice.choices("abcd ", k=length))
    hypothesis = "".join(c for c in reference if dice.random() > 0.1) + "".join(dice.choices("abcd ", k=5))
    expected = float(CharErrorRate()([hypothesis], [reference])) * length
    assert line_counts(reference, hypothesis).edits == round(expected)


words = st.lists(st.text("abé", min_size=1, max_size=4), min_size=1, max_size=4).map(" ".join)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=5))
def test_rates_equal_jiwer_for_single_spaces(pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = map(list, zip(*pairs, strict=True))
    ours = totals(pairs)
    assert ours.cer == pytest.approx(jiwer.cer(references, hypotheses))
    assert ours.wer == pytest.approx(jiwer.wer(references, hypotheses))


@given(lines, st.data())
def test_the_counts_do_not_depend_on_the_batches(pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(pairs)), max_size=4)))
    metric = EditCounts()
    for start, end in zip([0, *cuts], [*cuts, len(pairs)], strict=True):
        metric.update([r for r, _ in pairs[start:end]], [h for _, h in pairs[start:end]])
    assert metric.compute() == totals(pairs)


@given(lines, lines)
def test_merged_states_equal_a_single_state(first: list[tuple[str, str]], second: list[tuple[str, str]]) -> None:
    metric, other = EditCounts(), EditCounts()
    metric.update([r for r, _ in first], [h for _, h in first])
    other.update([r for r, _ in second], [h for _, h in second])
    metric.merge_state(other)
    assert metric.compute() == totals(first + second)


def test_states_stay_integers() -> None:
    metric = EditCounts()
    metric.counts += 2**53  # float64 cannot represent the next integer
    metric.update(["a"], ["b"])
    metric.half()
    assert not metric.counts.is_floating_point()
    assert metric.compute().edits == 2**53 + 1


def test_reset_starts_over() -> None:
    metric = EditCounts()
    metric.update(["abc"], ["x"])
    metric.reset()
    metric.update(["ab"], ["a"])
    assert metric.compute() == totals([("ab", "a")])


def test_counts_started_in_inference_mode_continue_outside_it() -> None:
    metric = EditCounts()
    with torch.inference_mode():
        metric.update(["ab"], ["a"])
    metric.update(["ab"], ["b"])
    assert metric.compute().edits == 2


@pytest.mark.parametrize(
    ("reference", "hypothesis", "cer", "wer"),
    [("", "", 0.0, 0.0), ("", "ab c", 4.0, 2.0), ("ab", "", 1.0, 1.0), (" ", "", 1.0, 0.0)],
)
def test_empty_texts_give_finite_rates(reference: str, hypothesis: str, cer: float, wer: float) -> None:
    rates = totals([(reference, hypothesis)])
    assert (rates.cer, rates.wer) == (cer, wer)


def test_insertions_into_an_empty_reference_count_as_edits() -> None:
    rates = totals([("abcd", "abcd"), ("", "xy")])
    assert rates.cer == 2 / 4
    assert rates.empty_references == 1
    assert rates.line_accuracy == 1 / 2


def test_no_lines_give_zero() -> None:
    assert totals([]) == EditTotals(0, 0, 0, 0, 0, 0, 0)
    assert totals([]).cer == totals([]).wer == totals([]).line_accuracy == 0


def test_a_reference_without_hypothesis_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        EditCounts().update(["a", "b"], ["a"])
