"""Augmentation returns valid images, keeps all ink, and takes its randomness only from the generator."""

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy import ndarray
from omegaconf import OmegaConf

from htr_lightning.augment import (
    Affine,
    BleedThrough,
    Blots,
    BrightnessContrast,
    Compose,
    Elastic,
    Fade,
    GridDistortion,
    Jpeg,
    Margins,
    Noise,
    Rotate,
    RuledLines,
    Scale,
    Slant,
    Stains,
    Stretch,
    Thickness,
    Transform,
    Warp,
    Wave,
)
from htr_lightning.augment.transform import Resizing
from htr_lightning.hydra_version import instantiate

CONF = Path(__file__).parent.parent / "conf" / "augment"


def warp(p: float) -> Warp:
    linear = [Stretch(p, 0.25, 0.1), Slant(p, 0.2, 0.5), Rotate(p, 15.0, 0.5)]
    return Warp(linear, [Elastic(p, 0.05), GridDistortion(p, 0.3), Wave(p, 0.07)])


def every(p: float) -> dict[str, Transform]:
    return {
        "affine": Affine(p, stretch=0.2, slant=0.2, rotation=1.0, margin=0.1),
        "warp": warp(p),
        "margins": Margins(p, max_crop=0.1, max_pad=0.2),
        "scale": Scale(p, 0.9, 1.1),
        "thickness": Thickness(p, max_blend=0.8),
        "fade": Fade(p, min_contrast=0.4),
        "bleed": BleedThrough(p, max_contrast=0.3),
        "blots": Blots(p, max_count=3, max_radius=0.1),
        "ruled lines": RuledLines(p, max_darkness=0.8),
        "stains": Stains(p, max_darkness=0.4),
        "brightness and contrast": BrightnessContrast(p, 0.2, 0.2),
        "noise": Noise(p, 0.02, 0.05),
        "jpeg": Jpeg(p, 20, 60),
    }


MOVES = ("affine", "warp", "margins", "scale")  # the size changes


@cache
def named(name: str) -> Compose:
    return instantiate(OmegaConf.load(CONF / f"{name}.yaml"))


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
@pytest.mark.parametrize("size", [(48, 300), (3, 3), (64, 5), (8, 1500), (128, 40), (28, 28)])
def test_any_image_stays_an_image_and_is_not_changed_in_place(name: str, size: tuple[int, int]) -> None:
    image = written(*size)
    before = image.copy()
    for seed in range(5):
        result = every(1.0)[name](image, np.random.default_rng(seed))
        assert result.dtype == np.uint8
        assert result.ndim == 2
        assert min(result.shape) >= 3
        if name not in MOVES:
            assert result.shape == size
        np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("size", [(48, 300), (3, 3), (64, 5), (8, 1500)])
def test_the_size_that_a_transform_tells_is_that_of_its_result(name: str, size: tuple[int, int], p: float) -> None:
    transform = every(p)[name]
    for seed in range(8):
        rng, again = np.random.default_rng(seed), np.random.default_rng(seed)
        assert transform.size_after(size, rng) == transform(written(*size), again).shape  # type: ignore[attr-defined]
        assert rng.random() == again.random()  # the transforms after it see the same random numbers


def test_nested_sequences_are_one_sequence() -> None:
    pixels, move, edge = Noise(1.0, 0.02, 0.05), every(1.0)["affine"], every(1.0)["margins"]
    nested = Compose([Compose([move, edge]), Compose([Compose([pixels])]), move])
    flat = Compose([move, edge, pixels, move])
    for seed in range(5):
        rngs = [np.random.default_rng(seed) for _ in range(4)]
        np.testing.assert_array_equal(nested(written(), rngs[0]), flat(written(), rngs[1]))
        moved = edge(move(written(), rngs[2]), rngs[2])
        assert nested.size_after(written().shape, rngs[3]) == moved.shape


def test_a_transform_that_tells_no_size_changes_none() -> None:
    assert {name for name, transform in every(1.0).items() if isinstance(transform, Resizing)} == set(MOVES)


@pytest.mark.parametrize("name", ["seed", "mild", "strong"])
def test_the_size_that_a_recipe_tells_is_that_of_its_result(name: str) -> None:
    sizes = set()
    for seed in range(40):
        size = named(name).size_after((64, 500), np.random.default_rng(seed))
        assert size == named(name)(written(64, 500), np.random.default_rng(seed)).shape
        sizes.add(size)
    assert len(sizes) > 20


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("name", ["seed", "strong"])
def test_a_blank_image_passes_through_every_recipe(name: str, level: int) -> None:
    for seed in range(20):
        result = named(name)(np.full((64, 200), level, np.uint8), np.random.default_rng(seed))
        assert result.dtype == np.uint8


@pytest.mark.parametrize("seed", range(20))
def test_affine_keeps_the_ink_and_its_paper(seed: int) -> None:
    image = written()
    result = Affine(1.0, stretch=0.2, slant=0.2, rotation=1.0, margin=0.1)(image, np.random.default_rng(seed))
    assert np.median(result) == 220  # new areas are filled with paper
    change = result.shape[1] / image.shape[1]
    ink = (220.0 - result).clip(0).sum() / (220.0 - image).sum()
    assert 0.7 < ink < 1.3
    assert 0.7 < change < 1.35


def spots(image: ndarray, paper: int = 220) -> ndarray:
    """Return the areas of the connected components of ink, from left to right."""
    _, _, stats, _ = cv2.connectedComponentsWithStats((image < paper - 70).astype(np.uint8))
    return np.array([row[cv2.CC_STAT_AREA] for row in sorted(stats[1:].tolist())])


@pytest.mark.parametrize("size", [(64, 520), (40, 90), (100, 60)])
def test_no_warp_loses_ink_even_in_the_corners(size: tuple[int, int]) -> None:
    height, width = size
    image = np.full(size, 220, np.uint8)
    side = height // 8
    for x in (0, (width - side) // 2, width - side):
        for y in (0, (height - side) // 2, height - side):
            image[y : y + side, x : x + side] = 20
    for seed in range(100):
        areas = spots(warp(1.0)(image, np.random.default_rng(seed)))
        assert len(areas) == 9, seed
        assert areas.min() > 0.3 * side**2, seed


def test_a_warp_without_bends_is_the_affine_map_of_the_points() -> None:
    image = np.full((60, 200), 220, np.uint8)
    cv2.circle(image, (40, 20), 4, 20, -1)
    cv2.circle(image, (150, 45), 4, 20, -1)
    for seed in range(20):
        part = Rotate(1.0, 15.0, 0.5)
        result = Warp([part], [])(image, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        rng.random()  # whether
        matrix = part(image.shape, rng)
        middle, center = np.array([199, 59]) / 2, (np.array(result.shape[::-1]) - 1) / 2
        for point in ((40, 20), (150, 45)):
            x, y = matrix @ (np.array(point) - middle) + center
            assert result[round(y), round(x)] < 60
        assert result.shape[0] >= 60


def test_bends_of_no_size_are_the_identity_in_their_frame() -> None:
    image = written()
    result = Warp([], [Elastic(1.0, 0.0), GridDistortion(1.0, 0.0), Wave(1.0, 0.0)])(image, np.random.default_rng(0))
    np.testing.assert_array_equal(result, image)


def test_warp_with_and_without_bends_agree_on_the_linear_part() -> None:
    image = written()
    for seed in range(10):
        plain = Warp([Stretch(1.0, 0.25, 0.1), Slant(1.0, 0.2, 0.4)], [])(image, np.random.default_rng(seed))
        bent = Warp([Stretch(1.0, 0.25, 0.1), Slant(1.0, 0.2, 0.4)], [GridDistortion(1.0, 0.0)])(
            image, np.random.default_rng(seed)
        )
        assert plain.shape == bent.shape
        assert np.abs(plain.astype(int) - bent).mean() < 1.5


def test_a_long_line_is_rotated_no_further_than_its_rise() -> None:
    for size in ((28, 28), (64, 520)):
        for seed in range(200):
            (c, _), (s, _) = Rotate(1.0, 15.0, 0.5)(size, np.random.default_rng(seed))
            assert c > 0
            assert abs(s / c) * size[1] <= max(0.5 * size[0], 1e-9) + 1e-6
            assert abs(np.degrees(np.arctan2(s, c))) <= 15
    angles = [
        np.degrees(np.arcsin(Rotate(1.0, 15.0, 0.5)((28, 28), np.random.default_rng(s))[1, 0])) for s in range(200)
    ]
    assert max(angles) > 13
    assert min(angles) < -13


def test_margins_are_cropped_within_their_bounds() -> None:
    image = np.repeat(np.arange(200, dtype=np.uint8)[:, None], 300, axis=1)
    image[:, 100:] = 255
    for seed in range(200):
        result = Margins(1.0, max_crop=0.05, max_pad=0.1)(image, np.random.default_rng(seed))
        rows = result[:, 0][result[:, 0] < 200]
        assert set(range(10, 190)) <= set(rows.tolist())
        assert 180 <= len(result) <= 240
    heights = {len(Margins(1.0, 0.05, 0.1)(image, np.random.default_rng(seed))) for seed in range(200)}
    assert min(heights) < 200 < max(heights)


def test_scale_changes_the_size_of_the_writing_and_no_column_is_cut() -> None:
    image = np.full((60, 200), 220, np.uint8)
    image[20:40, :10] = image[20:40, -10:] = 20
    sizes = []
    for seed in range(200):
        result = Scale(1.0, 0.9, 1.1)(image, np.random.default_rng(seed))
        assert (result < 100).sum() == 400
        sizes.append((result < 100).any(1).mean() / (20 / 60))
    assert 0.88 < min(sizes) < 0.93
    assert 1.07 < max(sizes) < 1.13


@pytest.mark.parametrize("max_blend", [0.5, 1.0])
def test_thickness_makes_strokes_thicker_as_often_as_thinner(max_blend: float) -> None:
    image = written()
    darker = [
        Thickness(1.0, max_blend)(image, np.random.default_rng(seed)).mean() < image.mean() for seed in range(200)
    ]
    assert 60 < sum(darker) < 140


@pytest.mark.parametrize("seed", range(10))
def test_fading_leaves_the_paper_and_the_contrast_it_promises(seed: int) -> None:
    image = written()
    faded = Fade(1.0, min_contrast=0.4)(image, np.random.default_rng(seed)).astype(int)
    np.testing.assert_array_equal(faded[image == 220], 220)
    dark = image < 60
    left = (220 - faded[dark]) / (220 - image[dark])
    assert left.min() > 0.38
    assert left.max() <= 1.01
    assert left.std() > 0.005  # uneven


def test_faint_ink_does_not_fade_away() -> None:
    faint = np.where(written() < 120, 160, 220).astype(np.uint8)
    for seed in range(20):
        faded = Fade(1.0, min_contrast=0.1)(faint, np.random.default_rng(seed)).astype(int)
        assert 220 - faded[faint == 160].max() >= 47


@pytest.mark.parametrize("seed", range(10))
def test_writing_on_the_back_is_fainter_than_the_line(seed: int) -> None:
    image = written()
    through = BleedThrough(1.0, max_contrast=0.25)(image, np.random.default_rng(seed)).astype(int)
    added = image.astype(int) - through
    assert added.min() >= -1
    assert 5 < added.max() <= 0.25 * 190 + 1


@pytest.mark.parametrize("name", ["ruled lines", "stains", "blots"])
def test_what_lies_on_paper_only_darkens_and_leaves_most_of_it(name: str) -> None:
    image = written(64, 520)
    for seed in range(30):
        change = image.astype(int) - every(1.0)[name](image, np.random.default_rng(seed))
        assert change[image == 220].min() >= 0
        assert (change > 90).mean() < 0.15
    assert change.max() > 0


def test_brightness_keeps_half_of_the_contrast_even_of_a_faint_line() -> None:
    faint = np.full((40, 200), 250, np.uint8)
    faint[15:25, 20:180:8] = 210
    for seed in range(100):
        result = BrightnessContrast(1.0, 0.2, 0.2)(faint, np.random.default_rng(seed)).astype(int)
        assert result[0, 0] - result[20, 20] >= 0.8 * 20 - 2


def test_noise_has_its_standard_deviation() -> None:
    grey = np.full((200, 2000), 128, np.uint8)
    noisy = Noise(1.0, 0.05, 0.05)(grey, np.random.default_rng(0)).astype(float)
    assert abs(noisy.std() / 255 - 0.05) < 0.001
    assert abs(noisy.mean() - 128) < 0.2
    assert Noise(1.0, 0.05, 0.05)(np.zeros((1200, 1000), np.uint8), np.random.default_rng(0)).shape == (1200, 1000)


@pytest.mark.parametrize("name", ["seed", "strong"])
def test_a_recipe_leaves_a_line_legible(name: str) -> None:
    """Check that every letter-like mark keeps enough contrast after the whole recipe."""
    image = np.full((64, 400), 230, np.uint8)
    for x in range(20, 390, 30):
        cv2.line(image, (x, 15), (x, 50), 60, 3, cv2.LINE_AA)
    kept = []
    for seed in range(60):
        result = cv2.GaussianBlur(named(name)(image, np.random.default_rng(seed)), (0, 0), 1.0)
        middle = result[int(result.shape[0] * 0.42) : int(result.shape[0] * 0.58)].astype(float).mean(0)
        background = cv2.morphologyEx(middle[None], cv2.MORPH_CLOSE, np.ones((1, 31)))[0]
        dips = background - middle > 20
        kept.append(np.count_nonzero(np.diff(dips.astype(int)) == 1) / 13)
    assert np.median(kept) >= 0.95
    assert np.mean([fraction >= 0.8 for fraction in kept]) > 0.85


def test_transforms_are_applied_one_after_the_other_with_one_generator() -> None:
    parts = every(0.7)
    together = Compose(list(parts.values()))(written(), np.random.default_rng(5))
    image, rng = written(), np.random.default_rng(5)
    for part in parts.values():
        image = part(image, rng)
    np.testing.assert_array_equal(together, image)
    np.testing.assert_array_equal(Compose([])(written(), rng), written())
    assert Compose(list(parts.values()))
    assert not Compose([])  # an empty sequence is false, so the dataset creates no generator for it


def test_a_transform_is_applied_with_its_probability() -> None:
    rng, image = np.random.default_rng(0), written(16, 40)
    changed = sum((Thickness(0.3, 1.0)(image, rng) != image).any() for _ in range(1000))
    assert 250 < changed < 350


def test_strong_has_what_it_says() -> None:
    config = OmegaConf.to_container(OmegaConf.load(CONF / "strong.yaml"))
    found = {part["_target_"].rpartition(".")[2]: part for part in config["transforms"]}
    inside = {part["_target_"].rpartition(".")[2]: part for key in ("linear", "bends") for part in found["Warp"][key]}
    assert (inside["Stretch"]["width"], inside["Stretch"]["height"]) == (0.25, 0.1)
    assert {"Slant", "Elastic", "GridDistortion"} <= set(inside)
    assert {"Thickness", "RuledLines", "Blots", "Stains", "BleedThrough", "Fade", "Jpeg", "Margins"} <= set(found)
    assert all(0 < part["p"] < 1 for part in [*inside.values(), *found.values()] if "p" in part)
