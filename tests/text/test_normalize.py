"""Equivalent texts become identical."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_lightning.errors import InputError
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


def test_replaced_text_is_gone() -> None:
    assert Normalizer(replace={"’": "'", "“": '"', "”": '"'})("l’“ami”") == 'l\'"ami"'


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_replacement_finds_composed_and_decomposed_letters_alike(form: str) -> None:
    normalize = Normalizer(form, replace={"é": "e"})
    assert normalize(unicodedata.normalize("NFC", "été")) == "ete"
    assert normalize(unicodedata.normalize("NFD", "été")) == "ete"


def test_replacing_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"normalizer\.replace"):
        Normalizer(replace={"": "x"})


@pytest.mark.parametrize(
    "text",
    [
        "क्षत्रिय र्‍य क्‌ष",  # conjuncts, ZWJ and ZWNJ
        "می\u200cخواهم ـــ لا",  # ZWNJ, tatweel
        "شَدَّة",
        "שָׁלוֹם",
        "春眠，不覺曉。",
        "👩\u200d🔬",
    ],
)
def test_characters_that_scripts_need_are_kept(text: str) -> None:
    normalize = Normalizer()
    assert unicodedata.normalize("NFD", normalize(text)) == unicodedata.normalize("NFD", text)
    assert len(normalize(text)) <= len(text)


def test_marks_of_one_letter_have_one_order() -> None:
    """Accept shadda and fatha in either order, and stacked Vietnamese marks composed or decomposed."""
    assert Normalizer()("د\u0651\u064e") == Normalizer()("د\u064e\u0651")
    assert Normalizer()("e\u0323\u0302") == Normalizer()("e\u0302\u0323") == "ệ"


@given(texts)
def test_replacement_is_idempotent(text: str) -> None:
    normalize = Normalizer("NFC", replace={"..": ".", "ae": "e", "’": "'", "ß": "ss"})
    assert normalize(normalize(text)) == normalize(text)
    assert normalize(f"{text}........") == normalize(f"{text}.")
    assert "ae" not in normalize(f"{text}aae")


def test_an_endless_replacement_is_refused() -> None:
    with pytest.raises(InputError, match="'é' occurs in its own replacement"):
        Normalizer(replace={"é": "e\u0301s"})
    with pytest.raises(InputError, match="replacements never end for 'aaaa"):
        Normalizer(replace={"ab": "bbaa"})("a" * 60 + "b")
    assert Normalizer(replace={"ae": "e"})("a" * 300 + "e") == "e"
