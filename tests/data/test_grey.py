"""Conversion of images in every mode to greyscale."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from htr_lightning.data import grey as grey_module
from htr_lightning.data.grey import grey
from htr_lightning.data.image import read_image
from htr_lightning.errors import InputError

LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)


def stroke(size: tuple[int, int] = (40, 60)) -> np.ndarray:
    """Return the ink of a stroke in [0, 255]."""
    return cv2.line(np.zeros(size, np.uint8), (10, 30), (45, 8), 255, 3, cv2.LINE_AA)


@pytest.mark.parametrize("white", [1, 255, 65535])
def test_floats_are_fractions_of_white_or_grey_levels(tmp_path: Path, white: int) -> None:
    Image.fromarray(LEVELS.astype(np.float32) * np.float32(white / 255)).save(tmp_path / "float.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "float.tif"), LEVELS)


@pytest.mark.parametrize("white", [1, 255])
def test_floats_that_are_not_finite_do_not_change_the_scale(white: int) -> None:
    levels = LEVELS.astype(np.float32) * np.float32(white / 255)
    levels[0, :3] = np.nan, np.inf, -np.inf
    expected = LEVELS.copy()
    expected[0, :3] = 0, 255, 0
    np.testing.assert_array_equal(grey(Image.fromarray(levels)), expected)


def test_negative_integers_are_refused(tmp_path: Path) -> None:
    Image.fromarray(LEVELS.astype(np.int32) - 1).save(tmp_path / "signed.tif")
    with pytest.raises(InputError, match=r"signed\.tif: .*negative values"):
        read_image(tmp_path / "signed.tif")


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_of_sixteen_bits_the_upper_eight_in_use_are_kept(tmp_path: Path, suffix: str, bits: int) -> None:
    path, levels = tmp_path / f"deep.{suffix}", LEVELS.astype(np.uint16)
    Image.fromarray((levels << (bits - 8)) + (levels >> (16 - bits))).save(path)
    np.testing.assert_array_equal(read_image(path), LEVELS)


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "I;16B", "F", "RGBA"])
def test_grey_levels_are_kept_in_every_mode(mode: str) -> None:
    if mode == "LAB":  # its first band is the lightness
        image = Image.frombytes("LAB", (16, 16), np.dstack([LEVELS, LEVELS * 0 + 128, LEVELS * 0 + 128]).tobytes())
    else:
        image = Image.fromarray(LEVELS).convert(mode)
    np.testing.assert_allclose(grey(image), LEVELS, atol=1)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "I", "I;16", "F", "RGBA", "LA"])
def test_every_mode_is_read_from_a_tiff(tmp_path: Path, mode: str) -> None:
    white = np.full((3, 5), 255, np.uint8)
    image = Image.fromarray(white).convert(mode) if mode != "LAB" else Image.new("LAB", (5, 3), (255, 128, 128))
    image.save(tmp_path / "white.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "white.tif"), white)


def test_sixteen_bits_per_colour_are_read(tmp_path: Path) -> None:
    deep = np.dstack([LEVELS.astype(np.uint16) * 257] * 3)
    for suffix in ("png", "tif"):
        assert cv2.imwrite(str(tmp_path / f"deep.{suffix}"), deep)
        np.testing.assert_array_equal(read_image(tmp_path / f"deep.{suffix}"), LEVELS)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "I;16", "F", "RGBA", "LA", "PA"])
def test_an_image_is_the_same_in_one_strip_and_in_many(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (23, 7, 3), dtype=np.uint8)
    image = Image.fromarray(noise).convert("L" if mode[0] in "IF" else "RGB").convert(mode)
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(noise[:, :, 0]))
    whole = grey(image)
    monkeypatch.setattr(grey_module, "STRIP", 20)
    np.testing.assert_array_equal(grey(image), whole)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_white(tmp_path: Path, mode: str) -> None:
    alpha = np.array([[0, 255], [128, 0]], np.uint8)
    image = Image.merge("LA", [Image.new("L", (2, 2), 0), Image.fromarray(alpha)]).convert(mode)
    image.save(tmp_path / "clear.png")
    np.testing.assert_allclose(read_image(tmp_path / "clear.png"), 255 - alpha, atol=1)


def test_a_transparent_palette_colour_is_white(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 10, 10, 10])
    image.save(tmp_path / "clear.png", transparency=0)
    np.testing.assert_array_equal(read_image(tmp_path / "clear.png"), [[255, 10]])


@pytest.mark.parametrize("colour", [(255, 255, 255), (250, 230, 60), (180, 180, 180)])
@pytest.mark.parametrize("opacity", [1.0, 0.5])
def test_light_ink_on_a_transparent_picture_is_on_black(colour: tuple[int, ...], opacity: float) -> None:
    alpha = (stroke() * opacity).astype(np.uint8)
    image = Image.new("RGB", alpha.shape[::-1], colour)
    level = np.asarray(image.convert("L"), np.float32)
    image.putalpha(Image.fromarray(alpha))
    np.testing.assert_allclose(grey(image), level * alpha / 255, atol=1)
    if len(set(colour)) == 1:
        np.testing.assert_allclose(grey(image.convert("LA")), level * alpha / 255, atol=1)


@pytest.mark.parametrize("colour", [(0, 0, 0), (200, 30, 30), (30, 60, 220), (110, 110, 110)])
def test_dark_ink_on_a_transparent_picture_is_on_white(colour: tuple[int, ...]) -> None:
    image = Image.new("RGB", (60, 40), colour)
    level = np.asarray(image.convert("L"), np.float32)
    image.putalpha(Image.fromarray(stroke()))
    np.testing.assert_allclose(grey(image), 255 - (255 - level) * (stroke() / 255), atol=1.5)


def test_a_white_palette_colour_on_a_transparent_one_is_on_black(tmp_path: Path) -> None:
    image = Image.fromarray((stroke() > 127).astype(np.uint8)).convert("P")
    image.putpalette([255] * 6)
    image.save(tmp_path / "white.png", transparency=0)
    np.testing.assert_array_equal(read_image(tmp_path / "white.png"), 255 * (stroke() > 127))


@pytest.mark.parametrize("alpha", [0, 255])
def test_an_alpha_channel_of_one_value_changes_nothing(alpha: int) -> None:
    photo = Image.fromarray(230 - stroke() // 2)
    image = photo.convert("RGB")
    image.putalpha(alpha)
    np.testing.assert_array_equal(grey(image), photo)


@pytest.mark.parametrize("inverted", [False, True])
def test_what_was_cut_off_around_paper_is_paper(inverted: bool) -> None:
    paper = 255 - stroke() if inverted else 200 - stroke() // 2
    alpha = np.zeros_like(paper)
    cv2.fillPoly(alpha, [np.array([(6, 0), (59, 3), (54, 39), (0, 36)])], 255)
    image = Image.fromarray(255 - paper if inverted else paper).convert("RGB")
    image.putalpha(Image.fromarray(alpha))
    level = 0 if inverted else 200
    assert (grey(image)[alpha == 0] == level).all()
    assert (grey(image)[(alpha == 255) & (stroke() == 0)] == level).all()
