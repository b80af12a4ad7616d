"""Pictures of lines with their transcriptions."""

import numpy as np
import pytest

from htr_lightning.picture import augmentation_sheet, edit_sheet, transcription_sheet


def drawn(text: str) -> np.ndarray:
    return transcription_sheet([np.full((40, 200), 255, np.uint8)], [text], [text])


@pytest.mark.parametrize("character", ["é", "œ", "Ж", "λ", "春", "ع"])
def test_letters_of_every_script_are_drawn_and_not_boxes(character: str) -> None:
    missing = drawn("\U000e0fff")
    assert (drawn(character) != drawn(" ")).any()
    assert len(drawn(character)) < len(missing)  # because of the note about missing glyphs


def test_a_right_line_is_green_and_a_wrong_one_is_not() -> None:
    line = np.full((40, 200), 255, np.uint8)
    right = transcription_sheet([line], ["abc"], ["abc"]).astype(int)
    wrong = transcription_sheet([line], ["abc"], ["abd"]).astype(int)
    assert ((right[..., 1] - right[..., 0]) > 60).any()
    assert not ((wrong[..., 1] - wrong[..., 0]) > 60).any()
    assert ((wrong[..., 0] - wrong[..., 1]) > 60).any()


def red(picture: np.ndarray) -> np.ndarray:
    """Return the columns that contain red pixels."""
    picture = picture.astype(int)
    return np.flatnonzero(((picture[..., 0] - picture[..., 1]) > 60).any(0))


def test_only_the_wrong_characters_are_red() -> None:
    line = np.full((40, 200), 255, np.uint8)
    inserted = transcription_sheet([line], ["mmmmmmmmm"], ["mmmmmmmmmi"])
    substituted = transcription_sheet([line], ["imiiiiiii"], ["mmiiiiiii"])
    deleted = transcription_sheet([line], ["immmmmmmmm"], ["mmmmmmmmm"])
    missing_space = transcription_sheet([line], ["mm mm"], ["mmmm"])
    widest = red(transcription_sheet([line], ["m" * 9], [""])).max()
    assert red(inserted).min() > 0.8 * widest
    assert red(substituted).max() < 0.3 * widest
    assert red(deleted).max() < 0.2 * widest
    assert 0 < len(red(missing_space)) < 0.2 * widest
    below = deleted.shape[0] - 26  # the row of the hypothesis
    assert not len(red(deleted[below:]))


def test_long_texts_fit_the_picture() -> None:
    line, text = np.full((40, 200), 255, np.uint8), "mm " * 60
    sheet = transcription_sheet([line], [text], [text + "x"])
    assert red(sheet).max() < sheet.shape[1] - 1


def test_single_characters_are_a_grid_with_the_reference_of_wrong_ones() -> None:
    digits = [np.full((28, 28), grey, np.uint8) for grey in range(10, 250, 10)]
    right = transcription_sheet(digits, ["7"] * 24, ["7"] * 24)
    wrong = transcription_sheet(digits, ["7"] * 24, ["7"] * 23 + ["1"])
    assert right.shape == wrong.shape
    assert right.shape[0] < 24 * 40 < right.shape[1]
    for grey in range(10, 250, 10):
        assert ((right == grey).all(2)).sum() > 40 * 40
    assert not len(red(right))
    assert len(red(wrong)) < 30
    changed = np.flatnonzero((right != wrong).any((0, 2)))
    assert changed.max() - changed.min() < 80  # only one cell differs
    empty = transcription_sheet(digits[:1], ["7"], [""])
    assert len(red(empty))


def test_characters_without_a_glyph_are_listed() -> None:
    line = np.full((40, 200), 255, np.uint8)
    known = transcription_sheet([line], ["春眠 été?"], ["春眠 été?"])
    unknown = transcription_sheet([line], ["春眠 été\u3400"], ["春眠 été\u3400"])
    assert unknown.shape[0] > known.shape[0]
    assert transcription_sheet([], [], []).shape[1] == 1000


def test_right_to_left_text_begins_at_the_right() -> None:
    last, word = drawn("בג"), drawn("אבג")
    width = int((last < 200).any(axis=(0, 2)).nonzero()[0].max())
    assert width < 40  # pixels, including the margin
    assert (last[:, :width] == word[:, :width]).all()
    assert (drawn("אב")[:, :width] != word[:, :width]).any()


def test_the_augmentation_sheet_shows_every_line_and_all_its_versions() -> None:
    before = [np.full((64, 300), 10, np.uint8), np.full((20, 40), 20, np.uint8)]
    after = [[np.full((70, 280), 30, np.uint8), np.full((64, 300), 40, np.uint8)], [np.full((24, 50), 50, np.uint8)]]
    sheet = augmentation_sheet(before, after, height=32)
    for grey, size in [(10, (64, 300)), (20, (20, 40)), (30, (70, 280)), (40, (64, 300)), (50, (24, 50))]:
        rows, columns = np.nonzero(sheet == grey)
        assert rows.max() - rows.min() + 1 == 32
        expected = round(size[1] * 32 / size[0])
        assert expected - 4 <= columns.max() - columns.min() + 1 <= expected
    assert augmentation_sheet([], []).size > 0
    with pytest.raises(ValueError, match="argument"):
        augmentation_sheet(before, after[:1])


@pytest.mark.parametrize(
    "text", ["a\nb", "a\0b", "a\x1b[31mb", "a\ud800b", "a\u2028b", "a" + "\u0301" * 2000, "m" * 10_000]
)
def test_any_text_is_drawn_in_its_own_row(text: str) -> None:
    line = np.full((40, 200), 255, np.uint8)
    note = 26 if "b" in text else 0  # about the character that is drawn as a question mark
    assert len(drawn(text)) == len(drawn("ab")) + note
    sheet = edit_sheet([line], ["a"], ["a"], [text])
    assert sheet.shape == edit_sheet([line], ["a"], ["a"], ["caption"]).shape
    below = len(edit_sheet([], [], [], [])) + 26  # the image begins under the caption
    assert (sheet[below + 10] == 255).all()
