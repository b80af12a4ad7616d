"""Writers whose letters come from font files: which characters they have, and that they write them."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFont

from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.data.synthetic.fonts import FontWriter, covers
from htr_lightning.errors import InputError

HANDS = 20


def synthetic(**others) -> Synthetic:
    return Synthetic("train", {"train": 60}, {"train": HANDS}, **others)


def default_font(folder: Path) -> Path:
    """Pillow's own font as a file: Latin letters, no Chinese ones."""
    (folder / "own.ttf").write_bytes(ImageFont.load_default(20).font_bytes)
    return folder / "own.ttf"


def test_the_given_fraction_of_writers_use_your_own_fonts(tmp_path: Path) -> None:
    default_font(tmp_path)
    for share, some, all_ in ((0.5, True, False), (1.0, True, True), (0.0, False, False)):
        reader = synthetic(fonts=str(tmp_path), font_fraction=share)
        kinds = [isinstance(reader._writer(number), FontWriter) for number in range(HANDS)]
        assert (any(kinds), all(kinds)) == (some, all_)
        for index in range(6):
            sample = reader[index]
            assert 40 <= sample.image.shape[0] <= 64
            assert np.median(sample.image) - np.percentile(sample.image, 2) > 30


def test_a_font_writer_draws_the_whole_line_at_any_width(tmp_path: Path) -> None:
    path = default_font(tmp_path)
    for seed in range(10):
        hand = FontWriter((seed,), path)
        hand.weight = 0.0
        short, _ = hand.mask("ab ab ab", np.random.default_rng(0), 64)
        long, baseline = hand.mask(" ".join(["ab"] * 30), np.random.default_rng(0), 64)
        assert 7 < long.shape[1] / short.shape[1] < 13
        assert long[:, -60:].any()
        assert 20 < baseline < 64
        plain, crossed = (hand._drawn("ab ab ab", np.random.default_rng(0), words)[0] for words in ((), (1,)))
        assert (crossed >= plain).all()
        assert (crossed > plain).any()


def test_a_font_without_a_glyph_is_refused_or_left_out_and_counted(tmp_path: Path) -> None:
    path = default_font(tmp_path)
    assert covers(path, "a")
    assert not covers(path, "中")
    (tmp_path / "mixed.txt").write_text("ab 中 ab", encoding="utf-8")
    options = {"text": str(tmp_path / "mixed.txt"), "fonts": str(tmp_path)}
    with pytest.raises(InputError, match=r"U\+4E2D"):
        synthetic(**options, font_fraction=1.0)
    assert set("".join(synthetic(**options, font_fraction=1.0, unwritable="skip").texts)) == set("ab ")
    (tmp_path / "greek.txt").write_text("ab π", encoding="utf-8")
    if not covers(path, "π"):
        options["text"] = str(tmp_path / "greek.txt")
        with pytest.raises(InputError, match=r"own\.ttf.*incomplete_fonts=skip"):
            synthetic(**options)
        with pytest.raises(InputError, match="no font has every character"):
            synthetic(**options, incomplete_fonts="skip")


def test_a_file_that_is_no_font_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    with pytest.raises(InputError, match=r"broken\.ttf"):
        synthetic(fonts=str(tmp_path))
    with pytest.raises(InputError, match=r"data\.reader\.fonts"):
        synthetic(fonts=str(tmp_path / "nothing"))


def test_a_broken_font_is_refused_by_name_or_writes(tmp_path: Path) -> None:
    rng, whole = np.random.default_rng(0), default_font(tmp_path).read_bytes()
    for number in range(40):
        folder = tmp_path / str(number)
        folder.mkdir()
        content = bytearray(whole if number % 2 else whole[: int(rng.integers(len(whole)))])
        for place in rng.integers(0, len(content), 40 * (number % 2)).tolist():
            content[place] = int(rng.integers(256))
        (folder / "broken.ttf").write_bytes(content)
        refusal, line = "", None
        try:
            line = synthetic(fonts=str(folder), font_fraction=1.0, unwritable="skip")[0]
        except InputError as error:
            refusal = str(error)
        assert "broken.ttf" in refusal or "no writer can draw" in refusal or (line is not None and line.image.size)


def chinese_fonts() -> list[Path]:
    found = [path for path in Path("/usr/share/fonts").rglob("*") if path.suffix.lower() in (".ttf", ".otf", ".ttc")]
    found += [Path(path) for path in filter(None, [os.environ.get("HTR_CJK_FONT")])]
    return [path for path in found if covers(path, "中")]


def test_chinese_is_written_with_a_chinese_font(tmp_path: Path) -> None:
    fonts = chinese_fonts()
    if not fonts:
        pytest.skip("no font with Chinese characters: install one, or set HTR_CJK_FONT to its file")
    (tmp_path / f"own{fonts[0].suffix}").write_bytes(fonts[0].read_bytes())
    (tmp_path / "text.txt").write_text("天地玄黃宇宙洪荒日月盈昃辰宿列張寒來暑往秋收冬藏", encoding="utf-8")
    options = {"unit": "characters", "length": (5, 12), "font_fraction": 1.0}
    reader = synthetic(text=str(tmp_path / "text.txt"), fonts=str(tmp_path), **options)
    for sample in list(reader)[:10]:
        assert 5 <= len(sample.text) <= 12
        height, width = sample.image.shape
        assert 0.4 < width / height / len(sample.text) < 1.5
        assert np.median(sample.image) - np.percentile(sample.image, 2) > 30
