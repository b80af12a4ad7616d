"""Edit operations reproduce both texts and are minimal."""

from functools import cache

import editdistance
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_lightning.text.align import Edit, edits

short = st.text("aab é", max_size=6)


@cache
def fewest(reference: str, hypothesis: str) -> int:
    """Compute the distance by trying all operations."""
    if not reference or not hypothesis:
        return len(reference) + len(hypothesis)
    return min(
        fewest(reference[1:], hypothesis[1:]) + (reference[0] != hypothesis[0]),
        fewest(reference[1:], hypothesis) + 1,
        fewest(reference, hypothesis[1:]) + 1,
    )


@given(short, short)
def test_they_rebuild_both_texts_and_are_minimal(reference: str, hypothesis: str) -> None:
    found = edits(reference, hypothesis)
    assert "".join(edit.reference for edit in found) == reference
    assert "".join(edit.hypothesis for edit in found) == hypothesis
    assert sum(not edit.correct for edit in found) == fewest(reference, hypothesis)
    assert all(len(edit.reference) <= 1 and len(edit.hypothesis) <= 1 and edit != Edit("", "") for edit in found)


@given(st.text(max_size=40), st.text(max_size=40))
def test_their_count_is_the_edit_distance_of_any_texts(reference: str, hypothesis: str) -> None:
    wrong = [edit for edit in edits(reference, hypothesis) if not edit.correct]
    assert len(wrong) == editdistance.eval(reference, hypothesis)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "wrong"),
    [
        ("same", "same", []),
        ("", "", []),
        ("chat", "chot", [("a", "o")]),
        ("un deux", "undeux", [(" ", "")]),
        ("dix", "diix", [("", "i")]),
        ("人", "入", [("人", "入")]),
        ("ab", "", [("a", ""), ("b", "")]),
    ],
)
def test_what_they_are(reference: str, hypothesis: str, wrong: list[tuple[str, str]]) -> None:
    assert [edit for edit in edits(reference, hypothesis) if not edit.correct] == wrong
