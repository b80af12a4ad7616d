"""Visual order follows UAX #9 over grapheme clusters, and logical order can be restored from it."""

import unicodedata
from itertools import product

import bidi
import pytest
import regex
from bidi.mirror import MIRRORED
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from htr_lightning.data.page.document import read_page
from htr_lightning.text.direction import logical, mirrored, visual, visual_alphabet
from htr_lightning.text.normalize import Normalizer

HEBREW = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "אבגדהוזחטיכלמנסעפצקרשתךםןף")
HARAKAT, NIQQUD = "\u064b\u064e\u064f\u0650\u0651\u0652", "\u05b0\u05b4\u05b8\u05bc\u05c1"
LATIN_WORDS = ["Paris", "a", "naïve", "Œuvre", "Đường"]


def words_of(letters: str, marks: str = "") -> st.SearchStrategy[str]:
    """Words of letters, each with up to two marks."""
    letter = st.tuples(st.sampled_from(letters), st.text(marks, max_size=2) if marks else st.just("")).map("".join)
    return st.lists(letter, min_size=1, max_size=6).map("".join)


ARABIC_WORD = words_of("ابتجحدرسشعفقكلمنهويةىأآـ", HARAKAT) | st.sampled_from(["لا\u200cهو", "ه\u200d", "ـــ"])
HEBREW_WORD = words_of("אבגדהוזחטיכךלמםנןסעפצקרשת", NIQQUD)
DEVANAGARI_WORD = st.sampled_from(["क्षत्रिय", "हिन्दी", "श्री", "ज्ञान", "र्‍य", "क्‌ष", "विद्यार्थी"])
VIETNAMESE_WORD = st.sampled_from(["tiếng", "Việt", "người", "được", "ở"]).flatmap(
    lambda word: st.sampled_from([word, unicodedata.normalize("NFD", word)])
)
CHINESE_WORD = st.text("春眠不覺曉處聞啼鳥。，「」", min_size=1, max_size=6)
NUMBER = st.from_regex(r"\A([0-9]{1,4}|[0-9]{1,2}[.,:/][0-9]{1,2}|[0-9]{1,2}%)\Z") | st.text(
    "٠١٢٣٤٥٦٧٨٩", min_size=1, max_size=4
)
LATIN_WORD = st.sampled_from(LATIN_WORDS)


def bracketed(words: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    inside = st.lists(words, min_size=1, max_size=3).map(" ".join)
    return st.tuples(inside, st.sampled_from(["()", "[]", "«»", '""'])).map(lambda t: f"{t[1][0]}{t[0]}{t[1][1]}")


def lines_of(words: st.SearchStrategy[str], ends: str = ".،:؟!-") -> st.SearchStrategy[str]:
    ended = st.tuples(words, st.sampled_from(["", "", *ends])).map("".join)
    return st.lists(ended, min_size=1, max_size=7).map(" ".join)


RTL_LINES = st.sampled_from([ARABIC_WORD, HEBREW_WORD]).flatmap(lambda word: lines_of(word | bracketed(word)))
RTL_NUMBER_LINES = st.sampled_from([ARABIC_WORD, HEBREW_WORD]).flatmap(
    lambda word: lines_of(word | NUMBER | bracketed(word | NUMBER))
)
ANY_WORD = st.one_of(
    ARABIC_WORD, HEBREW_WORD, DEVANAGARI_WORD, VIETNAMESE_WORD, CHINESE_WORD, NUMBER, LATIN_WORD,
    bracketed(ARABIC_WORD | LATIN_WORD | NUMBER),
)  # fmt: skip
MIXED_LINES = lines_of(ANY_WORD)
LTR_LINES = lines_of(DEVANAGARI_WORD | VIETNAMESE_WORD | CHINESE_WORD | LATIN_WORD, ".,;-")
DIRECTION = st.sampled_from(["auto", "ltr", "rtl"])
many = settings(max_examples=100)


def clusters(text: str) -> list[str]:
    return regex.findall(r"\X", text)


def unmirrored(text: str) -> str:
    """Replace every closing bracket by its mirror image."""
    return "".join(min(c, mirrored(c)) for c in text)


@pytest.mark.parametrize(
    ("text", "seen", "direction"),
    [  # capitals stand for Hebrew letters
        ("car means CAR.", "car means RAC.", "ltr"),
        ("<car MEANS CAR.=", "=.RAC SNAEM car>", "rtl"),
        ("he said <it IS A bmw 500, OK.", "he said <it A SI bmw 500, KO.", "ltr"),
        ("A 12 B", "B 12 A", "rtl"),
        ("A 1,234.5 B", "B 1,234.5 A", "rtl"),
        ("A 50% B", "B 50% A", "rtl"),
        ("A (B) C", "C (B) A", "rtl"),
        ("A (b c) D", "D (b c) A", "rtl"),
        ("AB) C", "C (BA", "rtl"),
        ("A windows 10 B", "B windows 10 A", "rtl"),
        ("A name (short) B", "B name (short) A", "rtl"),
        ("one AB CD two", "one DC BA two", "ltr"),
        ("one (AB) CD two", "one (BA) DC two", "ltr"),
        ("vol. 3 AB", "vol. 3 BA", "ltr"),
        ("A «B» C", "C «B» A", "rtl"),
        ("AB.", ".BA", "auto"),
        ("AB c", "c BA", "auto"),
        ("a BC", "CB a", "auto"),
        ("ab CD", "ab DC", "auto"),
    ],
)
def test_examples_both_ways(text: str, seen: str, direction: str) -> None:
    text, seen = text.translate(HEBREW), seen.translate(HEBREW)
    assert visual(text, direction) == seen
    assert logical(seen, direction) == text


def test_numbers_run_left_to_right_and_a_sign_between_arabic_ones_does_not_join_them() -> None:
    assert visual("سنة 1945/12/3") == "1945/12/3 ةنس"
    assert visual("سنة ١٩٤٥") == "١٩٤٥ ةنس"
    assert visual("من 12-15") == "15-12 نم"  # according to UAX #9 for Arabic
    assert visual("ב 12-15") == "12-15 ב"  # and for Hebrew
    for text in ("سنة 1945/12/3", "سنة ١٩٤٥", "من 12-15", "ב 12-15"):
        assert logical(visual(text)) == text


def test_marks_stay_after_their_letter() -> None:
    assert visual("م\u064fح\u064eم\u0651\u064eد") == "دم\u0651\u064eح\u064eم\u064f"
    assert visual("ש\u05c1\u05b8ל") == "לש\u05c1\u05b8"
    assert visual("ه\u200dم") == "مه\u200d"


@many
@given(RTL_LINES)
def test_right_to_left_lines_are_restored(text: str) -> None:
    assert logical(visual(text)) == text


@many
@given(RTL_NUMBER_LINES)
def test_right_to_left_lines_with_numbers_are_restored(text: str) -> None:
    assert logical(visual(text, "rtl"), "rtl") == text


@given(LTR_LINES)
def test_left_to_right_text_is_unchanged(text: str) -> None:
    assert visual(text) is text
    assert logical(text) is text


@many
@given(MIXED_LINES, DIRECTION)
def test_what_is_restored_looks_the_same(text: str, direction: str) -> None:
    seen = visual(text, direction)
    assert visual(logical(seen, direction), direction) == seen


@many
@given(MIXED_LINES, DIRECTION)
def test_clusters_are_moved_whole(text: str, direction: str) -> None:
    assert sorted(map(unmirrored, clusters(visual(text, direction)))) == sorted(map(unmirrored, clusters(text)))


@many
@given(lines_of(ANY_WORD, ".,:!-+/%<#"), st.sampled_from(["ltr", "rtl"]))
def test_the_order_is_that_of_another_implementation(text: str, direction: str) -> None:
    """python-bidi moves marks before their letter and does not mirror, so marks and bracket direction are ignored."""
    bare = "".join(c for c in text if unicodedata.bidirectional(c) not in ("NSM", "BN"))
    theirs = bidi.get_display(bare, base_dir=direction[0].upper())
    assert unmirrored(visual(bare, direction)) == unmirrored(theirs)


@many
@given(st.text(st.sampled_from("אבع1٢aZ +-,.:/%#()[]<>«»\t!"), max_size=14), st.sampled_from(["ltr", "rtl"]))
def test_the_order_of_any_text_is_that_of_another_implementation(text: str, direction: str) -> None:
    theirs = bidi.get_display(text, base_dir=direction[0].upper())
    assert unmirrored(visual(text, direction)) == unmirrored(theirs)


@given(st.text(st.characters(exclude_categories=["Cs"])), DIRECTION)
def test_any_text_has_an_order(text: str, direction: str) -> None:
    assert len(visual(text, direction)) == len(logical(text, direction)) == len(text)


@given(st.text("אב12ab ()", max_size=9))
def test_the_direction_of_a_line_can_be_told_from_its_visual_order(text: str) -> None:
    sides = {direction: visual(text, direction) for direction in ("ltr", "rtl")}
    assume(sides["ltr"] != sides["rtl"])
    (direction,) = [d for d, seen in sides.items() if seen == visual(text)]
    assert logical(visual(text)) == logical(sides[direction], direction)


def test_mirroring_is_its_own_inverse_and_knows_every_bracket() -> None:
    every = [c for c in map(chr, range(0x110000)) if unicodedata.mirrored(c)]
    assert all(mirrored(mirrored(c)) == c for c in every)
    brackets = [c for c in every if unicodedata.category(c) in ("Ps", "Pe", "Pi", "Pf")]
    assert len(brackets) > 100
    assert {c for c in brackets if mirrored(c) != MIRRORED.get(c, mirrored(c))} == set(
        "༺༻༼༽᚛᚜"
    )  # their names do not follow the pattern


def test_the_alphabet_gets_the_mirror_images_that_right_to_left_texts_need() -> None:
    assert visual_alphabet("אב)") == ["א", "ב", ")", "("]
    assert visual_alphabet("אב)(") == ["א", "ב", ")", "("]
    assert visual_alphabet("ab)") == ["a", "b", ")"]
    assert visual_alphabet("ab)", "rtl") == ["a", "b", ")", "("]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_every_line_of_real_arabic_pages_is_restored(htr_data, form: str) -> None:
    normalize = Normalizer(form)
    pages = [path for name in ("rasam", "tarima") for path in sorted((htr_data / "samples" / name).glob("*.xml"))]
    texts = [text for page in pages for line in read_page(page).lines if (text := normalize(line.text))]
    assert len(texts) > 200
    assert [text for text in texts if logical(visual(text)) != text] == []
    assert sum(visual(text) != text for text in texts) > 200


@pytest.mark.parametrize(
    "text", ["(" * 100_000 + "א", "א" + "(א" * 50_000, "א" + "%" * 100_000, "א" + " " * 100_000 + "a"]
)
def test_long_unusual_lines_are_fast(text: str) -> None:
    assert len(logical(visual(text))) == len(text)  # within the time limit of a test


@pytest.mark.parametrize("direction", ["ltr", "rtl"])
def test_every_short_text_is_ordered_as_elsewhere_and_restored_to_look_the_same(direction: str) -> None:
    for length in (1, 2, 3):
        for text in map("".join, product("אעa1١ +,%()", repeat=length)):
            seen = visual(text, direction)
            assert unmirrored(seen) == unmirrored(bidi.get_display(text, base_dir=direction[0].upper()))
            assert visual(logical(seen, direction), direction) == seen
