"""Texts that mean the same become the same."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_lightning.text.normalize import Normalizer

FORMS = ("NFC", "NFD", "NFKC", "NFKD")
texts = st.text(
    st.one_of(st.sampled_from("aeéÅ ﬁ\u0301\u0327\u00a0\n\t'’ 한"), st.characters(exclude_categories=["Cs"]))
)


@pytest.mark.parametrize("form", FORMS)
@given(text=texts)
def test_composed_and_decomposed_texts_become_equal(form: str, text: str) -> None:
    normalize = Normalizer(form)
    assert normalize(unicodedata.normalize("NFC", text)) == normalize(unicodedata.normalize("NFD", text))


@pytest.mark.parametrize("form", FORMS)
@given(text=texts)
def test_the_result_has_the_form(form: str, text: str) -> None:
    assert unicodedata.is_normalized(form, Normalizer(form, collapse_spaces=False)(text))


@pytest.mark.parametrize("form", [*FORMS, ""])
@pytest.mark.parametrize("collapse", [True, False])
@given(text=texts)
def test_normalising_twice_is_normalising_once(form: str, collapse: bool, text: str) -> None:
    normalize = Normalizer(form, collapse)
    assert normalize(normalize(text)) == normalize(text)


@given(texts)
def test_spaces_collapse_and_words_stay(text: str) -> None:
    result = Normalizer("")(text)
    assert result.split() == text.split()
    assert result.split(" ") == (text.split() or [""])


@given(texts)
def test_without_form_and_collapse_nothing_changes(text: str) -> None:
    assert Normalizer("", collapse_spaces=False)(text) == text


def test_what_is_replaced_is_gone() -> None:
    assert Normalizer(replace={"’": "'", "“": '"', "”": '"'})("l’“ami”") == 'l\'"ami"'


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_replacement_finds_composed_and_decomposed_letters_alike(form: str) -> None:
    normalize = Normalizer(form, replace={"é": "e"})
    assert normalize(unicodedata.normalize("NFC", "été")) == "ete"
    assert normalize(unicodedata.normalize("NFD", "été")) == "ete"
