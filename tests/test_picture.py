"""Pictures of lines with what was read in them."""

import numpy as np
import pytest

from htr_lightning.picture import augmentation_sheet, transcription_sheet


def drawn(text: str) -> np.ndarray:
    return transcription_sheet([np.full((40, 200), 255, np.uint8)], [text], [text])


@pytest.mark.parametrize("character", ["é", "œ", "Ж", "λ", "春", "ع"])
def test_letters_of_every_script_are_drawn_and_not_boxes(character: str) -> None:
    missing = drawn("\U000e0fff")
    assert (drawn(character) != drawn(" ")).any()
    assert (drawn(character) != missing).any()


def test_a_right_line_is_green_and_a_wrong_one_is_not() -> None:
    line = np.full((40, 200), 255, np.uint8)
    right = transcription_sheet([line], ["abc"], ["abc"]).astype(int)
    wrong = transcription_sheet([line], ["abc"], ["abd"]).astype(int)
    assert ((right[..., 1] - right[..., 0]) > 60).any()
    assert not ((wrong[..., 1] - wrong[..., 0]) > 60).any()
    assert ((wrong[..., 0] - wrong[..., 1]) > 60).any()


def test_right_to_left_text_begins_at_the_right() -> None:
    last, word = drawn("ג"), drawn("אבג")
    width = int((last < 200).any(axis=(0, 2)).nonzero()[0].max())
    assert width < 40  # pixels, the margin with it
    assert (last[:, :width] == word[:, :width]).all()
    assert (drawn("א")[:, :width] != word[:, :width]).any()


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
