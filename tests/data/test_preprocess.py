"""Preprocessing maps paper to 0 and ink to 1 for any paper, pen and scanner."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray

from htr_lightning.data.character import FixedSize
from htr_lightning.data.preprocess import FitFrame, FitHeight, NormalizeHandwriting, Preprocess
from htr_lightning.data.reader.mnist import read_idx
from htr_lightning.errors import InputError


def written(height: int = 60, width: int = 400, paper: int = 225, ink: int = 40) -> ndarray:
    image = np.full((height, width), paper, np.uint8)
    size = height / 60
    cv2.putText(image, "preprocess", (10, round(40 * size)), cv2.FONT_HERSHEY_SIMPLEX, 1.6 * size, ink, 3, cv2.LINE_AA)
    return image


def digit(height: int, width: int, scale: float = 4.0, light: float = 0.0) -> ndarray:
    """Return a noisy photo of a black 5 on white paper that is lit from the left."""
    image = np.full((height, width), 225.0)
    canvas = image.astype(np.uint8)
    cv2.putText(canvas, "5", (width // 3, round(height * 0.7)), cv2.FONT_HERSHEY_SIMPLEX, scale, 45, 12, cv2.LINE_AA)
    slope = np.linspace(light, -light, width)
    grain = np.random.default_rng(0).normal(0, 2, (height, width))
    return (canvas + slope + grain).clip(0, 255).astype(np.uint8)


def center(ink: ndarray) -> tuple[float, float]:
    rows, columns = np.indices(ink.shape)
    return float((rows * ink).sum() / ink.sum()), float((columns * ink).sum() / ink.sum())


def slant_of(ink: ndarray) -> float:
    """Return the slant of the ink in columns per row, from its second moments."""
    rows, columns = np.indices(ink.shape)
    row, column = center(ink)
    covariance = (ink * (rows - row) * (columns - column)).sum()
    return float(covariance / (ink * (rows - row) ** 2).sum())


@pytest.mark.parametrize("size", [(60, 400), (31, 77), (32, 100), (200, 90), (3, 3), (128, 2000)])
@pytest.mark.parametrize("margin", [0, 8])
@pytest.mark.parametrize("squeeze", [1.0, 0.5])
def test_height_is_fixed_and_aspect_kept(size: tuple[int, int], margin: int, squeeze: float) -> None:
    preprocess = FitHeight(32, margin, squeeze)
    ink = preprocess(written(*size))
    assert ink.dtype == np.float32
    assert ink.shape == (32, preprocess.width(size))
    assert abs(ink.shape[1] - 2 * margin - size[1] * 32 * squeeze / size[0]) <= max(
        0.5, 1 - size[1] * 32 * squeeze / size[0]
    )
    assert not ink[:, :margin].any()
    assert not ink[:, ink.shape[1] - margin :].any()


@pytest.mark.parametrize(("paper", "pen"), [(225, 40), (255, 0), (140, 60), (200, 150)])
def test_paper_is_zero_and_ink_one_whatever_the_exposure(paper: int, pen: int) -> None:
    ink = FitHeight(60)(written(paper=paper, ink=pen))
    drawn = written(paper=255, ink=0)
    assert 0 <= float(ink.min()) < float(ink.max()) == 1
    assert not ink[drawn == 255].any()
    assert ink[drawn == 0].min() == 1


def test_ink_colour_and_exposure_do_not_matter() -> None:
    np.testing.assert_allclose(
        FitHeight(32)(written(paper=225, ink=40)), FitHeight(32)(written(paper=255, ink=0)), atol=0.02, rtol=0
    )


@pytest.mark.parametrize("size", [(60, 400), (25, 200)])
def test_an_inverted_image_gives_the_same_ink(size: tuple[int, int]) -> None:
    image = written(*size)
    assert FitHeight(32)(image).any()
    np.testing.assert_array_equal(FitHeight(32)(255 - image), FitHeight(32)(image))


def test_with_polarity_dark_light_ink_is_paper() -> None:
    image = written()
    np.testing.assert_array_equal(FitHeight(32, polarity="dark")(image), FitHeight(32)(image))
    assert not np.array_equal(FitHeight(32, polarity="dark")(255 - image), FitHeight(32)(image))


@pytest.mark.parametrize("level", [0, 128, 255])
def test_blank_paper_and_its_grain_are_not_ink(level: int) -> None:
    assert not FitHeight(32)(np.full((40, 200), level, np.uint8)).any()
    grain = np.random.default_rng(0).integers(max(0, level - 2), min(255, level + 2) + 1, (40, 200), dtype=np.uint8)
    assert FitHeight(32)(grain).max() < 0.15


@pytest.mark.parametrize("preprocess", [FitHeight(32), FixedSize(28, 28, 20)], ids=["FitHeight", "FixedSize"])
@pytest.mark.parametrize("size", [(1, 1), (2, 50), (50, 2)])
def test_an_image_without_room_for_a_character_is_refused(preprocess: Preprocess, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{size[1]} x {size[0]} pixels"):
        preprocess(np.zeros(size, np.uint8))


def test_a_line_wider_than_allowed_is_refused_with_both_numbers() -> None:
    assert FitHeight(32, max_width=320)(np.zeros((10, 100), np.uint8)).shape[1] == 320
    with pytest.raises(ValueError, match=r"323 columns .* max_width=320"):
        FitHeight(32, max_width=320)(np.zeros((10, 101), np.uint8))


def framed(row: float, column: float, height: int = 20, width: int = 6) -> ndarray:
    """Return a stroke of 28 x 28 pixels, white on black, with the given offset of its centre from the middle."""
    pixels = np.zeros((28, 28), np.uint8)
    top, left = round(14 + row - height / 2), round(14 + column - width / 2)
    pixels[top : top + height, left : left + width] = 120
    pixels[top : top + height, left + width // 3 : left + width - width // 3] = 250
    return pixels


@pytest.mark.parametrize("polarity", ["auto", "dark"])
@pytest.mark.parametrize(
    "pixels",
    [framed(0, 0), framed(1, -1), framed(0, 0, 19), framed(0, 0, 12, 20), framed(0, 0, 24, 8), framed(0, 4, 28, 8)],
    ids=["MNIST", "one pixel aside", "a little smaller", "wide", "EMNIST", "KMNIST"],
)
def test_a_character_in_the_frame_of_its_data_set_is_not_changed(pixels: ndarray, polarity: str) -> None:
    preprocess = FixedSize(28, 28, 20, polarity=polarity)
    np.testing.assert_array_equal(preprocess(255 - pixels), pixels.astype(np.float32) / 255)
    if polarity == "auto":
        np.testing.assert_array_equal(preprocess(pixels), preprocess(255 - pixels))


@pytest.mark.parametrize("row", [-4, 0, 4])
@pytest.mark.parametrize("column", [-10, -4, 4, 10])
def test_a_character_elsewhere_in_the_frame_is_moved_to_the_middle(row: int, column: int) -> None:
    for pixels in (framed(row, column), 255 - framed(row, column)):
        ink = FixedSize(28, 28, 20)(pixels)
        assert center(ink) == pytest.approx((13.5, 13.5), abs=0.1)
        assert float(abs(ink - FixedSize(28, 28, 20)(np.pad(pixels, 20, constant_values=pixels[27, 14]))).mean()) < 0.02


@pytest.mark.parametrize("size", [8, 14])
def test_a_small_character_in_the_frame_is_enlarged(size: int) -> None:
    ink = FixedSize(28, 28, 20)(framed(0, 0, size, size // 2))
    assert int((ink > 0.5).any(1).sum()) == pytest.approx(20, abs=1)


def test_a_photo_of_exactly_the_size_has_no_grey_paper() -> None:
    photo = (200 - 0.6 * framed(0, 0) + np.random.default_rng(0).normal(0, 3, (28, 28))).astype(np.uint8)
    assert not FixedSize(28, 28, 20)(photo)[:3].any()


def test_every_mnist_digit_stays_as_it_is(htr_data: Path) -> None:
    preprocess = FixedSize(28, 28, 20)
    for pixels in read_idx(htr_data / "mnist" / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz")[::4]:
        expected = pixels.astype(np.float32) / 255
        np.testing.assert_allclose(preprocess(pixels), expected, atol=1e-6)
        np.testing.assert_allclose(preprocess(255 - pixels), expected, atol=1e-6)


@pytest.mark.parametrize("spacing", [18, 30])
@pytest.mark.parametrize("rule", [100, 190])
@pytest.mark.parametrize("columns", [False, True])
def test_the_lines_of_the_paper_are_removed(spacing: int, rule: int, columns: bool) -> None:
    plain = digit(200, 200)
    ruled = plain.copy()
    ruled[5::spacing] = np.minimum(ruled[5::spacing], rule)
    if columns:
        ruled[:, 9::spacing] = np.minimum(ruled[:, 9::spacing], rule)
    difference = abs(FixedSize(28, 28, 20)(ruled) - FixedSize(28, 28, 20)(plain))
    assert float(difference.mean()) < 0.02


def test_strokes_that_end_at_the_edges_are_not_taken_for_ruled_paper() -> None:
    pixels = np.full((60, 60), 240, np.uint8)
    pixels[:, 8:16] = pixels[:, 28:36] = pixels[:, 46:54] = 30  # the tight crop of a character with six ends
    for polarity in ("auto", "dark"):
        ink = FixedSize(28, 28, 20, polarity=polarity)(pixels)
        assert (np.diff((ink[14] > 0.5).astype(int)) == 1).sum() == 3


@pytest.mark.parametrize("low", [0.6, 0.3, 0.15])
def test_a_digit_under_uneven_light_is_the_same_in_black_and_in_white(low: float) -> None:
    photo = digit(220, 200).astype(float)
    light, preprocess = np.linspace(low, 1, 200), FixedSize(28, 28, 20)
    expected = preprocess(photo.astype(np.uint8))
    for image in (photo * light, (270 - photo) * light, photo * light[::-1], (270 - photo) * light[::-1]):
        assert float(abs(preprocess(image.clip(0, 255).astype(np.uint8)) - expected).mean()) < 0.03


@pytest.mark.parametrize("level", [20, 90])
def test_the_table_around_the_paper_is_not_ink(level: int) -> None:
    photo, preprocess = digit(200, 200), FixedSize(28, 28, 20)
    table = np.pad(photo, ((60, 40), (50, 70)), constant_values=level)
    for image in (table, table[:, 50:], 255 - table):
        assert float(abs(preprocess(image) - preprocess(photo)).mean()) < 0.01


@pytest.mark.parametrize(
    "preprocess", [FitHeight(32), NormalizeHandwriting(32, 9.6), FitFrame(32, 256)], ids=["height", "writing", "frame"]
)
def test_the_frame_of_a_scanner_is_not_ink(preprocess: Preprocess) -> None:
    line = written()
    framed = np.pad(line, ((6, 9), (20, 14)), constant_values=5)
    for image in (framed, framed[6:], 255 - framed):
        ink = preprocess(image)
        assert not ink[0].any()
        assert not ink[:, :2].any()
        assert 0.5 < float(ink.mean()) / float(preprocess(line).mean()) < 1.5


@pytest.mark.parametrize(
    "preprocess", [FitHeight(32), NormalizeHandwriting(32, 9.6), FitFrame(32, 256)], ids=["height", "writing", "frame"]
)
@pytest.mark.parametrize("low", [0.5, 0.25])
def test_a_line_under_uneven_light_gives_the_ink_of_an_evenly_lit_one(preprocess: Preprocess, low: float) -> None:
    line, light = written().astype(float), np.linspace(low, 1, 400)
    expected = preprocess(written())
    for image in (line * light, (265 - line) * light):
        ink = preprocess(image.clip(0, 255).astype(np.uint8))
        assert ink.shape[1] == pytest.approx(expected.shape[1], rel=0.1)
        resized = cv2.resize(ink, expected.shape[::-1])
        assert float(np.corrcoef(resized.ravel(), expected.ravel())[0, 1]) > 0.85


@pytest.mark.parametrize(("size", "scale"), [((200, 200), 4.0), ((300, 150), 4.0), ((900, 1200), 12.0)])
@pytest.mark.parametrize("light", [0.0, 25.0])
def test_a_photographed_digit_is_the_same_in_black_and_in_white(
    size: tuple[int, int], scale: float, light: float
) -> None:
    image, preprocess = digit(*size, scale, light), FixedSize(28, 28, 20)
    ink, inverted = preprocess(image), preprocess(255 - image)
    assert ink.shape == (28, 28)
    assert float(abs(ink - inverted).mean()) < 0.01
    for one in (ink, inverted):
        assert 0 <= float(one.min()) < float(one.max()) <= 1
        assert 0.02 < float((one > 0.5).mean()) < 0.4
        assert center(one) == pytest.approx((13.5, 13.5), abs=0.5)
        rows, columns = np.flatnonzero((one > 0.1).any(1)), np.flatnonzero((one > 0.1).any(0))
        assert 18 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 22


def test_position_and_size_of_the_digit_do_not_matter() -> None:
    preprocess = FixedSize(28, 28, 20)
    first, second = (
        preprocess(digit(200, 200)),
        preprocess(np.pad(digit(200, 200), ((90, 10), (5, 60)), constant_values=225)),
    )
    assert float(abs(first - second).mean()) < 0.02


def test_blank_paper_is_an_empty_frame() -> None:
    assert not FixedSize(28, 28, 20)(np.full((100, 80), 200, np.uint8)).any()


@pytest.mark.parametrize(
    "slant", [-0.3, -0.15, 0.15, 0.3]
)  # a larger slant makes the digit wider and therefore smaller
def test_a_deslanted_digit_has_no_slant_whatever_it_had(slant: float) -> None:
    image = digit(200, 200)
    slanted = cv2.warpAffine(image, np.array([[1, slant, -slant * 100], [0, 1, 0]]), (200, 200), borderValue=225)
    plain, deslanted = FixedSize(28, 28, 20), FixedSize(28, 28, 20, deslant=True)
    assert slant_of(deslanted(slanted)) == pytest.approx(0, abs=0.02)
    assert abs(slant_of(plain(slanted)) - slant_of(plain(image))) > abs(slant) / 2
    framed = deslanted((255 - 255 * plain(slanted)).round().astype(np.uint8))  # exactly the size of the array
    assert slant_of(framed) == pytest.approx(0, abs=0.02)
    difference = [float(abs(fit(slanted) - fit(image)).mean()) for fit in (plain, deslanted)]
    assert difference[1] < difference[0] / 2


@pytest.mark.parametrize("size", [(28, 28), (100, 80)])
def test_blank_paper_deslanted_is_an_empty_frame(size: tuple[int, int]) -> None:
    assert not FixedSize(28, 28, 20, deslant=True)(np.full(size, 255, np.uint8)).any()


@pytest.mark.parametrize(
    "preprocess",
    [FitHeight(16, max_width=10**6), FixedSize(20, 20, 14), FixedSize(20, 20, 14, deslant=True)],
    ids=["FitHeight", "FixedSize", "deslant"],
)
@given(st.tuples(st.integers(3, 40), st.integers(3, 40)), st.integers(0, 999), st.sampled_from([2, 8, 256]))
def test_any_image_gives_ink_between_zero_and_one(
    preprocess: Preprocess, size: tuple[int, int], seed: int, levels: int
) -> None:
    image = (np.random.default_rng(seed).integers(0, levels, size) * (255 // (levels - 1))).astype(np.uint8)
    ink = preprocess(image)
    assert ink.shape[1] == preprocess.width(size)
    assert np.isfinite(ink).all()
    assert 0 <= float(ink.min()) <= float(ink.max()) <= 1


def test_a_small_dot_is_dust_or_a_stroke_as_asked() -> None:
    pixels = np.full((60, 60), 255, np.uint8)
    pixels[28:34, 5:55] = 20
    pixels[8:11, 44:47] = 20  # 3% of the stroke
    dust, stroke = (FixedSize(64, 64, 48, min_blob=smallest, polarity="dark")(pixels) for smallest in (0.05, 0.0))
    assert int((dust > 0.5).any(1).sum()) < 10
    assert int((stroke > 0.5).any(1).sum()) > int((dust > 0.5).any(1).sum()) + 1


@pytest.mark.parametrize(("height", "width"), [(12, 60), (60, 12), (40, 40)])
def test_a_closely_cropped_stroke_is_kept_if_ink_is_known_to_be_dark(height: int, width: int) -> None:
    pixels = np.full((height, width), 30, np.uint8)  # more ink than paper
    pixels[:3, :] = pixels[:, :3] = 255
    ink = FixedSize(64, 64, 48, polarity="dark")(pixels)
    rows, columns = np.flatnonzero((ink > 0.5).any(1)), np.flatnonzero((ink > 0.5).any(0))
    expected = np.array([height - 3, width - 3]) * 48 / max(height - 3, width - 3)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == pytest.approx(tuple(expected), abs=2)


def test_a_polarity_of_another_name_is_refused() -> None:
    with pytest.raises(InputError, match="polarity=light"):
        FitHeight(28, polarity="light")
    with pytest.raises(InputError, match="polarity=light"):
        FixedSize(28, 28, 20, polarity="light")


@pytest.mark.parametrize("size", [(60, 400), (64, 64), (32, 128), (300, 80), (10, 12), (20, 1000)])
def test_a_frame_holds_the_whole_image_at_its_aspect_and_paper_beside_it(size: tuple[int, int]) -> None:
    image = np.full(size, 225, np.uint8)
    edge = max(1, size[1] // 10)
    image[:, :edge] = image[:, -edge:] = 40  # ink at both ends
    frame = FitFrame(32, 128)
    ink = frame(image)
    assert ink.shape == (32, 128)
    assert frame.width(size) == 128
    rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
    height, width = frame.reduce(image).shape
    scale = min(32 / height, 128 / width)
    assert columns[0] == 0
    assert columns[-1] + 1 == max(1, round(width * scale))
    assert len(rows) == max(1, round(height * scale))
    assert abs((rows[0] + rows[-1]) / 2 - 15.5) <= 0.5  # vertically centred


def test_a_frame_of_light_ink_on_dark_paper_is_that_of_dark_ink() -> None:
    image = written(60, 150)
    np.testing.assert_allclose(FitFrame(32, 128)(255 - image), FitFrame(32, 128)(image), atol=1e-5)
    dark = FitFrame(32, 128, polarity="dark")
    assert not np.array_equal(dark(255 - image), dark(image))


def test_a_frame_takes_the_pixels_that_fit_height_takes() -> None:
    image = written(60, 150)
    np.testing.assert_allclose(FitFrame(32, 128)(image)[:, :80], FitHeight(32)(image), atol=1e-5)


KINDS = {
    "FitHeight": FitHeight(32, margin=4, max_width=10**6),
    "FitHeight, low": FitHeight(16, width_scale=0.5, max_width=10**6),
    "NormalizeHandwriting": NormalizeHandwriting(32, 9.6, max_width=10**6),
    "FitFrame": FitFrame(32, 128),
    "FitFrame, squeezed": FitFrame(96, 64, keep_aspect=False),
    "FixedSize": FixedSize(28, 28, 20),
}


@pytest.mark.parametrize("preprocess", KINDS.values(), ids=KINDS)
@given(st.integers(3, 400), st.integers(3, 600), st.integers(0, 999))
def test_a_scan_and_the_scan_reduced_beforehand_give_the_same_array(
    preprocess: Preprocess, height: int, width: int, seed: int
) -> None:
    scan = written(height, width)
    scan -= np.random.default_rng(seed).integers(0, 30, scan.shape, dtype=np.uint8)
    reduced = preprocess.reduce(scan)
    assert preprocess(reduced).tobytes() == preprocess(scan).tobytes()
    np.testing.assert_array_equal(preprocess.reduce(reduced), reduced)
    for size in (scan.shape, reduced.shape):
        assert preprocess.width(size) == preprocess.width(scan.shape)
        preprocess.check(size)
    if preprocess.by_size:
        assert preprocess(scan).shape[1] == preprocess.width(scan.shape)


@pytest.mark.parametrize(("height", "rows"), [(20, 64), (32, 64), (48, 96), (64, 128)])
def test_scans_are_reduced_to_twice_the_height_and_never_below_64_rows(height: int, rows: int) -> None:
    for preprocess in (FitHeight(height), FitFrame(height, 8 * height)):
        assert preprocess.reduce(written(300, 600)).shape == (rows, 2 * rows)
        scan = written(rows, 600)
        assert preprocess.reduce(scan) is scan


@pytest.mark.parametrize(("height", "rows"), [(20, 64), (32, 64), (48, 64), (56, 112), (64, 128)])
def test_scans_are_reduced_alike_for_all_heights_that_are_chosen_later(height: int, rows: int) -> None:
    preprocess = NormalizeHandwriting(height, 0.3 * height)
    assert preprocess.reduce(written(300, 600)).shape == (rows, 2 * rows)
    scan = written(rows, 600)
    assert preprocess.reduce(scan) is scan


def test_a_line_that_would_become_too_narrow_and_a_character_are_not_reduced() -> None:
    column, photo = np.full((300, 5), 200, np.uint8), written(300, 600)
    assert FitHeight(32).reduce(column) is column
    assert FixedSize(28, 28, 20).reduce(photo) is photo


def test_a_line_that_is_wider_than_allowed_only_by_the_rounding_of_the_reduction_is_refused_at_once() -> None:
    for width in range(600, 700):
        preprocess, scan = FitHeight(32, max_width=80), written(257, width)
        try:
            preprocess.check(scan.shape)
        except ValueError:
            with pytest.raises(ValueError, match="max_width=80"):
                preprocess(scan)
        else:
            assert preprocess(scan).shape[1] <= 80
