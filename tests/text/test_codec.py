"""Decoding inverts encoding, and errors name unknown characters."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_lightning.errors import InputError
from htr_lightning.text.codec import Codec, alphabet_of
from htr_lightning.text.direction import visual_alphabet

texts = st.text(st.characters(exclude_categories=["Cs"]))
specials = st.sampled_from([(), ("<blank>",), ("<pad>", "<start>", "<end>")])


@given(texts, texts, specials)
def test_decoding_inverts_encoding(text: str, other: str, special: tuple[str, ...]) -> None:
    codec = Codec(alphabet_of([text, other, "a"]), special)
    ids = codec.encode(text)
    assert codec.decode(ids) == text
    assert len(ids) == len(text)
    assert len(codec) == len(special) + len(set(text + other + "a"))
    assert all(len(special) <= id < len(codec) for id in ids)


@given(texts, st.lists(st.integers(0, 2)))
def test_specials_have_no_text(text: str, noise: list[int]) -> None:
    codec = Codec(alphabet_of([text, "a"]), ("<pad>", "<start>", "<end>"))
    assert codec.decode([*noise, *codec.encode(text), *noise]) == text


def test_the_order_of_the_alphabet_is_the_order_of_the_ids() -> None:
    assert Codec("cab", ("<blank>",)).encode("abc") == [2, 3, 1]


@given(st.lists(texts))
def test_the_alphabet_of_texts_is_their_characters_by_code_point(lines: list[str]) -> None:
    alphabet = alphabet_of(lines)
    assert set(alphabet) == {c for line in lines for c in line}
    assert all(ord(a) < ord(b) for a, b in pairwise(alphabet))


@pytest.mark.parametrize(
    ("character", "point"), [("é", "U+00E9"), (" ", "U+0020"), ("𝒜", "U+1D49C"), ("\u0301", "U+0301"), ("\n", "U+000A")]
)
def test_an_unknown_character_is_named_with_its_sample_and_code_point(character: str, point: str) -> None:
    with pytest.raises(InputError) as caught:
        Codec("abc").encode(f"ab{character}", "iam/a01-000u-00")
    message = str(caught.value)
    assert message.startswith("iam/a01-000u-00: ")
    assert point in message
    assert "unknown=skip" in message


@given(texts, st.text("abc é"))
def test_known_keeps_exactly_what_can_be_encoded_in_order(text: str, more: str) -> None:
    codec = Codec("abc ")
    known = codec.known(text + more)
    assert known == "".join(c for c in text + more if c in "abc ")
    assert codec.decode(codec.encode(known)) == known


def test_an_alphabet_without_characters_is_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        Codec("", ("<blank>",))


def test_a_character_given_twice_is_named() -> None:
    with pytest.raises(InputError, match=r"U\+00E9"):
        Codec("aébé")


@pytest.mark.parametrize("entry", ["e\u0301", "ab", "", "क्ष"])
def test_an_entry_that_is_not_one_code_point_is_refused(entry: str) -> None:
    with pytest.raises(InputError, match="code point"):
        Codec(["a", entry])


def test_a_digit_that_yaml_parsed_as_a_number_is_refused() -> None:
    with pytest.raises(InputError, match="contains 7, which is not a string; put it in quotes"):
        Codec(iter(["a", 7]))  # type: ignore[list-item]


@pytest.mark.timeout(20)  # comparing every character with every other would take minutes
def test_a_large_alphabet_is_checked_and_mirrored() -> None:
    characters = [chr(code) for code in range(0x20000) if not 0xD800 <= code < 0xE000]
    with pytest.raises(InputError, match=r"contains U\+1FFFF more than once"):
        Codec([*characters, characters[-1]])
    assert visual_alphabet(characters, "rtl") == characters
