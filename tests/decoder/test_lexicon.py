"""Lexicons match their definition, by themselves and in a search."""

import re
from itertools import product

import numpy as np
import pytest

from decoder.test_prefix_beam import lines
from htr_lightning.decoder.language import Automaton, Language
from htr_lightning.decoder.lexicon import Lexicon, is_free, words_of
from htr_lightning.decoder.ngram import NGram
from htr_lightning.decoder.prefix_beam import PrefixBeam

ALPHABET = " ab'"


def accepts(automaton: Automaton, text: str, alphabet: str = ALPHABET) -> bool:
    state = np.full((1, 1), automaton.start)
    for character in text:
        scores, nexts = automaton.look_up(state, np.full((1, 1), alphabet.index(character)))
        if scores[0, 0, 0] == -np.inf:
            return False
        state = nexts[0]
    return bool(automaton.ends(state[0])[0] > -np.inf)


@pytest.mark.parametrize(
    "words", [["a"], ["ab", "a"], ["a'b", "b"], ["a'b", "a", "bb"], ["a b", "a"], ["'a", "b'"], []]
)
def test_texts_are_words_with_free_characters_between_them(words: list[str]) -> None:
    """Every text of up to five characters against a regular expression."""
    word = "|".join(map(re.escape, words)) or "(?!)"
    pattern = re.compile(f"[ ']*(?:(?:{word})(?:[ ']+(?:{word}))*[ ']*)?")
    automaton = Lexicon(words).automaton(ALPHABET)
    for size in range(6):
        for characters in product(ALPHABET, repeat=size):
            text = "".join(characters)
            assert accepts(automaton, text) == bool(pattern.fullmatch(text)), text


def test_the_words_of_texts_accept_these_texts() -> None:
    texts = ["L'an 1723, (peut-être) aujourd’hui.", "1er été", "", "...", "שלום abc"]
    words = words_of(texts)
    assert {"L", "an", "peut", "être", "er", "été"} <= set(words)
    alphabet = "".join(sorted(set("".join(texts))))
    automaton = Lexicon(words).automaton(alphabet)
    assert all(accepts(automaton, text, alphabet) for text in texts)
    assert not accepts(automaton, "L'ane", alphabet)


def test_only_letters_and_their_marks_make_words() -> None:
    assert not any(map(is_free, "aßéשא\u0301漢"))
    assert all(map(is_free, " 1'-.(€«"))


@pytest.mark.parametrize("scale", [0.5, 3.0])
@pytest.mark.parametrize("with_model", [False, True])
def test_every_hypothesis_consists_of_words_of_the_lexicon(scale: float, with_model: bool) -> None:
    log_probs = lines(30, 12, 5, seed=0, scale=scale)
    lexicon = Lexicon(["ab", "a'b", "bba"])
    ngram = NGram.estimate(["ab bba", "a'b ab"], 3) if with_model else None
    decoder = PrefixBeam(6, 4, 0.01, 20.0, alpha=0.5 * with_model, beta=2.0)
    decoder = decoder.with_automaton(Language(ngram, lexicon).automaton(ALPHABET))
    alone = lexicon.automaton(ALPHABET)
    found = decoder.n_best(log_probs, np.full(30, 12), 4)
    texts = ["".join(ALPHABET[id - 1] for id in one.ids) for some in found for one in some]
    assert all(accepts(alone, text) for text in texts)
    assert any("ab" in text for text in texts)
    assert all(0 <= one.confidence <= 1 and np.isfinite(one.score) for some in found for one in some)


def test_a_line_that_ends_inside_a_word_is_cut_back_to_its_last_complete_word() -> None:
    path = [2, 3, 1, 2]  # "ab a", very sure
    log_probs = np.log(np.eye(5, dtype=np.float32)[[path]] + 1e-9)
    decoder = PrefixBeam(1, 4, 0.001, 10.0).with_automaton(Language(None, Lexicon(["ab"])).automaton(ALPHABET))
    assert decoder(log_probs, np.array([4]))[0].ids == [2, 3, 1]


def test_an_intersection_adds_log_probabilities() -> None:
    ngram, lexicon = NGram.estimate(["ab a", "a'b"], 3), Lexicon(["a", "ab"])
    both = Language(ngram, lexicon).automaton(ALPHABET)
    parts = [ngram.automaton(ALPHABET), lexicon.automaton(ALPHABET)]
    states = [np.full((1, 1), part.start) for part in (both, *parts)]
    for character in "ab 'a":
        label = np.full((1, 1), ALPHABET.index(character))
        (whole, states[0]), *some = (
            (scores, nexts[0])
            for scores, nexts in (
                part.look_up(state, label) for part, state in zip([both, *parts], states, strict=True)
            )
        )
        states[1:] = [nexts for _, nexts in some]
        assert whole == sum(scores for scores, _ in some)
        assert both.ends(states[0][0]) == sum(p.ends(s[0]) for p, s in zip(parts, states[1:], strict=True))


def test_a_language_survives_conversion_to_plain_data() -> None:
    language = Language(NGram.estimate(["ab a", "a'b"], 3), Lexicon(["a", "ab"]))
    again = Language.from_plain(language.to_plain())
    assert again.lexicon is not None
    assert again.lexicon.words == ["a", "ab"]
    assert again.ngram is not None
    assert again.ngram.log_prob("ab") == language.ngram.log_prob("ab")
    assert Language.from_plain(Language(language.ngram, None).to_plain()).lexicon is None
