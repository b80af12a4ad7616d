"""A line that is read while it is written keeps the start of its text."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_lightning.errors import InputError
from htr_lightning.reading.reader import Reader
from htr_lightning.reading.stream import StreamingReader, draw
from htr_lightning.transcription import Transcription


class Said(Reader):
    """A reader that gives the texts of a list, one for each frame."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts, self.frames = list(texts), 0

    def read(self, frame: Any) -> Transcription:  # type: ignore[override]
        self.frames += 1
        return Transcription(self.texts[self.frames - 1], 0.5)


def stream(texts: Sequence[str], **settings: int) -> tuple[StreamingReader, list[Any]]:
    reader = StreamingReader(Said(texts), **settings)
    return reader, [reader.read(np.full((2, 2), number, np.uint8)) for number in range(len(texts))]


def test_what_two_frames_agree_on_is_stable_but_for_its_end() -> None:
    _, found = stream(["l", "le c", "le cha", "le chat n", "le chat noir"])
    assert [one.text for one in found] == ["l", "le c", "le cha", "le chat n", "le chat noir"]
    assert [one.text[: one.stable] for one in found] == ["", "", "le", "le c", "le chat"]


def test_a_stable_start_outlives_other_readings() -> None:
    _, found = stream(["le chat", "le chat", "la chat noir", "la chat noir"])
    assert [one.text for one in found] == ["le chat", "le chat", "le chat noir", "le chat noir"]
    assert found[-1].stable == len("le ch")


@given(st.lists(st.text("ab ", max_size=8), max_size=8), st.integers(1, 3), st.integers(0, 3))
def test_the_stable_start_only_grows(texts: list[str], agreement: int, open_end: int) -> None:
    reader, found = stream(texts, agreement=agreement, open_end=open_end)
    starts = [one.text[: one.stable] for one in found]
    assert all(after.startswith(before) for before, after in pairwise(starts))
    assert all(len(start) == one.stable for start, one in zip(starts, found, strict=True))
    assert reader.finish() == Transcription(texts[-1] if texts else "", 0.5 if texts else 1.0)
    assert reader.finish() == Transcription("", 1.0)


def test_a_frame_that_did_not_change_is_not_read_again() -> None:
    said = Said(["a", "b"])
    reader = StreamingReader(said)
    frame = np.zeros((3, 3), np.uint8)
    assert reader.read(frame) == reader.read(frame.copy())
    assert said.frames == 1
    frame[0] = 1  # the caller may reuse its array
    reader.read(frame)
    assert said.frames == 2
    reader.finish()
    said.texts.append("c")
    assert reader.read(frame).text == "c"


@pytest.mark.parametrize("settings", [{"agreement": 0}, {"open_end": -1}])
def test_settings_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected an integer"):
        StreamingReader(Said([]), **settings)


def test_strokes_are_drawn_where_they_are_at_any_scale() -> None:
    strokes = [np.array([[0.0, 0.0], [10.0, 0.0]]), np.array([[5.0, 0.0], [5.0, 20.0]])]
    image = draw(strokes)
    assert image.shape == (64, round(10 * 48 / 20) + 17)
    assert image[8, 8] == image[8, 32] == image[8 + 48, 20] == 0
    assert image[40, 8] == 255
    larger = draw([7 * stroke + 1000 for stroke in strokes])
    np.testing.assert_array_equal(image, larger)
    assert (draw([]) == 255).all()
    assert draw([np.array([[3.0, 3.0]])]).min() < 128  # a dot
