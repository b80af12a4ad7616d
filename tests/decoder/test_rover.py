"""ROVER matches hand-computed results and brute force over alignments, and is invariant where it should be."""

import math
from functools import cache
from itertools import permutations

import editdistance
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_lightning.decoder.rover import Consensus, WeightedHypothesis, align, rover

texts = st.text("abc", max_size=6)
hypotheses = st.lists(st.tuples(texts, st.sampled_from([0.25, 0.5, 0.9, 1.0])), min_size=1, max_size=4)


def consensus(some: list[tuple[str, float]], weights: list[float] | None = None) -> Consensus:
    """Return the consensus of hypotheses, each from a different member."""
    hypotheses = [WeightedHypothesis(*one, member) for member, one in enumerate(some)]
    return rover(hypotheses, weights or [1.0] * len(some))


def cost(slots: list[tuple[str, ...]]) -> int:
    """What `align` minimises: pairs of texts that have different entries in a slot."""
    return sum(slot[i] != slot[j] for slot in slots for j in range(len(slot)) for i in range(j))


def by_hand(slots: list[tuple[str, ...]], text: str) -> int:
    """The minimum cost of one more text, by recursion over the slots of its characters."""

    @cache
    def minimum(slot: int, position: int) -> int:
        if slot == len(slots) and position == len(text):
            return 0
        ways = []
        if position < len(text):
            ways.append(minimum(slot, position + 1) + (len(slots[0]) if slots else 0))
        if slot < len(slots):
            ways.append(minimum(slot + 1, position) + sum(entry != "" for entry in slots[slot]))
        if slot < len(slots) and position < len(text):
            ways.append(minimum(slot + 1, position + 1) + sum(entry != text[position] for entry in slots[slot]))
        return min(ways)

    return minimum(0, 0)


@given(st.lists(texts, min_size=1, max_size=4))
def test_every_slot_has_an_entry_of_each_text_in_its_order(some: list[str]) -> None:
    slots = align(some)
    assert ["".join(entries) for entries in zip(*slots, strict=True)] == (some if slots else [])
    assert bool(slots) == any(some)
    assert all(any(slot) for slot in slots)


@given(texts, texts)
def test_two_texts_are_aligned_with_their_edit_distance(one: str, other: str) -> None:
    assert sum(a != b for a, b in align([one, other])) == editdistance.eval(one, other)


@given(st.tuples(texts, texts, texts).filter(lambda some: len(set(some)) == 3 and some[0]))
def test_the_third_text_is_aligned_at_minimum_cost(some: tuple[str, str, str]) -> None:
    before, slots = align(some[:2]), align(some)
    assert cost(slots) == cost(before) + by_hand(before, some[2])


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["chat", "chat", "char"], "chat"),
        (["chat", "cat", "chat"], "chat"),  # a deleted character is restored
        (["cat", "chat", "cat"], "cat"),  # an inserted character is removed
        (["chats", "chat", "hat"], "chat"),
        (["kitten", "sitting", "kitting"], "kitting"),
        (["", "", "a"], ""),
        (["", "a", "a"], "a"),
        (["ab", "bc", "abc"], "abc"),
    ],
)
def test_the_majority_wins(texts: list[str], expected: str) -> None:
    for order in permutations(texts):
        assert consensus([(text, 0.5) for text in order]).text == expected


@given(st.text("abc", min_size=3, max_size=9), st.data())
def test_an_error_of_one_is_outvoted_by_two(truth: str, data: st.DataObject) -> None:
    """Three strings whose errors never meet: the majority of every position is the truth."""
    positions = data.draw(st.lists(st.integers(0, 3), min_size=len(truth), max_size=len(truth)))
    some = [
        "".join("x" if position == who else c for c, position in zip(truth, positions, strict=True)) for who in range(3)
    ]
    found = consensus([(text, 0.9) for text in some])
    log_shares = [math.log(0.9 * (3 if position == 3 else 2) / 3) for position in positions]
    if all(sum(a != b for a, b in zip(one, two, strict=True)) == editdistance.eval(one, two)
           for one in some for two in some):  # fmt: skip
        assert found.text == truth
        assert found.confidence == pytest.approx(math.exp(sum(log_shares) / len(truth)))


def test_confidence_outweighs_number() -> None:
    assert consensus([("a", 0.9), ("b", 0.4), ("b", 0.4)]).text == "a"
    assert consensus([("", 0.9), ("b", 0.4), ("b", 0.4)]).text == ""


def test_the_confidence_by_hand() -> None:
    """Slots c: 0.6 + 0.9, a: 0.6 + 0.9, t: 0.6, gap: 0.9 of two hypotheses; the gap wins the last slot."""
    found = consensus([("cat", 0.6), ("ca", 0.9)])
    assert found.text == "ca"
    assert found.confidence == pytest.approx((0.75 * 0.75 * 0.45) ** 0.5)


def test_hypotheses_of_one_member_by_hand() -> None:
    """Two members: b has 0.6 + 0.45 of 2 and a 0.4 + 0.55."""
    some = [
        WeightedHypothesis("xb", 0.6, 0),
        WeightedHypothesis("xa", 0.4, 0),
        WeightedHypothesis("xa", 0.55, 1),
        WeightedHypothesis("xb", 0.45, 1),
    ]
    found = rover(some, [1.0, 1.0])
    assert found.text == "xb"
    assert found.confidence == pytest.approx((1.0 * 0.525) ** 0.5)
    found = rover(some, [1.0, 3.0])  # a has 0.4 + 1.65 of 4
    assert found.text == "xa"
    assert found.confidence == pytest.approx((1.0 * 0.5125) ** 0.5)


@given(hypotheses, st.data())
def test_a_member_of_weight_zero_has_no_influence(some: list[tuple[str, float]], data: st.DataObject) -> None:
    chosen = data.draw(st.integers(0, len(some) - 1))
    weights = [0.3 if number == chosen else 0.0 for number in range(len(some))]
    assert consensus(some, weights).text == some[chosen][0]


@given(hypotheses, st.floats(0.1, 9))
def test_only_the_ratio_of_weights_counts(some: list[tuple[str, float]], weight: float) -> None:
    assert consensus(some, [weight] * len(some)).confidence == pytest.approx(consensus(some).confidence)


@given(texts, st.floats(0.01, 1), st.integers(1, 4))
def test_equal_hypotheses_stay_as_they_are(text: str, confidence: float, count: int) -> None:
    found = consensus([(text, confidence)] * count)
    assert (found.text, found.confidence) == (text, pytest.approx(confidence))


@given(hypotheses, st.randoms(use_true_random=False))
def test_the_order_of_the_hypotheses_does_not_matter(some: list[tuple[str, float]], random) -> None:
    found = consensus(some)
    random.shuffle(some)
    assert consensus(some) == found


@given(hypotheses)
def test_the_confidence_is_a_probability_and_not_above_the_highest(some: list[tuple[str, float]]) -> None:
    found = consensus(some)
    assert 0 <= found.confidence <= max(confidence for _, confidence in some) + 1e-9


def test_a_hypothesis_of_confidence_zero_has_no_influence() -> None:
    assert consensus([("a", 0.0), ("b", 0.5)]).text == "b"
    assert consensus([("a", 0.0)])[:2] == ("a", 0.0)
