"""Characters and words are found where they were drawn, whatever the preprocessing does to the line."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest
from jaxtyping import Float64
from numpy import ndarray

from htr_lightning.characters import Character, Placed, frame_stride, locate
from htr_lightning.data.affine import moved, scaling
from htr_lightning.data.page.crop import cut_polygon
from htr_lightning.data.page.page import Points, box_corners
from htr_lightning.data.preprocess import FitFrame, FitHeight, NormalizeHandwriting
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.metrics.calibration import Calibration
from htr_lightning.model.ctc import CTCRecognizer
from htr_lightning.reading.open import load_all
from htr_lightning.reading.words import words_of
from htr_lightning.text.codec import Codec
from htr_lightning.text.direction import visual, visual_order

PREPROCESSING = {
    "fit": FitHeight(32, margin=6),
    "stretched": FitHeight(24, width_scale=1.7),
    "frame": FitFrame(32, 400),
    "stretched frame": FitFrame(32, 100, keep_aspect=False),
    "normalised": NormalizeHandwriting(32, None, margin=8),
}


def drawing(lines: int, **settings: object) -> Synthetic:
    return Synthetic("test", {"test": lines}, {"test": lines}, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PREPROCESSING)
@pytest.mark.parametrize("table", [False, True])
def test_ink_in_the_array_lies_where_it_lies_in_the_image(name: str, table: bool) -> None:
    preprocess = PREPROCESSING[name]
    for sample in drawing(4, neighbor_fraction=0.0):
        image = cv2.resize(sample.image, None, fx=3, fy=3)
        if table:  # around the paper, which normalisation crops
            image = cv2.copyMakeBorder(image, 60, 40, 90, 30, cv2.BORDER_CONSTANT, value=25)
        array, placement = preprocess.placed(image)
        np.testing.assert_array_equal(array, preprocess(image))
        rows, columns = np.nonzero(array > 0.8 * array.max())
        assert len(rows) > 20
        where = moved(np.stack((columns + 0.5, rows + 0.5), 1).astype(np.float64), placement)
        inside = (where >= 0).all(1) & (where < image.shape[::-1]).all(1)
        ink = cv2.erode(image, np.ones((9, 9), np.uint8)) < 140  # dark within four pixels
        x, y = where[inside].astype(int).T
        assert ink[y, x].mean() > 0.95
        assert inside.mean() > 0.98


@pytest.mark.parametrize("angle", [0.0, 3.0, -20.0, 90.0, 93.0, 180.0, -88.5])
def test_a_point_of_a_crop_is_the_same_point_of_the_page(angle: float) -> None:
    page = np.full((400, 500), 230, np.uint8)
    spot = np.array([230.0, 190.0])
    cv2.circle(page, (230, 190), 4, 0, -1)
    crop, to_page = cut_polygon(page, [(150.0, 150.0), (320.0, 140.0), (330.0, 240.0), (140.0, 250.0)], angle)
    dark = np.stack(np.nonzero(crop < 90)[::-1], 1).mean(0)
    np.testing.assert_allclose(moved(dark[None], to_page)[0], spot, atol=1.5)


def peaky(texts: str, peaks: Sequence[int], frames: int, codec: Codec) -> Float64[ndarray, "T C"]:
    """Return log-probabilities that read the characters of a text in visual order at given frames."""
    probabilities = np.full((frames, len(codec)), 1e-4)
    probabilities[:, 0] = 1
    for frame, label in zip(peaks, codec.encode(texts), strict=True):
        probabilities[frame] = 1e-4
        probabilities[frame, label] = 1
    return np.log(probabilities / probabilities.sum(1, keepdims=True))


def bars(*places: tuple[int, int], width: int = 200) -> Placed:
    array = np.zeros((32, width), np.float32)
    for start, end in places:
        array[8:24, start:end] = 1
    return Placed(array, scaling(2, 3), 0)


def spans(characters: Sequence[Character]) -> list[tuple[str, float, float]]:
    return [(one.text, one.corners[0][0] / 2, one.corners[1][0] / 2) for one in characters]


def test_words_begin_and_end_with_their_ink_and_letters_meet_between_their_peaks() -> None:
    codec = Codec("ab ", ["<blank>"])
    line = bars((10, 50), (80, 120), width=200)
    found = locate("ab a", peaky("ab a", [0, 10, 15, 16], 50, codec), line, codec, "auto", Calibration())
    # the first peak is beside the ink, as that of the space and of the last letter, which is at the start of the gap
    assert spans(found) == [("a", 10, 22), ("b", 22, 50), (" ", 50, 80), ("a", 80, 120)]
    assert found[0].corners == ((20, 0), (44, 0), (44, 96), (20, 96))
    assert all(0.9 < one.confidence < 1 for one in found)


def test_text_without_gaps_or_ink_is_placed_by_its_peaks() -> None:
    codec = Codec("ab ", ["<blank>"])
    for line in (bars((0, 200)), bars(), Placed(np.ones((32, 200), np.float32), scaling(2, 3), 0)):
        found = locate("a b", peaky("a b", [10, 20, 30], 50, codec), line, codec, "auto", Calibration())
        assert [end for _, _, end in spans(found)[:-1]] == [62, 102]
        assert [start for _, start, _ in spans(found)[1:]] == [62, 102]


def test_right_to_left_text_is_in_logical_order() -> None:
    codec = Codec("אב ", ["<blank>"])
    text = "אב א"
    line = bars((10, 50), (80, 160))
    log_probs = peaky(visual(text, "auto"), [7, 16, 25, 35], 50, codec)
    found = locate(text, log_probs, line, codec, "auto", Calibration())
    assert "".join(one.text for one in found) == text
    assert [start for _, start, _ in spans(found)] == [122, 80, 50, 10]
    words = words_of(found, scaling(1, 1), box_corners(0.0, 0.0, 400.0, 96.0))
    assert [(word.text, min(word.polygon)[0]) for word in words] == [("אב", 160), ("א", 20)]


@pytest.mark.parametrize("text", ["abc", "אבג", "12 אב (x) גד", "א\u05b0ב 12,5 abc"])
def test_the_visual_order_is_that_of_the_visual_text(text: str) -> None:
    order, shown = visual_order(text), visual(text)
    assert sorted(order) == list(range(len(text)))
    assert all(text[index] == seen or seen in "()" for index, seen in zip(order, shown, strict=True))


def test_a_character_outside_the_alphabet_lies_between_its_neighbours() -> None:
    codec = Codec("ab", ["<blank>"])
    found = locate("aéb", peaky("ab", [10, 30], 50, codec), bars((0, 200)), codec, "auto", Calibration())
    assert [(text, start, end) for text, start, end in spans(found)][1] == ("é", 82, 82)
    assert [one.confidence > 0 for one in found] == [True, False, True]
    assert locate("ab" * 40, peaky("ab", [10, 30], 50, codec), bars(), codec, "auto", Calibration()) == ()


@pytest.mark.parametrize(
    ("columns", "frames", "stride"), [(400, 100, 4), (401, 101, 4), (403, 100, 4), (400, 128, 3.125)]
)
def test_the_stride_is_whole_if_only_the_last_frame_is_not(columns: int, frames: int, stride: float) -> None:
    assert frame_stride(columns, frames) == stride


def test_a_word_is_the_part_of_its_line_between_its_edges() -> None:
    outline: Points = [(0.0, 0.0), (100.0, 20.0), (200.0, 0.0), (200.0, 60.0), (0.0, 60.0)]
    corners = [((a, -10.0), (a + 25.0, -10.0), (a + 25.0, 80.0), (a, 80.0)) for a in (50.0, 75.0, 120.0, 150.0)]
    characters = [Character(text, at, p) for text, at, p in zip("ab c", corners, (0.5, 0.125, 0.9, 1.0), strict=True)]
    first, second = words_of(characters, np.eye(3), outline)
    assert sorted(first.polygon) == [(50, 10), (50, 60), (100, 20), (100, 60)]
    assert first.confidence == pytest.approx(0.25)
    assert [glyph.text for glyph in first.glyphs] == ["a", "b"]
    assert sorted(second.polygon) == [(150, 10), (150, 60), (175, 5), (175, 60)]


def test_marks_stay_with_their_letters() -> None:
    characters = [Character(text, ((0.0, 0.0), (9.0, 0.0), (9.0, 9.0), (0.0, 9.0)), 1.0) for text in "e\u0301a"]
    (word,) = words_of(characters, np.eye(3), box_corners(0.0, 0.0, 20.0, 20.0))
    assert [glyph.text for glyph in word.glyphs] == ["e\u0301", "a"]


def test_boxes_do_not_change_what_is_read(make_recognizer: Callable[..., CTCRecognizer]) -> None:
    recognizer = make_recognizer()
    images = [sample.image for sample in drawing(3)]
    plain, boxed = recognizer.read(images), recognizer.read(images, boxes=True)
    assert [one[:3] for one in boxed] == [one[:3] for one in plain]
    assert [one.characters for one in boxed] == [one.characters for one in plain]
    assert [tuple(c.confidence for c in one.boxes) for one in boxed] == [one.characters for one in plain]
    aligned = recognizer.align(images, [one.text for one in plain])
    assert [[c[:2] for c in one.boxes] for one in boxed] == [[c[:2] for c in its] for its in aligned]


def word_errors(lines: int) -> Float64[ndarray, " N"]:
    """Return by how many pixels the pretrained reader misses the edges of words in drawn lines of known text."""
    recognizer, reader = load_all(["latin-modern"], "cpu"), drawing(lines, seed=5)
    errors = []
    for index in range(lines):
        truth, text = reader.letter_boxes(index), reader.texts[index]
        assert truth is not None
        (characters,) = recognizer.align([reader[index].image], [text])
        left, right = (
            np.array([c.corners[a][0] + c.corners[b][0] for c in characters]) / 2 for a, b in ((0, 3), (1, 2))
        )
        start = 0
        for word in text.split(" "):
            its = slice(start, start + len(word))
            errors += [left[its].min() - truth[its, 0].min(), right[its].max() - truth[its, 2].max()]
            start += len(word) + 1
    return np.abs(errors)


def test_words_are_found_where_they_were_drawn() -> None:
    errors = word_errors(12)
    assert np.median(errors) < 1.5  # 0.9 pixels on 1,000 lines
    assert np.percentile(errors, 90) < 6
