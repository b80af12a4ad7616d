"""Distortions: images stay images, and the generator is the only dice."""

import cv2
import numpy as np
import pytest
from numpy import ndarray

from htr_lightning.augment import Affine, Compose, Thickness, Transform


def every(p: float) -> dict[str, Transform]:
    return {
        "affine": Affine(p, stretch=0.2, slant=0.2, turn=1.0, margin=0.1),
        "thickness": Thickness(p, most=0.8),
    }


def written(height: int = 48, width: int = 300) -> ndarray:
    image = np.full((height, width), 220, np.uint8)
    cv2.putText(image, "augment", (20, height * 2 // 3), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 30, 2, cv2.LINE_AA)
    return image


@pytest.mark.parametrize("name", every(0.0))
def test_with_probability_zero_nothing_changes(name: str) -> None:
    image, rng = written(), np.random.default_rng(0)
    for _ in range(20):
        np.testing.assert_array_equal(every(0.0)[name](image, rng), written())


@pytest.mark.parametrize("name", every(0.0))
def test_the_same_generator_state_gives_the_same_pixels(name: str) -> None:
    transform = every(1.0)[name]
    first, again, other = (transform(written(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or (first != other).any()
    assert first.shape != written().shape or (first != written()).any()


@pytest.mark.parametrize("name", every(0.0))
@pytest.mark.parametrize("size", [(48, 300), (3, 3), (64, 5), (8, 1500), (128, 40)])
def test_any_image_stays_an_image_and_is_not_changed_in_place(name: str, size: tuple[int, int]) -> None:
    image = written(*size)
    before = image.copy()
    for seed in range(5):
        result = every(1.0)[name](image, np.random.default_rng(seed))
        assert result.dtype == np.uint8
        assert result.ndim == 2
        assert min(result.shape) >= 3
        if name != "affine":
            assert result.shape == size
        np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("seed", range(20))
def test_affine_keeps_the_ink_and_its_paper(seed: int) -> None:
    image = written()
    result = Affine(1.0, stretch=0.2, slant=0.2, turn=1.0, margin=0.1)(image, np.random.default_rng(seed))
    assert np.median(result) == 220  # paper fills what was not there
    change = result.shape[1] / image.shape[1]
    ink = (220.0 - result).clip(0).sum() / (220.0 - image).sum()
    assert 0.7 < ink < 1.3
    assert 0.7 < change < 1.35


@pytest.mark.parametrize("most", [0.5, 1.0])
def test_thickness_makes_strokes_thicker_as_often_as_thinner(most: float) -> None:
    image = written()
    darker = [Thickness(1.0, most)(image, np.random.default_rng(seed)).mean() < image.mean() for seed in range(200)]
    assert 60 < sum(darker) < 140


def test_compose_does_one_after_the_other_with_one_generator() -> None:
    parts = every(0.7)
    together = Compose(list(parts.values()))(written(), np.random.default_rng(5))
    image, rng = written(), np.random.default_rng(5)
    for part in parts.values():
        image = part(image, rng)
    np.testing.assert_array_equal(together, image)
    np.testing.assert_array_equal(Compose([])(written(), rng), written())


def test_a_probability_is_how_often_it_happens() -> None:
    rng, image = np.random.default_rng(0), written(16, 40)
    changed = sum((Thickness(0.3, 1.0)(image, rng) != image).any() for _ in range(1000))
    assert 250 < changed < 350
