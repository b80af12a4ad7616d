"""Font writers draw every character that any of the fonts has, each line with a font that covers it."""

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, run_train
from font_files import CHINESE, write_chinese, write_font
from omegaconf import OmegaConf
from PIL import ImageFont

import train
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.data.synthetic.fonts import FontWriter, _pieces, covers
from htr_lightning.data.synthetic.writer import SyntheticWriter
from htr_lightning.errors import InputError

HANDS = 20


def synthetic(**others) -> Synthetic:
    return Synthetic("train", {"train": 60}, {"train": HANDS}, **others)


def default_font(folder: Path) -> Path:
    """Write Pillow's built-in font, which has Latin but no Chinese characters, to a file."""
    (folder / "own.ttf").write_bytes(ImageFont.load_default(20).font_bytes)
    return folder / "own.ttf"


def test_the_given_fraction_of_writers_use_your_own_fonts(tmp_path: Path) -> None:
    default_font(tmp_path)
    for share, some, all_ in ((0.5, True, False), (1.0, True, True), (0.0, False, False)):
        reader = synthetic(fonts=str(tmp_path), font_fraction=share)
        kinds = [isinstance(reader._writer(number, "a"), FontWriter) for number in range(HANDS)]
        assert (any(kinds), all(kinds)) == (some, all_)
        for index in range(6):
            sample = reader[index]
            assert 40 <= sample.image.shape[0] <= 64
            assert np.median(sample.image) - np.percentile(sample.image, 2) > 30


def test_a_font_writer_draws_the_whole_line_at_any_width(tmp_path: Path) -> None:
    path = default_font(tmp_path)
    for seed in range(10):
        hand = FontWriter((seed,), [path])
        hand.weight = 0.0
        short, _ = hand.mask("ab ab ab", np.random.default_rng(0), 64)
        long, baseline = hand.mask(" ".join(["ab"] * 30), np.random.default_rng(0), 64)
        assert 7 < long.shape[1] / short.shape[1] < 13
        assert long[:, -60:].any()
        assert 20 < baseline < 64
        plain, crossed = (hand._drawn("ab ab ab", np.random.default_rng(0), words)[0] for words in ((), (1,)))
        assert (crossed >= plain).all()
        assert (crossed > plain).any()


def text_file(folder: Path, text: str) -> str:
    (folder / "text.txt").write_text(text, encoding="utf-8")
    return str(folder / "text.txt")


def test_only_characters_with_a_glyph_are_covered(tmp_path: Path) -> None:
    path = default_font(tmp_path)
    assert covers(path, "a")
    assert not covers(path, "中")


def test_each_line_is_drawn_with_a_font_that_has_all_of_its_characters(tmp_path: Path) -> None:
    fonts = [write_font(tmp_path / "a.ttf", "天地玄"), write_font(tmp_path / "b.ttf", "玄黄宇")]
    for text, expected in (("天地", fonts[0]), ("黄宇", fonts[1]), ("玄玄", fonts[0])):
        (one, other) = (FontWriter((0,), paths) for paths in (fonts, [expected]))
        drawn = [writer.mask(text, np.random.default_rng(0), 64)[0] for writer in (one, other)]
        np.testing.assert_array_equal(*drawn)
    assert _pieces("天黄玄", fonts) == [("天", fonts[0]), ("黄", fonts[1]), ("玄", fonts[0])]
    with pytest.raises(ValueError, match=r"a\.ttf, b\.ttf has '洪'"):
        FontWriter((0,), fonts).mask("天洪", np.random.default_rng(0), 64)


def test_a_character_that_any_font_has_is_drawn_whatever_the_built_in_alphabets_lack(tmp_path: Path) -> None:
    write_chinese(tmp_path)
    options = {"text": str(tmp_path / "chinese.txt"), "unit": "characters", "length": (5, 12)}
    for fraction in (0.5, 1.0):
        reader = synthetic(**options, fonts=str(tmp_path / "fonts"), font_fraction=fraction)
        assert not reader.skipped
        assert set("".join(reader.texts)) == set(CHINESE) - {"\n"}
        assert all(isinstance(reader._writer(number, "天"), FontWriter) for number in range(HANDS))
        assert all(np.median(sample.image) - sample.image.min() > 30 for sample in list(reader)[:10])


def test_characters_that_no_font_has_are_drawn_by_the_built_in_alphabets_if_these_have_the_whole_text(
    tmp_path: Path,
) -> None:
    default_font(tmp_path)
    options = {"text": text_file(tmp_path, "ab é ab ab"), "fonts": str(tmp_path)}
    reader = synthetic(**options, length=(1, 1))
    assert not covers(tmp_path / "own.ttf", "é")
    assert {"é", "ab"} == {reader[index].text for index in range(40)}
    kinds = {text: {type(reader._writer(number, text)) for number in range(HANDS)} for text in ("é", "ab")}
    assert kinds == {"é": {SyntheticWriter}, "ab": {SyntheticWriter, FontWriter}}
    with pytest.raises(InputError, match=r"own\.ttf\) has 'é'"):
        synthetic(**options, font_fraction=1.0)


def test_a_character_that_no_font_has_is_refused_with_the_fonts_or_left_out_and_counted(tmp_path: Path) -> None:
    write_font(tmp_path / "fonts" / "a.ttf", "天地ab")
    write_font(tmp_path / "fonts" / "b.ttf", "玄黄")
    options = {"text": text_file(tmp_path, "天地玄黄 ab 洪洪荒"), "unit": "characters"}
    with pytest.raises(InputError, match=r"text\.txt: no built-in alphabet has .*U\+6D2A.*set data\.reader\.fonts"):
        synthetic(**options)
    message = r"fonts \(a\.ttf, b\.ttf\) has '洪' \(U\+6D2A\), '荒' \(U\+8352\); add a font .*unwritable=skip"
    with pytest.raises(InputError, match=message):
        synthetic(**options, fonts=str(tmp_path / "fonts"))
    reader = synthetic(**options, fonts=str(tmp_path / "fonts"), unwritable="skip")
    assert set("".join(reader.texts)) == set("天地玄黄 ab")
    assert [skipped.detail for skipped in reader.skipped] == ["2 times", "1 times"]
    (tmp_path / "text.txt").write_text("洪荒", encoding="utf-8")
    with pytest.raises(InputError, match="add a font"):
        synthetic(**options, fonts=str(tmp_path / "fonts"), unwritable="skip")


def test_signs_that_a_word_list_does_not_contain_are_not_required_of_the_fonts(tmp_path: Path) -> None:
    write_font(tmp_path / "fonts" / "a.ttf", "жbcd")
    texts = synthetic(words=text_file(tmp_path, "жb\ncd"), fonts=str(tmp_path / "fonts")).texts
    assert set("".join(texts)) == set("жbcd ")


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


def test_the_command_for_chinese_draws_lines_of_the_text_and_trains(tmp_path: Path) -> None:
    write_chinese(tmp_path)
    given = [f"data.reader.text={tmp_path}/chinese.txt", f"data.reader.fonts={tmp_path}/fonts"]
    short = [override for override in SMALL if "length" not in override]
    run = run_train(tmp_path / "run", "data=synthetic_chinese", *given, *short, "trainer.max_steps=2", "logger=csv")
    assert (run / "summary.json").is_file()
    config = OmegaConf.load(Path(train.__file__).parent / "conf" / "data" / "synthetic_chinese.yaml").reader
    texts = synthetic(text=str(tmp_path / "chinese.txt"), fonts=str(tmp_path / "fonts"), **config).texts
    assert all(8 <= len(text) <= 20 and text in CHINESE.replace("\n", "") for text in texts)


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
    options = {"unit": "characters", "length": (5, 12)}
    reader = synthetic(text=str(tmp_path / "text.txt"), fonts=str(tmp_path), **options)
    for sample in list(reader)[:10]:
        assert 5 <= len(sample.text) <= 12
        height, width = sample.image.shape
        assert 0.4 < width / height / len(sample.text) < 1.5
        assert np.median(sample.image) - np.percentile(sample.image, 2) > 30
