"""Synthetic lines are reproducible, and no writer occurs in two splits."""

import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from htr_lightning.data.preprocess import FitHeight
from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.data.sample import Reader
from htr_lightning.data.synthetic.glyphs import CURSIVE, PRINTED, glyph
from htr_lightning.data.synthetic.paper import with_neighbors
from htr_lightning.data.synthetic.texts import RunningText, Spelling, read_words
from htr_lightning.data.synthetic.writer import SyntheticWriter, _join
from htr_lightning.errors import InputError

CONF = Path(__file__).parent.parent.parent / "conf" / "data"
COUNTS = {"train": 60, "val": 30, "test": 30}
HANDS = {"train": 20, "val": 6, "test": 7}
LISTS = ("package:english.txt", "package:french.txt")


def synthetic(split: str = "train", seed: int = 0, words: str = LISTS[0], **others) -> Synthetic:
    return Synthetic(split, **({"lines": COUNTS, "writers": HANDS, "words": words, "seed": seed} | others))


def test_a_line_is_the_same_in_any_order_and_from_any_reader() -> None:
    one, other = synthetic(), synthetic()
    forwards = {index: one[index] for index in range(12)}
    for index in (11, 3, 7, 0, 3):
        again = other[index]
        np.testing.assert_array_equal(again.image, forwards[index].image)
        assert (again.id, again.text, again.group) == (forwards[index].id, forwards[index].text, forwards[index].group)


def test_another_seed_index_or_split_is_another_line() -> None:
    lines = [synthetic()[0], synthetic()[1], synthetic(seed=1)[0], synthetic("val")[0], synthetic("test")[0]]
    pixels = {line.image.tobytes() for line in lines}
    assert len(pixels) == len(lines)


def test_more_lines_do_not_change_the_first_ones() -> None:
    long = synthetic(lines=dict.fromkeys(COUNTS, 1000))
    np.testing.assert_array_equal(long[5].image, synthetic()[5].image)


@pytest.mark.parametrize("split", COUNTS)
def test_what_the_lists_say_is_what_the_samples_say(split: str) -> None:
    reader = synthetic(split)
    assert isinstance(reader, Reader)
    samples = list(reader)
    assert len(samples) == len(reader) == COUNTS[split]
    assert [sample.text for sample in samples] == reader.texts
    assert [sample.id for sample in samples] == reader.ids
    assert [sample.group for sample in samples] == reader.groups
    assert len(set(reader.ids)) == len(reader)
    for (height, width), sample in zip(reader.sizes, samples, strict=True):
        assert 40 <= sample.image.shape[0] <= 64
        assert (
            0.25 < (width / height) / (sample.image.shape[1] / sample.image.shape[0]) < 4
        )  # accurate enough for batching


def test_every_writer_writes_and_is_in_one_split_only() -> None:
    habits: dict[tuple[float, ...], str] = {}
    for split, count in HANDS.items():
        reader = synthetic(split)
        assert len(set(reader.groups)) == count
        for number in {reader._writer_number(index) for index in range(len(reader))}:
            writer = reader._writer(number, "a")
            key = (writer.slant, writer.width, writer.x_height, writer.pen, writer.bend)
            assert key not in habits, f"{split} shares a hand with {habits.get(key)}"
            habits[key] = split
    assert len(habits) == sum(HANDS.values())


@pytest.mark.parametrize("words", LISTS)
def test_texts_are_words_of_the_list_with_prose_around_them(words: str) -> None:
    reader = synthetic(words=words, lines=dict.fromkeys(COUNTS, 2000), length=(2, 5))
    known = set(read_words(words))
    known |= {word[:1].upper() + word[1:] for word in known}
    for text in reader.texts:
        parts = text.split(" ")
        assert 2 <= len(parts) <= 5
        for part in parts:
            core = part if part in known else part.strip("().,;:!?-\"'")
            assert core in known or core.isdecimal() or part[:-1] in known, text
    assert any(c.isdecimal() for text in reader.texts for c in text)
    assert any(c.isupper() for text in reader.texts for c in text)


@pytest.mark.parametrize("words", LISTS)
@pytest.mark.parametrize("font", [*PRINTED, *CURSIVE])
def test_every_font_can_write_every_character(words: str, font: str) -> None:
    listed = {c for word in read_words(words) for form in (word, word[:1].upper()) for c in form}
    for character in listed | set("0123456789,.;:!?-'\"()"):
        drawn = glyph(font, character)
        assert drawn.strokes, character
        assert drawn.advance > 0, character


@pytest.mark.parametrize("words", LISTS)
def test_lines_are_dark_ink_on_light_paper(words: str) -> None:
    for sample in synthetic(words=words):
        paper, ink = np.median(sample.image), np.percentile(sample.image, 2)
        assert paper > 150
        assert paper - ink > 30, sample.id


def test_a_character_that_no_writer_can_write_is_named() -> None:
    with pytest.raises(ValueError, match=r"U\+4E2D"):
        glyph("futural", "中")


def test_a_word_list_of_one_s_own_is_read(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("abba\n\nbaba\n", encoding="utf-8")
    reader = synthetic(words=str(tmp_path / "own.txt"))
    assert {c.lower() for text in reader.texts for c in text if c.isalpha()} == {"a", "b"}


@pytest.mark.parametrize("content", [None, b"", b" \n\n", b"\xff\xfe\xff"])
def test_a_bad_word_list_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "own.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"own\.txt"):
        read_words(str(tmp_path / "own.txt"))
    with pytest.raises(InputError, match=r"klingon\.txt"):
        read_words("package:klingon.txt")


def test_a_split_of_another_name_and_a_line_beyond_the_last_are_refused() -> None:
    with pytest.raises(InputError, match="'dev'"):
        synthetic("dev")
    with pytest.raises(IndexError):
        synthetic()[60]


def test_lines_of_a_text_are_joined_as_in_their_script() -> None:
    for text in ("天地。|玄黄||宇宙 洪荒", "HTR|技术"):
        assert RunningText(text.replace("|", "\n"), "characters").body == text.replace("|", "")
    for text in ("a|b c", "하늘|땅"):
        assert RunningText(text.replace("|", "\n"), "characters").body == text.replace("|", " ")


def test_chinese_is_not_cut_at_spaces() -> None:
    with pytest.raises(InputError, match=r"unit=words.*data=synthetic_chinese.*unit=characters"):
        RunningText("天地玄黄\n宇宙洪荒 abc", "words")
    assert RunningText("the sign 天", "words").words == ["the", "sign", "天"]


def test_a_unit_without_a_text_is_refused() -> None:
    with pytest.raises(InputError, match=r"unit=characters: .*data\.reader\.text=FILE"):
        synthetic(unit="characters")


PROSE = "Où vas-tu, mon ami ? « À l'école », dit-il.\nIl pleut… et l'œuvre attend !\n\nTrois fois 27 font 81."


@pytest.fixture
def prose(tmp_path: Path) -> str:
    (tmp_path / "prose.txt").write_text(PROSE, encoding="utf-8")
    return str(tmp_path / "prose.txt")


def test_running_text_is_written_unchanged(prose: str) -> None:
    whole = " ".join(PROSE.split())
    for text in synthetic(text=prose, length=(2, 4)).texts:
        assert text in whole
        assert 2 <= len(text.split()) <= 4
    assert set(synthetic(text=prose, unit="line").texts) == set(filter(None, PROSE.splitlines()))
    pieces = synthetic(text=prose, unit="characters", length=(5, 9)).texts
    assert all(piece in whole and 3 <= len(piece) <= 9 for piece in pieces)
    assert len(set(pieces)) > 20


def test_a_text_shorter_than_a_line_is_written_whole(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("deux mots", encoding="utf-8")
    for unit in ("words", "line", "characters"):
        reader = synthetic(text=str(tmp_path / "short.txt"), unit=unit, length=(40, 50))
        assert set(reader.texts) == {"deux mots"}
        assert reader[0].image.shape[1] > 40


def test_accents_in_two_code_points_are_composed(tmp_path: Path) -> None:
    (tmp_path / "nfd.txt").write_text(unicodedata.normalize("NFD", "été à Noël"), encoding="utf-8")
    assert set(synthetic(text=str(tmp_path / "nfd.txt"), unit="line").texts) == {"été à Noël"}


@pytest.mark.parametrize("words", LISTS)
def test_pseudowords_are_spelt_with_triples_of_the_source(words: str) -> None:
    source = [w for w in read_words(words) if w.isalpha()]
    letters = set("".join(source).lower())
    triples = {f"  {w.lower()} "[i : i + 3] for w in source for i in range(len(w) + 1)}
    spelling, rng = Spelling(source, letters), np.random.default_rng(0)
    made = [spelling.draw(rng) for _ in range(500)]
    for word in made:
        assert 0 < len(word) <= 14
        assert all(f"  {word}"[i : i + 3] in triples for i in range(len(word)))
    assert len(set(made) - {w.lower() for w in source}) > 200
    assert Spelling(["42"], letters).draw(rng) == ""


def test_a_fraction_of_the_words_are_pseudowords_with_their_capitals(prose: str) -> None:
    plain, pseudo = synthetic(text=prose), synthetic(text=prose, pseudoword_fraction=1.0)
    assert plain.texts != pseudo.texts
    for before, after in zip(plain.texts, pseudo.texts, strict=True):
        for old, new in zip(before.split(), after.split(), strict=True):
            assert new == old or (old.isalpha() and new.isalpha() and (old[0].isupper() or new.islower()))


def test_rare_characters_are_written(prose: str) -> None:
    texts = synthetic(text=prose, rare_characters="Ç€ñ", rare_fraction=0.3, lines=dict.fromkeys(COUNTS, 300)).texts
    for character in "Ç€ñ":
        assert 20 < sum(character in text for text in texts) < 200


def test_a_character_that_no_writer_can_write_is_refused_or_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "mixed.txt").write_text("une ligne 中中 et ж encore", encoding="utf-8")
    with pytest.raises(InputError, match=r"mixed\.txt.*U\+0436.*unwritable=skip"):
        synthetic(text=str(tmp_path / "mixed.txt"))
    reader = synthetic(text=str(tmp_path / "mixed.txt"), unwritable="skip", unit="line")
    assert set(reader.texts) == {"une ligne et encore"}
    assert [(s.kind, s.detail) for s in reader.skipped] == [
        ("character that no writer can draw", "1 times"),
        ("character that no writer can draw", "2 times"),
    ]
    assert "U+4E2D" in reader.skipped[1].id
    (tmp_path / "chinese.txt").write_text("中文", encoding="utf-8")
    with pytest.raises(InputError, match=r"chinese\.txt.*fonts"):
        synthetic(text=str(tmp_path / "chinese.txt"), unwritable="skip")


def test_a_text_without_spaces_is_not_one_endless_line(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("a" * 5000, encoding="utf-8")
    for unit, remedy in (("words", "unit=characters"), ("line", "unit=words")):
        with pytest.raises(InputError, match=remedy):
            synthetic(text=str(tmp_path / "long.txt"), unit=unit)


@pytest.mark.parametrize(
    "wrong",
    [{"unit": "page"}, {"unwritable": "ignore"}, {"length": (3, 2)}],
)
def test_an_invalid_option_is_refused_by_name(prose: str, wrong: dict) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        synthetic(text=prose, **wrong)


@pytest.mark.parametrize("content", [None, b"", b" \n\n", b"\xff\xfe\xff", b"\x00\x01"])
def test_a_bad_text_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "own.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"own\.txt"):
        synthetic(text=str(tmp_path / "own.txt"))


@pytest.mark.parametrize("unit", ["words", "line", "characters"])
def test_any_bytes_are_a_text_or_are_refused(tmp_path: Path, unit: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        content = bytearray(PROSE.encode())
        for place in rng.integers(0, len(content), rng.integers(1, 12)).tolist():
            content[place] = int(rng.integers(256))
        (tmp_path / "any.txt").write_bytes(content[: int(rng.integers(len(content)))])
        refusal, line = "", None
        try:
            line = synthetic(text=str(tmp_path / "any.txt"), unit=unit, unwritable="skip", pseudoword_fraction=0.3)[0]
        except InputError as error:
            refusal = str(error)
        assert "any.txt" in refusal or (line is not None and line.text)


def test_crossed_out_words_are_marked_in_the_reference_and_in_the_image(prose: str) -> None:
    plain, crossed = synthetic(text=prose), synthetic(text=prose, crossed_out_fraction=0.4)
    assert [text.replace(">", "").replace("<", "") for text in crossed.texts] == plain.texts
    marked = [index for index, text in enumerate(crossed.texts) if ">" in text]
    assert 20 < len(marked) <= len(crossed)
    hand, text = SyntheticWriter((0, 0, 1)), "un deux trois"
    free, crossed = (sum(map(len, hand.strokes(text, np.random.default_rng(0), s))) for s in ((), (1,)))
    assert crossed > free


def test_a_join_begins_and_ends_on_the_letters_and_leaves_in_the_direction_of_the_pen() -> None:
    start, end = np.array([0.0, 0.0], np.float32), np.array([6.0, -8.0], np.float32)
    leaving, arriving = np.array([1.0, 0.5], np.float32), np.array([1.0, -1.0], np.float32)
    curve = _join(start, leaving, end, arriving)
    assert curve is not None
    np.testing.assert_allclose(curve[[0, -1]], [start, end], atol=1e-5)
    first, last = curve[1] - curve[0], curve[-1] - curve[-2]
    assert first @ leaving / np.linalg.norm(first) / np.linalg.norm(leaving) > 0.9
    assert last @ arriving / np.linalg.norm(last) / np.linalg.norm(arriving) > 0.9
    assert _join(start, leaving, np.array([40.0, 0.0], np.float32), arriving) is None


def test_cursive_writers_write_longer_strokes_and_some_letters_in_two_forms() -> None:
    hands = [SyntheticWriter((0, 0, number)) for number in range(60)]
    assert 10 < sum(hand.joined for hand in hands) < 50
    forms = [len(hand.letter(c).forms) for hand in hands for c in "abcdefghijklmnopqrstuvwxyz"]
    assert set(forms) == {1, 2}
    two = next(letter for hand in hands for c in "abcde" if len((letter := hand.letter(c)).forms) == 2)
    assert two.forms[0].points.shape != two.forms[1].points.shape or (two.forms[0].points != two.forms[1].points).any()


def test_neighbors_only_add_ink_at_the_edges() -> None:
    rng = np.random.default_rng(0)
    mask, baseline = SyntheticWriter((0, 0, 3)).mask("jupe gagnée à Paris", rng, 64)
    changed = 0
    for _ in range(50):
        result = with_neighbors(mask, baseline, rng)
        assert (result >= mask).all()
        rows = np.flatnonzero((result != mask).any(1))
        assert ((rows < 26) | (rows > 40)).all()
        changed += len(rows) > 0
    assert changed > 25


COPISTE = (  # the characters of Copiste d'un jour
    " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_abcdefghijklmnopqrstuvwxyz{}~°¡«»"
    "ÀÁÂÄÇÈÉÊÍÎÑÓÔÜàáâäæçèéêëìíîïñóôöùûüŒœπ‘’“”€"
)


def test_the_french_lines_have_every_character_of_copiste() -> None:
    config = OmegaConf.load(CONF / "synthetic_french.yaml").reader
    options = {key: value for key, value in config.items() if key not in ("lines", "writers")}
    texts = synthetic(**options, lines=dict.fromkeys(COUNTS, 8000)).texts
    counts = Counter("".join(texts))
    assert set(COPISTE) <= set(counts), set(COPISTE) - set(counts)
    assert min(counts[c] for c in COPISTE) >= 5


@pytest.mark.slow
def test_french_lines_have_the_scale_of_copiste(htr_data: Path) -> None:
    """Compare the distributions of columns per character at the same height."""
    real = PageXml(htr_data / "copiste", split="val", xml="alto/*.xml", images="jpg", splits="package:copiste.tsv",
                   name="copiste", reduce=FitHeight(32).reduce, empty="skip")  # fmt: skip
    config = OmegaConf.load(CONF / "synthetic_french.yaml").reader
    options = {key: value for key, value in config.items() if key not in ("lines", "writers")}
    drawn = synthetic(**options, lines=dict.fromkeys(COUNTS, 500), writers=dict.fromkeys(COUNTS, 200))

    def scale(reader: Reader) -> np.ndarray:
        samples = [sample for sample in reader if len(sample.text) > 20]
        return np.array([s.image.shape[1] / s.image.shape[0] * 32 / len(s.text) for s in samples])

    for share in (25, 50, 75):
        assert np.percentile(scale(drawn), share) == pytest.approx(np.percentile(scale(real), share), rel=0.15)
