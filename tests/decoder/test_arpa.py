"""ARPA files: round trips, compatibility with KenLM, and malformed files."""

import gzip
import math
from pathlib import Path

import numpy as np
import pytest

from decoder.test_ngram import markov
from htr_lightning.decoder.ngram import NGram
from htr_lightning.errors import InputError

ODD = ["a b", "\u00a0\u3000x", "\u0085\u2028y", "▁|é", "#<>\\", "1 -2"]  # white space to Python, but not in ARPA files
SMALL = r"""a comment

\data\
ngram 1=5
ngram 2=3
ngram 3=1

\1-grams:
-1.5	<unk>
-99	<s>	-0.5
-0.4	</s>
-0.6	a	-0.25
-0.8	<space>	-0.125

\2-grams:
-0.3	<s> a	-0.75
-0.2	a <space>
-0.1	<space> a	-0.0625

\3-grams:
-0.05	<s> a a

\end\
"""  # <s> a a is listed without a a, as after entropy pruning


@pytest.mark.parametrize("order", [1, 2, 4, 8])
@pytest.mark.parametrize(("space", "suffix"), [("<space>", ""), ("␣", ".gz")])
def test_round_trip(tmp_path: Path, order: int, space: str, suffix: str) -> None:
    model = NGram.estimate([*markov(20), *ODD], order)
    path = tmp_path / f"model.arpa{suffix}"
    model.write_arpa(path, space)
    back = NGram.read_arpa(path, space)
    assert (back.order, back.symbols) == (model.order, model.symbols)
    assert (back.keys == model.keys).all()
    assert back.log_probs == pytest.approx(model.log_probs, rel=1e-6)
    assert back.backoffs == pytest.approx(model.backoffs, abs=1e-6)
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == (suffix == ".gz")


def test_a_small_file_is_read_by_the_definition_of_the_format(tmp_path: Path) -> None:
    path = tmp_path / "small.arpa"
    path.write_text(SMALL)
    model = NGram.read_arpa(path)
    assert (model.order, model.symbols) == (3, [" ", "a"])
    expected = {
        "": -0.5 - 0.4,
        "a": -0.3 + (-0.75 - 0.25 - 0.4),
        "aa": -0.3 - 0.05 + (-0.25 - 0.4),
        "a a": -0.3 + (-0.75 - 0.2) + (-0.1) + (-0.0625 - 0.25 - 0.4),
        " x": (-0.5 - 0.8) + (-0.125 - 1.5) - 0.4,
    }
    automaton = model.automaton([" ", "a", "x"])
    for text, log10 in expected.items():
        assert model.log_prob(text) / math.log(10) == pytest.approx(log10, abs=1e-6)
        state, total = automaton.start, 0.0
        for character in text:
            log_probs, following = automaton.look_up(np.array([[state]]), np.array([[" ax".index(character)]]))
            total += float(log_probs[0, 0, 0])
            state = int(following[0, 0, 0])
        assert total + float(automaton.ends(np.array([state]))[0]) == pytest.approx(model.log_prob(text), rel=1e-12)


def test_other_dialects_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model.arpa"
    path.write_text(SMALL)
    model = NGram.read_arpa(path)
    for stand_in in ("▁", "|", "_"):
        path.write_text(SMALL.replace("<space>", stand_in).replace("\t", " ").replace("\n", "\r\n"))
        assert NGram.read_arpa(path, stand_in).log_prob("a a x") == model.log_prob("a a x")
    path.write_text(SMALL.replace("-1.5	<unk>\n", "").replace("ngram 1=5", "ngram 1=4"))
    assert NGram.read_arpa(path).log_prob("x") == pytest.approx((-0.5 - 100 - 0.4) * math.log(10))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (SMALL, "", "line 0: .data. not found"),
        ("\n\\end\\", "", ".end. not found"),
        ("\\data\\\n", "", ".data. not found"),
        ("ngram 1=5\n", "", "line 4: expected ngram 1=, got 'ngram 2=3'"),
        ("ngram 2=3", "ngram 2=three", "line 5: "),
        ("ngram 2=3", "ngram 2=4", r"line 20: expected 4 2-grams, .* got 3"),
        ("ngram 1=5\nngram 2=3\nngram 3=1\n", "", "line 5: expected ngram 1="),
        ("\\2-grams", "\\3-grams", "line 15: expected .2-grams:, got '.3-grams:'"),
        ("ngram 3=1\n", "", "line 15: expected a log10 probability, 2 symbols, got"),
        ("-0.4	</s>", "-0.4x	</s>", "line 11: invalid log10 probability"),
        ("-0.4	</s>", "nan	</s>", "line 11: invalid log10 probability"),
        ("-0.4	</s>", "0.4	</s>", "line 11: invalid log10 probability"),
        ("-0.4	</s>", "-0.4	</s>	inf", "line 11: .* or backoff weight"),
        (
            "-0.4	</s>",
            "-0.4",
            "line 11: expected a log10 probability, 1 symbol and optionally a backoff weight, got '-0.4'",
        ),
        ("-0.4	</s>", "-0.4	a", "line 12: duplicate 1-gram 'a'"),
        ("-0.4	</s>", "-0.4	b", "required 1-gram </s> is missing"),
        ("-99	<s>	-0.5", "-99	c", "unknown symbol '<s>'"),
        ("-0.6	a	-0.25", "-0.6	the	-0.25", "line 12: 'the' is neither a single character"),
        ("-0.2	a <space>", "-0.2	a b", "line 17: unknown symbol 'b'"),
        ("-0.2	a <space>", "-0.2	<s> a", "line 17: duplicate n-gram"),
        ("-0.05	<s> a a", "-0.05	a a a", "line 21: the context of this n-gram"),
        ("-0.05	<s> a a", "-0.05	<s> a a	-0.1", "line 21: expected a log10 probability, 3 symbols"),
        ("-0.05	<s> a a", "-0.05	<s> a", "line 21: expected a log10 probability, 3 symbols"),
    ],
)
def test_malformed_files_are_named_with_their_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SMALL
    path = tmp_path / "bad.arpa"
    path.write_text(SMALL.replace(old, new, 1))
    with pytest.raises(InputError, match=message) as error:
        NGram.read_arpa(path)
    assert str(error.value).startswith(f"{path}, line ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("lines", range(1, len(SMALL.splitlines())))
def test_a_truncated_file_is_refused(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "cut.arpa"
    path.write_text("\n".join(SMALL.splitlines()[:lines]))
    with pytest.raises(InputError, match="line"):
        NGram.read_arpa(path)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    latin = tmp_path / "latin.arpa"
    latin.write_bytes(SMALL.replace("-0.6	a", "-0.6	é").encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.arpa, line 12: not UTF-8"):
        NGram.read_arpa(latin)
    cut = tmp_path / "cut.arpa.gz"
    cut.write_bytes(gzip.compress(SMALL.encode())[:-20])
    damaged = tmp_path / "damaged.arpa.gz"
    damaged.write_bytes(gzip.compress(SMALL.encode())[:10] + b"\xff" * 40)
    for path in (cut, damaged, tmp_path, tmp_path / "none.arpa"):
        with pytest.raises(InputError, match="cannot be read") as error:
            NGram.read_arpa(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("space", ["", "a", "a b", "\t"])
def test_the_name_of_the_space_is_no_symbol(tmp_path: Path, space: str) -> None:
    with pytest.raises(InputError, match=r"invalid name .* for the space"):
        NGram.estimate(["a b"], 2).write_arpa(tmp_path / "model.arpa", space)


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        NGram.estimate(["a b"], 2).write_arpa(tmp_path / "none" / "model.arpa")


@pytest.mark.parametrize("order", [2, 3, 5])  # KenLM has no unigram models and, as built for Python, none above 6
@pytest.mark.parametrize("min_count", [1, 2])
def test_kenlm_gives_the_same_scores(tmp_path: Path, order: int, min_count: int) -> None:
    kenlm = pytest.importorskip("kenlm")
    path = tmp_path / "model.arpa"
    model = NGram.estimate(markov(60), order, min_count)
    model.write_arpa(path)
    reader = kenlm.Model(str(path))
    for text in ["", "☃", "a☃b", *markov(20, seed=1)]:
        words = " ".join("<space>" if character == " " else character for character in text)
        assert reader.score(words) == pytest.approx(model.log_prob(text) / math.log(10), abs=1e-3)
