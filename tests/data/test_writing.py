"""Blank images and whole pages are distinguished from lines and characters."""

import gzip
from pathlib import Path

import cv2
import numpy as np
import pytest

from htr_lightning.data.character import FixedSize
from htr_lightning.data.preprocess import FitFrame, FitHeight, NormalizeHandwriting, Preprocess
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.data.writing import is_blank, is_page
from htr_lightning.reading.sources import find_sources
from htr_lightning.reading.transcribe import open_lines

SIZES = [(28, 28), (40, 300), (128, 1500), (512, 400)]
PREPROCESSES: list[Preprocess] = [
    FitHeight(32, margin=4),
    FitHeight(32, polarity="dark"),
    NormalizeHandwriting(32, x_height=10.0),
    FitFrame(32, 128),
    FitFrame(32, 128, keep_aspect=False),
    FixedSize(28, 28, 20),
    FixedSize(28, 28, 20, deslant=True, polarity="dark"),
]


def paper(kind: str, size: tuple[int, int]) -> np.ndarray:
    """Return an image of paper without writing."""
    rng, (height, width) = np.random.default_rng(0), size
    noise = rng.normal(0, 1, size)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    shade = np.linspace(0, 60, width)[None, :] + np.linspace(0, 30, height)[:, None]
    grey = {
        "white": np.full(size, 255.0),
        "black": np.zeros(size),
        "grey": np.full(size, 130.0),
        "noisy": 225 + 10 * noise,
        "dark and noisy": 15 + 4 * noise,
        "textured": 215 + 5 * smooth / smooth.std(),
        "shaded": 240 - shade + 3 * noise,
    }[kind]
    return grey.clip(0, 255).astype(np.uint8)


def drawn(text: str, size: tuple[int, int], scale: float, ink: int = 40) -> np.ndarray:
    """Return an image of a text in the middle of noisy paper."""
    image = paper("noisy", size)
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, scale, max(1, int(2 * scale)))
    corner = ((size[1] - width) // 2, (size[0] + height) // 2)
    return cv2.putText(image, text, corner, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, scale, ink, max(1, int(2 * scale)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["white", "black", "grey", "noisy", "dark and noisy", "textured", "shaded"])
def test_paper_without_writing_is_blank_for_every_preprocessing(kind: str, size: tuple[int, int]) -> None:
    image = paper(kind, size)
    assert is_blank(image)
    for preprocess in PREPROCESSES:
        assert not preprocess(image).any(), preprocess


@pytest.mark.parametrize("preprocess", PREPROCESSES)
def test_writing_is_not_blank_for_any_preprocessing(preprocess: Preprocess) -> None:
    images = [drawn(digit, (120, 90), 2) for digit in "0123456789"]
    if isinstance(preprocess, FixedSize):
        images += [drawn("1", (600, 500), 1.5), drawn("7", (28, 28), 0.7)]
    else:
        lines = [sample.image for sample in Synthetic("test", {"test": 12}, {"test": 6})]
        images += [*lines, *((220 - (220 - line.astype(float)) * 0.25).clip(0, 255).astype(np.uint8) for line in lines)]
    for image in images:
        assert preprocess(image).any()


@pytest.mark.parametrize("rows", [2, 5, 25])
def test_a_page_is_recognized_by_its_rows(rows: int) -> None:
    lines = [sample.image for sample in Synthetic("test", {"test": 25}, {"test": 3}, length=(4, 6))][:rows]
    lines = [cv2.resize(line, (900, max(1, round(900 * line.shape[0] / line.shape[1])))) for line in lines]
    page = np.full((1600, 1000), 235, np.uint8)
    top = 60
    for line in lines:
        end = min(top + line.shape[0], len(page))
        page[top:end, 50:950] = np.minimum(page[top:end, 50:950], line[: end - top])
        top += 60
        if top >= len(page):
            break
    assert is_page(page)
    assert is_page(255 - page)
    assert is_page(cv2.resize(page, None, fx=2, fy=2))


def test_lines_words_and_characters_are_not_pages() -> None:
    for sample in Synthetic("test", {"test": 30}, {"test": 6}):
        line = sample.image
        assert not is_page(line)
        sheet = np.full((3 * line.shape[1], line.shape[1]), int(np.median(line)), np.uint8)
        sheet[: len(line)] = line  # a line at the top of a tall sheet
        assert not is_page(cv2.resize(sheet, None, fx=2, fy=2))
        word = line[:, : 2 * len(line)]
        assert not is_page(cv2.resize(word, None, fx=8, fy=8))
    for digit in "0123456789":
        assert not is_page(drawn(digit, (1200, 900), 6))
    assert not is_page(drawn("Signature", (900, 1200), 5))
    assert not is_page(paper("noisy", (1200, 900)))
    squared = paper("noisy", (1200, 900))
    squared[::30], squared[:, ::30] = 150, 150
    assert not is_page(squared)


def test_real_pages_lines_and_digits_are_distinguished(htr_data: Path, tmp_path: Path) -> None:
    pages = sorted((htr_data / "copiste" / "alto").glob("*.xml"))[::60]
    for page in pages:
        (tmp_path / page.name).symlink_to(page)
        (image := tmp_path / f"{page.stem}.jpg").symlink_to(htr_data / "copiste" / "jpg" / image.name)
    sources, _, _ = find_sources([str(tmp_path)])
    assert len(sources) == len(pages) > 4
    for source in sources:
        image = cv2.imread(str(source.path.with_suffix(".jpg")), cv2.IMREAD_GRAYSCALE)
        assert image is not None
        assert is_page(image), source.path
        for line, crop in open_lines(source):
            assert crop is not None
            assert not is_page(crop), line.name
            assert not is_blank(crop), line.name
    file = htr_data / "mnist" / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    digits = np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28)
    assert not any(is_blank(digit) or is_blank(255 - digit) for digit in digits)
