"""Confidences of words and characters follow the text through reordering, normalisation and calibration."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_lightning.decoder.hypothesis import Hypothesis
from htr_lightning.metrics.calibration import Calibration, PlattScaling
from htr_lightning.text.align import carried
from htr_lightning.text.direction import logical, logical_order
from htr_lightning.text.normalize import Normalizer
from htr_lightning.transcription import WORD, Interpreted, Prediction, finished, of_labels, trials_by_level

HEBREW = "אבג (ab 12) דה"


@given(st.text(max_size=30))
def test_words_are_those_that_split_returns(text: str) -> None:
    assert [word[0] for word in WORD.finditer(text)] == text.split()


@given(st.text("ab(1אבؠ ", max_size=12), st.sampled_from(["auto", "ltr", "rtl"]))
def test_every_character_keeps_its_confidence_when_a_text_is_reordered(seen: str, direction: str) -> None:
    order = logical_order(seen, direction)
    assert sorted(order) == list(range(len(seen)))
    turned = logical(seen, direction)
    mirrored = {"(": "()", ")": "()"}
    assert all(turned[k] in mirrored.get(seen[place], seen[place]) for k, place in enumerate(order))


def test_confidences_are_in_logical_order() -> None:
    seen = "hello אב"
    hypothesis = Hypothesis(list(range(8)), -1.0, -1.0, tuple(k / 10 for k in range(8)))
    found = of_labels(logical(seen), hypothesis, logical_order(seen))
    assert dict(zip(found.text, found.characters, strict=True))["ב"] == 0.7


@given(st.text("ab ", max_size=8), st.text("ab ", max_size=8))
def test_a_changed_text_has_a_value_for_each_character(before: str, after: str) -> None:
    values = [k / 10 for k in range(len(before))]
    found = carried(before, after, values)
    assert len(found) == len(after)
    assert all(value in [*values, 1.0] for value in found)
    assert carried(before, before, values) == values


def test_a_composed_character_has_the_smallest_value_of_its_parts() -> None:
    assert carried("the\u0301  x", "thé x", [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])[:2] == [0.9, 0.8]
    assert carried("e\u0301", "\u00e9", [0.6, 0.5]) == [0.5]


def test_words_are_means_of_their_characters_and_all_levels_are_calibrated() -> None:
    raw = finished(Interpreted("ab  c", 0.7, [0.9, 0.5, 0.1, 0.1, 0.3]), Normalizer(), Calibration())
    assert raw.text == "ab c"
    assert raw.words == pytest.approx((0.7, 0.3))
    assert raw.characters[:2] == (0.9, 0.5)
    assert raw.confidence == 0.7
    scales = Calibration(PlattScaling(2.0, 0.0), PlattScaling(1.0, 1.0), PlattScaling(0.5, 0.0))
    found = finished(Interpreted("ab  c", 0.7, [0.9, 0.5, 0.1, 0.1, 0.3]), Normalizer(), scales)
    assert found.confidence == scales.line(0.7)
    assert found.words == pytest.approx([scales.word(one) for one in raw.words])
    assert found.characters == pytest.approx([scales.character(one) for one in raw.characters])


def test_a_decoder_that_does_not_know_labels_gives_all_the_confidence_of_the_line() -> None:
    found = of_labels("abc", Hypothesis([1, 2, 3], -3.0, -3.0))
    assert found.characters == pytest.approx([found.confidence] * 3)


def test_predictions_of_earlier_versions_have_only_lines() -> None:
    old = Prediction("1", "ab", "ax", 0.5, "g")
    assert set(trials_by_level([old])) == {"line"}
    new = old._replace(words=(0.4,), characters=(0.9, 0.2))
    found = trials_by_level([old, new])
    assert [(one.probability, one.correct) for one in found["character"]] == [(0.9, 1), (0.2, 0)]
    assert [(one.probability, one.correct) for one in found["word"]] == [(0.4, 0)]
