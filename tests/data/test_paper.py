"""The paper in a photo is found, its polarity detected and its light evened out, and ordinary lines stay unchanged."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from htr_lightning.data.paper import clean, dark_on_light, find_paper, thumbnail
from htr_lightning.data.preprocess import FitHeight
from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.data.reader.synthetic import Synthetic

SIZES = [(60, 500), (150, 130), (400, 300)]


def written(size: tuple[int, int], ink: int = 50, paper: int = 225) -> np.ndarray:
    """Return dark ink in the middle of light paper."""
    image, (height, width) = np.full(size, paper, np.uint8), size
    text = "preprocess" if width > 2 * height else "5"
    scale = height / (40 if width > 2 * height else 60)
    (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, round(2.5 * scale))
    corner = ((width - w) // 2, (height + h) // 2)
    return cv2.putText(
        image, text, corner, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, max(2, round(2.5 * scale)), cv2.LINE_AA
    )


def noisy(image: np.ndarray, deviation: float = 2.0) -> np.ndarray:
    return (image + np.random.default_rng(0).normal(0, deviation, image.shape)).clip(0, 255).astype(np.uint8)


def ramp(size: tuple[int, int], low: float) -> np.ndarray:
    """Return light that falls from 1 on the right to `low` on the left."""
    return np.broadcast_to(np.linspace(low, 1, size[1]), size)


def surrounded(image: np.ndarray, level: int, top: int, right: int, bottom: int, left: int) -> np.ndarray:
    return np.pad(image, ((top, bottom), (left, right)), constant_values=level)


@pytest.mark.parametrize("seed", range(5))
def test_ink_is_dark_whichever_way_a_line_was_scanned(seed: int) -> None:
    line = np.random.default_rng(seed).integers(200, 240, (40, 300), dtype=np.uint8)
    cv2.putText(line, "polarity", (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 1, 30 + 20 * seed, 2 + seed)
    np.testing.assert_array_equal(dark_on_light(line), line)
    np.testing.assert_array_equal(dark_on_light(255 - line), line)


@pytest.mark.parametrize("level", [0, 100, 255])
def test_an_image_without_contrast_stays_as_it_is(level: int) -> None:
    blank = np.full((20, 30), level, np.uint8)
    np.testing.assert_array_equal(dark_on_light(blank), blank)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("low", [0.7, 0.3, 0.15])
def test_polarity_and_grey_levels_do_not_depend_on_the_light(size: tuple[int, int], low: float) -> None:
    even = written(size)
    dark, light = noisy(even * ramp(size, low), 1), noisy((275.0 - even) * ramp(size, low), 1)
    for image in (dark, light):
        cleaned = clean(image, uneven=0.1)
        ink, paper = cleaned[even < 60], cleaned[even == 225]
        assert np.percentile(ink, 90) < np.percentile(paper, 2)
        assert np.ptp(np.percentile(paper, (5, 95))) < 0.35 * np.ptp(255 * ramp(size, low))
    np.testing.assert_array_equal(dark_on_light(dark), dark)
    np.testing.assert_array_equal(dark_on_light(light), 255 - light)


@pytest.mark.parametrize("noise", [0, 6])
def test_ordinary_lines_are_not_changed(noise: float) -> None:
    for sample in Synthetic("test", {"test": 12}, {"test": 6}):
        line = noisy(sample.image, noise)
        assert clean(line) is line
        np.testing.assert_array_equal(clean(255 - line), line)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("edges", [(9, 9, 9, 9), (30, 40, 35, 50), (12, 0, 0, 0), (0, 45, 20, 0), (0, 0, 0, 45)])
@pytest.mark.parametrize(("level", "inverted"), [(8, False), (70, False), (30, True)])
def test_a_frame_or_a_table_becomes_paper(
    size: tuple[int, int], edges: tuple[int, int, int, int], level: int, inverted: bool
) -> None:
    top, right, bottom, left = edges
    image = noisy(surrounded(written(size), level, *edges))
    cleaned = clean(255 - image if inverted else image)
    assert cleaned.shape == image.shape
    inside = cleaned[top : top + size[0], left : left + size[1]]
    assert (abs(cleaned.astype(int) - 225) < 20)[
        np.pad(np.zeros(size, bool), ((top, bottom), (left, right)), constant_values=True)
    ].all()
    margin = np.s_[5:-5, 5:-5]  # the edge of the paper is blurred in a photo
    np.testing.assert_array_equal(inside[margin], image[top : top + size[0], left : left + size[1]][margin])
    cropped = clean(image, crop=True)
    assert np.subtract(size, cropped.shape) == pytest.approx(0, abs=8)
    assert (cropped < 100).sum() == (inside < 100).sum()


@pytest.mark.parametrize("angle", [-8, -3, 3, 8])
def test_paper_may_lie_askew_on_a_table(angle: float) -> None:
    image = surrounded(written((300, 260)), 60, 90, 80, 70, 100)
    middle = (image.shape[1] / 2, image.shape[0] / 2)
    turned = cv2.warpAffine(
        image, cv2.getRotationMatrix2D(middle, angle, 1), image.shape[::-1], borderMode=cv2.BORDER_REPLICATE
    )
    cleaned = clean(noisy(turned))
    assert 0.5 < (cleaned < 120).sum() / (written((300, 260)) < 120).sum() < 1.1


def test_strokes_along_the_sides_are_not_a_frame() -> None:
    line = written((64, 500))
    images = []
    for x in (0, 490):  # a bracket
        image = line.copy()
        image[4:60, x : x + 10] = 30
        images.append(image)
    for strokes in ([(0, 16, 0, 200), (0, 150, 160, 200)], [(0, 16, 0, 200), (70, 86, 0, 200), (0, 150, 184, 200)]):
        image = np.full((150, 200), 230, np.uint8)  # the tight crop of a letter with straight strokes
        for top, bottom, left, right in strokes:
            image[top:bottom, left:right] = 40
        images.append(image)
    for image in images:
        for grey in (image, 255 - image):
            assert find_paper(grey, thumbnail(grey)) is None


@pytest.mark.parametrize("text", list("0123456789ABDEOR"))
def test_thick_light_ink_on_a_dark_board_is_not_paper(text: str) -> None:
    image = np.full((220, 200), 25, np.uint8)
    cv2.putText(image, text, (15, 200), cv2.FONT_HERSHEY_SIMPLEX, 8.5, 235, 34, cv2.LINE_AA)
    for grey in (image, 255 - image):
        assert find_paper(grey, thumbnail(grey)) is None
    np.testing.assert_array_equal(clean(image), 255 - image)


@pytest.mark.parametrize("low", [0.35, 0.5])
@pytest.mark.parametrize("sharpness", [0.5, 8.0])
def test_a_shadow_is_not_a_table(low: float, sharpness: float) -> None:
    light = low + (1 - low) / (1 + np.exp(-(np.arange(400) - 190) / sharpness))
    image = noisy(written((300, 400)) * light)  # the middle of the digit is at the edge of the shadow
    assert find_paper(image, thumbnail(image)) is None
    assert find_paper(255 - image, thumbnail(255 - image)) is None
    assert (clean(image) < 120)[written((300, 400)) < 60].mean() > 0.9


@pytest.mark.parametrize("part", ["cremma_mss20", "lathrop"])
def test_real_lines_are_not_changed(htr_data: Path, part: str) -> None:
    lines = PageXml(htr_data / "samples" / part, empty="keep", faulty="skip", reduce=FitHeight(32).reduce)
    assert len(lines) > 70
    changed = [sample.id for sample in lines if clean(sample.image) is not sample.image]
    assert len(changed) <= 0.02 * len(lines), changed
