"""Equivalent texts become identical."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_lightning.errors import InputError
from htr_lightning.text.normalize import Normalizer

FORMS = ("NFC", "NFD", "NFKC", "NFKD")
JOINERS, SELECTORS = "\u200c\u200d", "\ufe00\ufe0f\U000e0100"
# Without ink anywhere: format characters, direction marks and controls, tags, the grapheme joiner and a filler
ALWAYS = "\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2066\u2069\ufeff\u00ad\u061c\u034f\U000e0041"
ALWAYS += "\ufff9\u3164"
texts = st.text(
    st.one_of(
        st.sampled_from("aeéÅ ﬁ\u0301\u0327\u00a0\n\t'’ 한"),
        st.sampled_from(f"{ALWAYS}{JOINERS}{SELECTORS}بक्葛👩-\u115f\u1161"),
        st.characters(exclude_categories=["Cs"]),
    )
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
@pytest.mark.parametrize("remove", [True, False])
@given(text=texts)
def test_normalising_twice_is_normalising_once(form: str, collapse: bool, remove: bool, text: str) -> None:
    normalize = Normalizer(form, collapse, remove_invisible=remove)
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


@pytest.mark.parametrize("character", ALWAYS)
def test_a_character_without_ink_is_removed_on_request_only(character: str) -> None:
    for before, after in (("a", "b"), ("ب", "ت"), ("क", "ष"), ("葛", "城"), ("א", "ב")):
        text = f"{before}{character}{after}"
        assert Normalizer("")(text) == text
        assert Normalizer("", remove_invisible=True)(text) == before + after


@given(texts)
def test_only_characters_without_ink_are_removed(text: str) -> None:
    def visible(some: str) -> list[str]:
        hidden = ("Cf", "Mn", "Cn")
        return [c for c in some if unicodedata.category(c) not in hidden and c not in "\u3164\uffa0\u115f\u1160"]

    text = text.replace("\u00ad", "")
    found = Normalizer("", collapse_spaces=False, remove_invisible=True)(text)
    assert visible(found) == visible(text)
    assert not set(found) & set(ALWAYS)


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cخواهم",
        "د\u064e\u200cش",
        "\u200dه",
        "क्\u200dष क्\u200cष",
        "र्\u200dय",
        "മല\u200d",
        "👩\u200d🔬",
        "👩🏽\u200d🔬",
        "❤\ufe0f",
        "葛\U000e0100城",
        "ᠮᠣ\u180bᠩᠭ",
        "\u115f\u1161",
    ],
)
def test_joiners_and_selectors_that_change_a_shape_are_kept(text: str) -> None:
    assert Normalizer("", remove_invisible=True)(text) == text


@pytest.mark.parametrize(
    "text", ["a\u200cb", "a\u200d", "\u200db", "é\u200db", "1\u200c2", "葛\u200d城", "a\ufe0f", "א\u200cב"]
)
def test_joiners_and_selectors_that_change_no_shape_are_removed(text: str) -> None:
    assert Normalizer("", remove_invisible=True)(text) == text.translate(dict.fromkeys(map(ord, JOINERS + SELECTORS)))


def test_a_soft_hyphen_is_a_hyphen_at_the_end_of_a_line_only() -> None:
    normalize = Normalizer(remove_invisible=True)
    found = {text: normalize(text) for text in ("ab\u00ad", "ab\u00ad ", "ab-\u00ad", "a\u00adb", "a\u00adb\u00ad")}
    assert list(found.values()) == ["ab-", "ab-", "ab-", "ab", "ab-"]


def test_letters_are_composed_across_removed_characters() -> None:
    assert Normalizer(remove_invisible=True)("e\u200b\u0301") == "é"
