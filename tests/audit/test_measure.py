"""What a line's image tells: invariance where nothing changed, and difference where something did."""

import cv2
import numpy as np
import pytest

from htr_lightning.audit.measure import Measures, measure, unit
from htr_lightning.data.reader.synthetic import Synthetic

READER = Synthetic("train", {"train": 40}, {"train": 8}, length=(3, 5))


def correlation(a: Measures, b: Measures) -> float:
    first, second = unit(np.stack([a.fingerprint, b.fingerprint]))
    return float(first @ second)


@pytest.mark.parametrize("index", range(6))
def test_turning_a_line_turns_the_sign_of_its_shape(index: int) -> None:
    image = READER[index].image
    image = cv2.resize(image, (image.shape[1] * 32 // image.shape[0], 32))  # no resampling inside: exact
    there, back = measure(image), measure(np.ascontiguousarray(image[::-1, ::-1]))
    np.testing.assert_allclose(back.shape, -there.shape, atol=1e-3)


@pytest.mark.parametrize("index", range(6))
def test_polarity_is_told_and_changes_nothing_else(index: int) -> None:
    image = READER[index].image
    dark, light = measure(image), measure(255 - image)
    assert dark.dark
    assert not light.dark
    assert dark.ink == light.ink
    np.testing.assert_array_equal(dark.fingerprint, light.fingerprint)


def disturbed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same line scanned, cut and compressed anew."""
    top, left = rng.integers(0, 4, 2)
    moved = cv2.copyMakeBorder(
        image[top:, left:], int(rng.integers(4)), 2, int(rng.integers(8)), 3, cv2.BORDER_REPLICATE
    )
    scaled = cv2.resize(moved, None, fx=0.9, fy=0.9, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", (scaled * 0.9 + 10).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 35])
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)


def test_a_fingerprint_outlives_a_new_scan_and_tells_lines_apart() -> None:
    rng = np.random.default_rng(0)
    own = [correlation(measure(s.image), measure(disturbed(s.image, rng))) for s in READER]
    measured = [measure(s.image) for s in READER]
    other = [correlation(a, b) for i, a in enumerate(measured) for b in measured[:i]]
    assert np.median(own) > 0.9
    assert np.quantile(own, 0.05) > max(other)


def test_ink_along_the_edges_is_told_by_side() -> None:
    image = np.full((32, 100), 240, np.uint8)
    image[10:, 40:60] = 10  # runs out at the bottom
    assert measure(image).edges == (0.0, 0.0, pytest.approx(0.2, abs=0.02), 0.0)
    assert measure(np.ascontiguousarray(image[::-1])).edges[0] == pytest.approx(0.2, abs=0.02)


def test_strokes_and_extent_are_counted() -> None:
    image = np.full((32, 200), 240, np.uint8)
    for left in range(20, 180, 20):
        image[4:28, left : left + 4] = 10
    measured = measure(image)
    assert measured.strokes == 8
    assert measured.extent == pytest.approx((160 + 4 - 20) / 32, abs=0.1)


@pytest.mark.parametrize("size", [(0, 0), (1, 1), (2, 50), (50, 2), (3, 3), (40, 3), (3, 9000)])
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_images_of_any_size_and_without_contrast_are_measured(size: tuple[int, int], grey: int) -> None:
    measured = measure(np.full(size, grey, np.uint8))
    assert measured.size == size
    assert measured.ink == 0
    assert np.isfinite(measured.shape).all()
    assert np.isfinite(measured.profile).all()


def test_the_same_pixels_have_the_same_digest_and_others_another() -> None:
    image = READER[0].image
    assert measure(image).digest == measure(image.copy()).digest
    assert measure(image).digest != measure(image[:, :-1]).digest
    row = np.arange(12, dtype=np.uint8)
    assert measure(row.reshape(3, 4)).digest != measure(row.reshape(4, 3)).digest
