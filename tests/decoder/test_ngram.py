"""N-gram models against the formulas of Chen & Goodman (1999), written out symbol by symbol."""

import io
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from htr_lightning import checkpoint
from htr_lightning.decoder import ngram
from htr_lightning.decoder.kneser_ney import FALLBACK, discounts
from htr_lightning.decoder.ngram import NGram
from htr_lightning.errors import InputError

TEXTS = st.lists(st.text("ab é", max_size=12), min_size=1, max_size=6)
ORDERS = st.integers(1, 8)


def markov(lines: int, seed: int = 0) -> list[str]:
    """Lines from a Markov chain, so that n-grams have counts of all sizes."""
    table, draw = random.Random(0), random.Random(seed)
    letters = "abcdefghij klmnop"
    weights = {letter: [table.random() ** 4 for _ in letters] for letter in letters}
    texts = []
    for _ in range(lines):
        text = draw.choice(letters)
        while draw.random() < 0.9:
            text += draw.choices(letters, weights[text[-1]])[0]
        texts.append(text)
    return texts


def kneser_ney(texts: list[str], order: int) -> Callable[[str, tuple[str, ...]], float]:
    """p(symbol | context) from the definition, regardless of speed."""
    lines = [("<s>", *text, "</s>") for text in texts]
    raw = [Counter(line[i : i + n] for line in lines for i in range(len(line) - n + 1)) for n in range(order + 1)]
    behind = [Counter(longer[1:] for longer in grams) for grams in raw[1:]]  # of n-grams, distinct symbols before them
    symbols = {*"".join(texts), "</s>", "<unk>"}

    @cache
    def count(gram: tuple[str, ...]) -> int:
        if gram == ("<s>",):
            return 0
        if len(gram) == order or gram[0] == "<s>":
            return raw[len(gram)][gram]
        return behind[len(gram)][gram]

    @cache
    def discount(n: int) -> list[float]:
        of = Counter(count(gram) for gram in raw[n])
        if of[1] and of[2] and of[3]:
            y = of[1] / (of[1] + 2 * of[2])
            found = [k - (k + 1) * y * of[k + 1] / of[k] for k in (1, 2, 3)]
            if min(found) > 0:
                return [0, *found]
        return [0, 0.5, 1.0, 1.5]

    @cache
    def p(symbol: str, context: tuple[str, ...]) -> float:
        context = context[-(order - 1) :] if order > 1 else ()
        followers = [count((*context, other)) for other in symbols]
        shorter = p(symbol, context[1:]) if context else 1 / len(symbols)
        if not sum(followers):
            return shorter
        taken = discount(len(context) + 1)
        own = count((*context, symbol))
        left = sum(taken[min(c, 3)] for c in followers)
        return (own - taken[min(own, 3)] + left * shorter) / sum(followers)

    return p


def chain(p: Callable[[str, tuple[str, ...]], float], text: str, known: set[str]) -> float:
    line = ["<s>", *(c if c in known else "<unk>" for c in text), "</s>"]
    return math.fsum(math.log(p(line[i], tuple(line[:i]))) for i in range(1, len(line)))


@settings(max_examples=25)
@given(TEXTS, ORDERS, st.text("ab éx", max_size=10))
def test_a_line_has_the_probability_of_the_definition(texts: list[str], order: int, text: str) -> None:
    expected = chain(kneser_ney(texts, order), text, set("".join(texts)))
    assert NGram.estimate(texts, order).log_prob(text) == pytest.approx(expected, abs=1e-4, rel=1e-5)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_estimated_discounts_are_those_of_the_definition(order: int) -> None:
    texts = markov(150)
    p = kneser_ney(texts, order)
    model = NGram.estimate(texts, order)
    for text in [*texts[:20], *markov(20, seed=1), "", "zz", "a" * 30]:
        assert model.log_prob(text) == pytest.approx(chain(p, text, set(model.symbols)), rel=1e-5)


def rows(automaton: ngram.Automaton, states: Sequence[int] | np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of all classes after some states, and the next states."""
    log_probs, following = automaton.look_up(np.array(states, np.int64)[None], np.arange(classes)[None])
    return log_probs[0], following[0]


def total(automaton: ngram.Automaton, states: np.ndarray, classes: int) -> np.ndarray:
    """The total probability of everything after each state, including the end."""
    characters = np.exp(rows(automaton, states, classes)[0].astype(float)).sum(1)
    return characters + np.exp(automaton.ends(states).astype(float))


def test_discounts_are_equation_26_or_the_fallback() -> None:
    counts = np.repeat([0, 1, 2, 3, 4, 5, 9], [7, 10, 5, 3, 2, 1, 1])
    assert discounts(counts) == pytest.approx([0, 0.5, 1.1, 3 - 4 / 3])
    assert discounts(counts[counts != 2]) == pytest.approx([0, *FALLBACK])
    assert discounts(np.repeat([1, 2, 3, 4], [1, 1, 5, 5])) == pytest.approx([0, *FALLBACK])  # otherwise D2 would be -3


@settings(max_examples=25)
@given(TEXTS, ORDERS, st.text("ab éx", max_size=10))
def test_probabilities_sum_to_one_in_every_context(texts: list[str], order: int, text: str) -> None:
    model = NGram.estimate(texts, order)
    automaton = model.automaton([*model.symbols, "☃"])  # one unknown character represents all
    every = np.arange(len(model.keys) + 1)  # contexts of the model, and those on the way along a text
    automaton_text = model.automaton(list("ab éx"))
    states = [automaton_text.start]
    for character in text:
        states.append(int(rows(automaton_text, states[-1:], 5)[1][0, "ab éx".index(character)]))
    states = np.concatenate([every, states])
    assert total(automaton, states, len(model.symbols) + 1) == pytest.approx(np.ones(len(states)), abs=1e-5)


@pytest.mark.parametrize("order", range(1, 9))
@pytest.mark.parametrize("min_count", [1, 2])
def test_the_automaton_is_the_chain_rule(order: int, min_count: int) -> None:
    model = NGram.estimate(markov(60), order, min_count)
    alphabet = [*reversed(model.symbols), "x", "y"]
    automaton = model.automaton(alphabet)
    for text in ["", "x", *markov(10, seed=1), "ax yb", "x" * 12]:
        state, steps = automaton.start, []
        for character in text:
            log_probs, following = rows(automaton, [state], len(alphabet))
            steps.append(log_probs[0, alphabet.index(character)])
            state = int(following[0, alphabet.index(character)])
        steps.append(automaton.ends(np.array([state]))[0])
        assert math.fsum(steps) == pytest.approx(model.log_prob(text), rel=1e-15)


def test_contexts_with_the_same_future_share_a_state() -> None:
    model = NGram.estimate(["abcab", "cab"], order=3)
    automaton = model.automaton(["a", "b", "c"])

    def after(text: str) -> int:
        state = automaton.start
        for character in text:
            state = int(rows(automaton, [state], 3)[1][0, "abc".index(character)])
        return state

    assert after("cab") == after("abcab") == after("ccab") == after("bab") != after("b")
    assert after("aa") == after("ba") != after("a")  # <s>a is known, aa and ba are not


def test_rows_do_not_depend_on_earlier_look_ups(monkeypatch: pytest.MonkeyPatch) -> None:
    model = NGram.estimate(markov(60), 4)
    states = np.random.default_rng(0).permutation(len(model.keys) + 1)
    count = len(model.symbols)
    together, following = rows(model.automaton(model.symbols), states, count)
    monkeypatch.setattr(ngram, "TABLE_BYTES", 100 * 8 * len(model.symbols))  # some rows are evicted from the cache
    automaton = model.automaton(model.symbols)
    for part in np.array_split(states, 40):
        some, behind = rows(automaton, part, count)
        assert (some == together[: len(part)]).all()
        assert (behind == following[: len(part)]).all()
        together, following = together[len(part) :], following[len(part) :]
    assert rows(automaton, [], count)[0].shape == (0, count)


def test_look_up_gives_single_entries_of_rows() -> None:
    model = NGram.estimate(markov(60), 4)
    automaton = model.automaton(model.symbols)
    draw = np.random.default_rng(0)
    states, classes = draw.integers(0, len(model.keys), (3, 3)), draw.integers(0, len(model.symbols), (3, 7))
    log_probs, following = automaton.look_up(states, classes)
    for line in range(3):
        all_log_probs, all_following = rows(automaton, states[line], len(model.symbols))
        assert (log_probs[line] == all_log_probs[:, classes[line]]).all()
        assert (following[line] == all_following[:, classes[line]]).all()


@pytest.mark.parametrize("texts", [[""], ["a"], ["", ""], ["ab"], ["aaaaaaaaaa"], ["a b", ""]])
@pytest.mark.parametrize("order", [1, 2, 8])
def test_small_corpora(texts: list[str], order: int) -> None:
    model = NGram.estimate(texts, order)
    p = kneser_ney(texts, order)
    for text in ["", "a", "b", "ab", "zzz", "a b a b"]:
        assert model.log_prob(text) == pytest.approx(chain(p, text, set("".join(texts))), rel=1e-5)


def test_an_order_above_all_lines_changes_nothing() -> None:
    texts = ["abc", "ab", "b"]
    assert NGram.estimate(texts, 8).log_prob("abcab") == NGram.estimate(texts, 5).log_prob("abcab")


def test_perplexity_is_that_of_characters_and_ends() -> None:
    model = NGram.estimate(markov(60), 3)
    texts = ["abc", "", "de f"]
    total = math.fsum(map(model.log_prob, texts))
    assert model.perplexity(texts) == pytest.approx(math.exp(-total / (3 + 1 + 0 + 1 + 4 + 1)))


def test_more_context_lowers_perplexity() -> None:
    prose = (Path(ngram.__file__).parents[1] / "data" / "words" / "french_prose.txt").read_text("utf-8").splitlines()
    scores = [NGram.estimate(prose[20:], order).perplexity(prose[:20]) for order in (1, 2, 3, 6)]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < scores[0] / 2


def test_pruning_drops_rare_n_grams_and_probabilities_sum_to_one() -> None:
    texts = markov(100)
    whole, pruned = NGram.estimate(texts, 5), NGram.estimate(texts, 5, min_count=2)
    lines = [("<s>", *text, "</s>") for text in texts]
    often = [
        sum(c > 1 for c in Counter(line[i : i + n] for line in lines for i in range(len(line) - n + 1)).values())
        for n in (3, 4, 5)
    ]
    assert [level.stop - level.start for level in pruned.levels[3:]] == often
    assert [level.stop - level.start for level in pruned.levels[:3]] == [
        level.stop - level.start for level in whole.levels[:3]
    ]
    automaton = pruned.automaton([*pruned.symbols, "☃"])
    states = np.arange(len(pruned.keys) + 1)
    assert total(automaton, states, len(pruned.symbols) + 1) == pytest.approx(np.ones(len(states)), abs=1e-5)


@pytest.mark.parametrize(("order", "min_count"), [(1, 1), (4, 1), (6, 2), (8, 1)])
def test_the_plain_form_is_the_model(order: int, min_count: int) -> None:
    model = NGram.estimate(markov(60), order, min_count)
    file = io.BytesIO()
    torch.save(checkpoint.with_tensors(model.to_plain()), file)
    file.seek(0)
    back = NGram.from_plain(torch.load(file, weights_only=True))
    assert (back.order, back.symbols) == (model.order, model.symbols)
    for part in ("keys", "log_probs", "backoffs", "links"):
        assert (getattr(back, part) == getattr(model, part)).all()


@pytest.mark.parametrize(
    ("texts", "order", "message"),
    [
        ([], 3, "no text to estimate"),
        (["a"], 0, "order=0"),
        (["a\nb"], 3, r"U\+000A"),
        (["a\tb"], 3, r"U\+0009"),
    ],
)
def test_what_cannot_be_estimated_is_refused(texts: list[str], order: int, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        NGram.estimate(texts, order)
    assert "\n" not in str(error.value)


def test_no_text_has_no_perplexity() -> None:
    with pytest.raises(InputError, match="no text"):
        NGram.estimate(["a"], 2).perplexity([])
