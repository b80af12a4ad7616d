"""Each convention agrees with an independent implementation of it."""

import re
import unicodedata
from collections.abc import Callable, Sequence

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.text import CharErrorRate, WordErrorRate

from htr_lightning.metrics.conventions import CONVENTIONS, by_convention, fold_accents, marks_split, nltk_words

REFERENCES = [
    "L'été, on part (à 8 h)!", "Straße—«Noël» 3,50 €", "He can't; \"won't\".", "DÉJÀ vu", "a b c", "œuvre & co. 50%",
    "le [re]cueil n° 12:30 / 7", "naïve # façade?", "Élan",
]  # fmt: skip
HYPOTHESES = [
    "L'ete on part ( à 8h) !", "strasse - «Noel» 3.50 €", "he can't, 'won't'.", "Deja vu", "abc", "oeuvre & co 50 %",
    "le recueil n°12 30/7", "naive façade ?", "élan",
]  # fmt: skip
LINES = st.text(st.sampled_from("aàÀeéÉcçb .,'-()\"°"), max_size=12)


def distance(first: Sequence[object], second: Sequence[object]) -> int:
    row = list(range(len(second) + 1))
    for i, one in enumerate(first, start=1):
        before, row = row, [i]
        for j, other in enumerate(second, start=1):
            row.append(min(row[-1] + 1, before[j] + 1, before[j - 1] + (one != other)))
    return row[-1]


def micro(split: Callable[[str], Sequence[str]]) -> float:
    pairs = [(split(r), split(h)) for r, h in zip(REFERENCES, HYPOTHESES, strict=True)]
    return sum(distance(*pair) for pair in pairs) / sum(len(reference) for reference, _ in pairs)


def applied(change: Callable[[str], str]) -> tuple[list[str], list[str]]:
    return [change(text) for text in REFERENCES], [change(text) for text in HYPOTHESES]


def without_accents(text: str) -> str:
    return re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFD", text))


def test_each_convention_is_tested() -> None:
    found = by_convention(REFERENCES, HYPOTHESES)
    assert found.keys() == CONVENTIONS.keys()
    expected = {
        "cer_line_mean": sum(jiwer.cer(*pair) for pair in zip(REFERENCES, HYPOTHESES, strict=True)) / len(REFERENCES),
        "cer_no_spaces": jiwer.cer(*applied(lambda text: text.replace(" ", ""))),
        "cer_case_folded": micro(lambda text: [*text.replace("ß", "ss").lower()]),
        "cer_accent_folded": float(CharErrorRate()(*applied(without_accents)[::-1])),
        "wer_case_folded": float(WordErrorRate()(*applied(lambda text: text.replace("ß", "ss").lower())[::-1])),
        "wer_accent_folded": jiwer.wer(*applied(without_accents)),
        "wer_marks_split": micro(by_hand),
        "wer_nltk": micro(nltk_words),  # whose words are tested below
    }
    assert found == pytest.approx(expected, rel=1e-6)
    assert len(set(found.values())) == len(found)


def by_hand(text: str) -> list[str]:
    """Return the words of VAN's WER, as its authors describe them: marks are words of their own."""
    words, word = [], ""
    for one in text:
        if one in " \n" or one in "[]{}/()\"'&+*=<>?.;:,!-—_€#%°":
            words += [word] * bool(word) + [one] * (one not in " \n")
            word = ""
        else:
            word += one
    return words + [word] * bool(word)


@given(LINES)
def test_marks_are_split_as_by_hand(text: str) -> None:
    assert marks_split(text) == (by_hand(text) or [""])


def test_a_backslash_is_no_mark() -> None:
    assert marks_split("a\\b/c") == ["a\\b", "/", "c"]


@pytest.mark.parametrize(
    ("text", "words"),
    [  # as printed by NLTKWordTokenizer().tokenize(text) of NLTK 3.10.4
        (
            'He said, "I can\'t do that." Then left.',
            ["He", "said", ",", "``", "I", "ca", "n't", "do", "that.", "''", "Then", "left", "."],
        ),
        (
            "l'an 1858, le 3 mai: M. Dupont (dit « Jean ») a payé 3,50 fr.",
            [
                "l'an",
                "1858",
                ",",
                "le",
                "3",
                "mai",
                ":",
                "M.",
                "Dupont",
                "(",
                "dit",
                "«",
                "Jean",
                "»",
                ")",
                "a",
                "payé",
                "3,50",
                "fr",
                ".",
            ],
        ),
        (
            "They'll cannot've gone... wanna bet? 'Tis 'twas O'Neill's dogs' - 50% & more -- yes!",
            [
                "They",
                "'ll",
                "can",
                "not",
                "'ve",
                "gone",
                "...",
                "wan",
                "na",
                "bet",
                "?",
                "'",
                "Tis",
                "'",
                "twas",
                "O'Neill",
                "'s",
                "dogs",
                "'",
                "-",
                "50",
                "%",
                "&",
                "more",
                "--",
                "yes",
                "!",
            ],
        ),
        (
            "«Oui», dit-il; 12:30 [sic] – rien*",
            ["«", "Oui", "»", ",", "dit-il", ";", "12:30", "[", "sic", "]", "–", "rien", "*"],
        ),
        ("", []),
        (
            "rock 'n' roll “quoted” ‘single’ e.g. this.)",
            ["rock", "'n", "'", "roll", "“", "quoted", "”", "‘", "single", "’", "e.g.", "this", ".", ")"],
        ),
    ],
)
def test_words_are_those_of_nltk(text: str, words: list[str]) -> None:
    assert nltk_words(text) == words


@given(LINES)
def test_folding_accents_is_idempotent_and_keeps_plain_letters(text: str) -> None:
    folded = fold_accents(text)
    assert fold_accents(folded) == folded == without_accents(text)
    assert fold_accents(folded.upper()) == folded.upper()


@pytest.mark.parametrize("name", CONVENTIONS)
def test_rates_are_0_for_correct_lines_and_defined_for_none(name: str) -> None:
    rate = CONVENTIONS[name].rate
    assert rate(REFERENCES, REFERENCES) == 0
    assert rate([], []) == 0
    assert rate([""], [""]) == 0
    assert rate([""], ["a"]) == 1
