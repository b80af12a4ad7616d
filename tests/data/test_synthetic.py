"""Drawn lines: the same for everyone, by hands that the other splits never saw."""

from pathlib import Path

import numpy as np
import pytest

from htr_lightning.data.reader.hand import CURSIVE, PRINTED, glyph
from htr_lightning.data.reader.synthetic import Synthetic, read_words
from htr_lightning.data.sample import Reader
from htr_lightning.errors import InputError

COUNTS = {"train": 60, "val": 30, "test": 30}
HANDS = {"train": 20, "val": 6, "test": 7}
LISTS = ("package:english.txt", "package:french.txt")


def synthetic(split: str = "train", seed: int = 0, words: str = LISTS[0], **others) -> Synthetic:
    return Synthetic(split, **({"lines": COUNTS, "hands": HANDS, "words": words, "seed": seed} | others))


def test_a_line_is_the_same_in_any_order_and_from_any_reader() -> None:
    one, other = synthetic(), synthetic()
    forwards = {index: one[index] for index in range(12)}
    for index in (11, 3, 7, 0, 3):
        again = other[index]
        np.testing.assert_array_equal(again.image, forwards[index].image)
        assert (again.id, again.text, again.group) == (forwards[index].id, forwards[index].text, forwards[index].group)


def test_another_seed_index_or_split_is_another_line() -> None:
    lines = [synthetic()[0], synthetic()[1], synthetic(seed=1)[0], synthetic("val")[0], synthetic("test")[0]]
    pixels = {line.image.tobytes() for line in lines}
    assert len(pixels) == len(lines)


def test_more_lines_do_not_change_the_first_ones() -> None:
    long = synthetic(lines=dict.fromkeys(COUNTS, 1000))
    np.testing.assert_array_equal(long[5].image, synthetic()[5].image)


@pytest.mark.parametrize("split", COUNTS)
def test_what_the_lists_say_is_what_the_samples_say(split: str) -> None:
    reader = synthetic(split)
    assert isinstance(reader, Reader)
    samples = list(reader)
    assert len(samples) == len(reader) == COUNTS[split]
    assert [sample.text for sample in samples] == reader.texts
    assert [sample.id for sample in samples] == reader.ids
    assert [sample.group for sample in samples] == reader.groups
    assert len(set(reader.ids)) == len(reader)
    for (height, width), sample in zip(reader.sizes, samples, strict=True):
        assert 40 <= sample.image.shape[0] <= 64
        assert 0.25 < (width / height) / (sample.image.shape[1] / sample.image.shape[0]) < 4  # enough to batch by


def test_every_hand_writes_and_no_split_shares_one() -> None:
    habits: dict[tuple[float, ...], str] = {}
    for split, count in HANDS.items():
        reader = synthetic(split)
        assert len(set(reader.groups)) == count
        for hand in {reader._writer(index) for index in range(len(reader))}:
            writer = reader._hand(hand)
            key = (writer.slant, writer.width, writer.x_height, writer.pen, writer.bend)
            assert key not in habits, f"{split} shares a hand with {habits.get(key)}"
            habits[key] = split
    assert len(habits) == sum(HANDS.values())


@pytest.mark.parametrize("words", LISTS)
def test_texts_are_words_of_the_list_with_prose_around_them(words: str) -> None:
    reader = synthetic(words=words, lines=dict.fromkeys(COUNTS, 2000), length=(2, 5))
    known = set(read_words(words))
    known |= {word[:1].upper() + word[1:] for word in known}
    for text in reader.texts:
        parts = text.split(" ")
        assert 2 <= len(parts) <= 5
        for part in parts:
            core = part if part in known else part.strip("().,;:!?-\"'")
            assert core in known or core.isdecimal() or part[:-1] in known, text
    assert any(c.isdecimal() for text in reader.texts for c in text)
    assert any(c.isupper() for text in reader.texts for c in text)


@pytest.mark.parametrize("words", LISTS)
@pytest.mark.parametrize("font", [*PRINTED, *CURSIVE])
def test_every_font_can_write_every_character(words: str, font: str) -> None:
    listed = {c for word in read_words(words) for form in (word, word[:1].upper()) for c in form}
    for character in listed | set("0123456789,.;:!?-'\"()"):
        drawn = glyph(font, character)
        assert drawn.strokes, character
        assert drawn.advance > 0, character


@pytest.mark.parametrize("words", LISTS)
def test_lines_are_dark_ink_on_light_paper(words: str) -> None:
    for sample in synthetic(words=words):
        paper, ink = np.median(sample.image), np.percentile(sample.image, 2)
        assert paper > 150
        assert paper - ink > 30, sample.id


def test_a_character_that_no_hand_can_write_is_named() -> None:
    with pytest.raises(ValueError, match=r"U\+4E2D"):
        glyph("futural", "中")


def test_a_word_list_of_one_s_own_is_read(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("abba\n\nbaba\n", encoding="utf-8")
    reader = synthetic(words=str(tmp_path / "own.txt"))
    assert {c.lower() for text in reader.texts for c in text if c.isalpha()} == {"a", "b"}


@pytest.mark.parametrize("content", [None, b"", b" \n\n", b"\xff\xfe\xff"])
def test_a_word_list_that_is_none_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "own.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"own\.txt"):
        read_words(str(tmp_path / "own.txt"))
    with pytest.raises(InputError, match=r"klingon\.txt"):
        read_words("package:klingon.txt")


def test_a_split_of_another_name_and_a_line_beyond_the_last_are_refused() -> None:
    with pytest.raises(InputError, match="'dev'"):
        synthetic("dev")
    with pytest.raises(IndexError):
        synthetic()[60]
