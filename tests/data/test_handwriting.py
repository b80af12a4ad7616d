"""The measured style of handwriting is the one that it was drawn with."""

import cv2
import numpy as np
import pytest

from htr_lightning.data.handwriting import SLANTS, measure, remove_rules, x_height_band
from htr_lightning.data.preprocess import FitHeight, NormalizeHandwriting


def line(core: tuple[int, int] = (40, 60), stroke_spacing: int = 16, count: int = 30) -> np.ndarray:
    """Ink of 100 rows: down strokes of the core's height, every seventh with an ascender, every ninth a descender."""
    ink = np.zeros((100, stroke_spacing * (count + 4)), np.float32)
    for number in range(count):
        column = stroke_spacing * (number + 2)
        top = core[0] - (18 if number % 7 == 0 else 0)
        bottom = core[1] + (18 if number % 9 == 0 else 0)
        ink[top:bottom, column : column + 5] = 1
    return ink


def slanted(ink: np.ndarray, slant: float) -> np.ndarray:
    shear = np.array([[1, -slant, slant * ink.shape[0] / 2 + 60], [0, 1, 0]], np.float32)
    return cv2.warpAffine(ink, shear, (ink.shape[1] + 120, ink.shape[0]))


def extent(ink: np.ndarray) -> int:
    used = np.flatnonzero((ink > 0.3).any(0))
    return int(used[-1] - used[0])


def grey(ink: np.ndarray) -> np.ndarray:
    return (235 - 200 * ink).astype(np.uint8)


@pytest.mark.parametrize("slant", [-0.5, -0.2, 0.0, 0.3, 0.8])
def test_the_slant_is_the_one_the_strokes_have(slant: float) -> None:
    assert measure(slanted(line(), slant)).slant == pytest.approx(slant, abs=0.11)


@pytest.mark.parametrize("core", [(40, 60), (35, 75), (50, 70)])
def test_the_core_is_where_all_strokes_are(core: tuple[int, int]) -> None:
    hand = measure(line(core))
    assert (hand.top * 100, hand.bottom * 100) == pytest.approx(core, abs=5)


@pytest.mark.parametrize("stroke_spacing", [12, 16, 24])
def test_the_pace_is_the_distance_of_the_strokes(stroke_spacing: int) -> None:
    hand = measure(line(stroke_spacing=stroke_spacing))
    assert hand.stroke_spacing is not None
    assert hand.stroke_spacing * (hand.bottom - hand.top) * 100 == pytest.approx(stroke_spacing, rel=0.1)


def sloping(ink: np.ndarray, slope: float) -> np.ndarray:
    room = int(abs(slope) * ink.shape[1] / 2) + 1
    skew = np.array([[1, 0, 0], [slope, 1, room - slope * ink.shape[1] / 2]], np.float32)
    return cv2.warpAffine(ink, skew, (ink.shape[1], ink.shape[0] + 2 * room))


@pytest.mark.parametrize("slope", [-0.12, -0.05, 0.0, 0.03, 0.09])
def test_the_slope_is_measured_and_does_not_change_the_x_height(slope: float) -> None:
    level = measure(line(count=60))
    sloped = sloping(line(count=60), slope)
    style = measure(sloped)
    assert style.slope == pytest.approx(slope, abs=0.011)
    assert (style.bottom - style.top) * len(sloped) == pytest.approx((level.bottom - level.top) * 100, rel=0.25)
    assert (style.bottom + style.top) / 2 * len(sloped) == pytest.approx(len(sloped) / 2, abs=5)


def test_sloping_writing_comes_out_level() -> None:
    fit = NormalizeHandwriting(height=32, x_height=10.0)
    plain, ink = fit(grey(line(count=60))), fit(grey(sloping(line(count=60), 0.08)))
    halves = [part.sum(1) / part.sum() for part in np.array_split(ink, 2, axis=1)]
    middles = [float(half @ np.arange(32)) for half in halves]
    assert middles[0] == pytest.approx(middles[1], abs=1.5)
    assert extent(ink) == pytest.approx(extent(plain), rel=0.15)


@pytest.mark.parametrize("fault", ["neighbours", "struck out", "margin line"])
def test_other_ink_does_not_change_the_x_height(fault: str) -> None:
    ink = line(count=60)
    plain = measure(ink)
    if fault == "neighbours":
        for column in range(40, 1000, 60):
            ink[:25, column : column + 5] = 1
            ink[80:, column + 20 : column + 25] = 1
    elif fault == "struck out":
        for row in range(12, 90, 6):
            ink[row : row + 3, 300:420:2] = 1
    else:
        ink[:, 12:16] = 1
    style = measure(ink)
    assert style.bottom - style.top == pytest.approx(plain.bottom - plain.top, rel=0.15)
    assert style.slope == pytest.approx(0, abs=0.011)


def test_corrections_grow_with_the_number_of_strokes() -> None:
    styles = [measure(line((25, 75), count=count)) for count in (1, 4, 20, 100, 300)]
    confidences = [style.confidence for style in styles]
    assert confidences == sorted(confidences)
    assert confidences[0] < 0.2
    assert confidences[-1] == 1
    heights = [style.bottom - style.top for style in styles]
    assert heights[0] < 0.3
    assert heights[-1] == pytest.approx(0.5, abs=0.05)


def test_few_strokes_have_no_pace_and_blank_paper_no_slant() -> None:
    assert measure(line(count=2)).stroke_spacing is None
    hand = measure(np.zeros((64, 300), np.float32))
    assert abs(hand.slant) <= SLANTS.max()
    assert 0 <= hand.top < hand.bottom <= 1


@pytest.mark.parametrize("dotted", [False, True])
def test_a_rule_is_taken_away_and_the_letters_on_it_stay(dotted: bool) -> None:
    strokes = (cv2.resize(line(), (500, 48), interpolation=cv2.INTER_AREA) > 0.4).astype(np.uint8)
    ruled = strokes.copy()
    ruled[29] |= (np.arange(500) % 6 < 3).astype(np.uint8) if dotted else 1
    cleaned = remove_rules(ruled)
    assert (cleaned[29] & ~strokes[29]).sum() < 0.5 * (ruled[29] & ~strokes[29]).sum()
    assert np.array_equal(np.delete(cleaned, [28, 29, 30], 0), np.delete(strokes, [28, 29, 30], 0))


def test_the_band_of_most_strokes_is_found() -> None:
    crossings = np.zeros(48, np.float32)
    crossings[20:32] = 30
    crossings[10:20] = 5
    top, bottom = x_height_band(crossings)
    assert (top, bottom) == pytest.approx((20, 32), abs=1)


def test_writing_of_any_slant_size_place_and_width_comes_out_alike() -> None:
    fit = NormalizeHandwriting(height=32, x_height=10.0, margin=8)
    plain = fit(grey(line((40, 60), 18)))
    for other in (slanted(line((40, 60), 18), 0.6), line((35, 65), 27), np.roll(line((40, 60), 18), 10, axis=0)):
        ink = fit(grey(other))
        rows, wanted = ink.sum(1) / ink.sum(), plain.sum(1) / plain.sum()
        assert float(abs(rows - wanted).sum()) < 0.35
        assert extent(ink) == pytest.approx(extent(plain), rel=0.15)


def test_aspect_and_place_without_evenness_and_bounds() -> None:
    """With scales bound to 1 the core is only moved; nothing else differs from `FitHeight`."""
    fit = NormalizeHandwriting(
        height=32, x_height=6.4, x_height_center=0.5, spacing_strength=0.0, min_scale=1.0, max_scale=1.0
    )
    image = grey(line((40, 60), 18))
    assert fit(image).shape == FitHeight(height=32)(image).shape
    assert float(abs(fit(image) - FitHeight(height=32)(image)).mean()) < 0.03


def test_light_ink_on_dark_paper_comes_out_the_same() -> None:
    fit = NormalizeHandwriting(height=32, x_height=10.0)
    image = grey(line())
    assert float(abs(fit(image) - fit(255 - image)).max()) < 0.05


@pytest.mark.parametrize("size", [(3, 3), (5, 400), (400, 5), (1, 30)])
def test_odd_sizes_are_read_or_refused(size: tuple[int, int]) -> None:
    image = np.full(size, 255, np.uint8)
    fit = NormalizeHandwriting(height=32, x_height=10.0)
    if min(size) < 3:
        with pytest.raises(ValueError, match="too small"):
            fit(image)
    else:
        assert fit(image).shape[0] == 32
