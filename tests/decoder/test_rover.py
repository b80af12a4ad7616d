"""Votes of readings by hand, by brute force over alignments, and by what must not change them."""

import math
from functools import cache
from itertools import permutations

import editdistance
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_lightning.decoder.rover import Ballot, Elected, align, rover

texts = st.text("abc", max_size=6)
readings = st.lists(st.tuples(texts, st.sampled_from([0.25, 0.5, 0.9, 1.0])), min_size=1, max_size=4)


def vote(some: list[tuple[str, float]], weights: list[float] | None = None) -> Elected:
    """Of readings, each of which is a voter's only one."""
    return rover([Ballot(*one, voter) for voter, one in enumerate(some)], weights or [1.0] * len(some))


def cost(slots: list[tuple[str, ...]]) -> int:
    """What `align` promises to keep small: pairs of texts, the later of which has another entry than the earlier."""
    return sum(slot[i] != slot[j] for slot in slots for j in range(len(slot)) for i in range(j))


def by_hand(slots: list[tuple[str, ...]], text: str) -> int:
    """The least cost of one more text, by recursion over where its characters go."""

    @cache
    def least(slot: int, place: int) -> int:
        if slot == len(slots) and place == len(text):
            return 0
        ways = []
        if place < len(text):
            ways.append(least(slot, place + 1) + (len(slots[0]) if slots else 0))
        if slot < len(slots):
            ways.append(least(slot + 1, place) + sum(entry != "" for entry in slots[slot]))
        if slot < len(slots) and place < len(text):
            ways.append(least(slot + 1, place + 1) + sum(entry != text[place] for entry in slots[slot]))
        return min(ways)

    return least(0, 0)


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
def test_the_third_text_is_aligned_at_least_cost(some: tuple[str, str, str]) -> None:
    before, slots = align(some[:2]), align(some)
    assert cost(slots) == cost(before) + by_hand(before, some[2])


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        (["chat", "chat", "char"], "chat"),
        (["chat", "cat", "chat"], "chat"),  # a lost character comes back
        (["cat", "chat", "cat"], "cat"),  # one too many goes
        (["chats", "chat", "hat"], "chat"),
        (["kitten", "sitting", "kitting"], "kitting"),
        (["", "", "a"], ""),
        (["", "a", "a"], "a"),
        (["ab", "bc", "abc"], "abc"),
    ],
)
def test_the_majority_wins(readings: list[str], expected: str) -> None:
    for order in permutations(readings):
        assert vote([(text, 0.5) for text in order]).text == expected


@given(st.text("abc", min_size=3, max_size=9), st.data())
def test_one_error_a_place_is_outvoted_by_two(truth: str, data: st.DataObject) -> None:
    """Three strings whose errors never meet: the majority of every place is the truth, a brute-force count."""
    places = data.draw(st.lists(st.integers(0, 3), min_size=len(truth), max_size=len(truth)))
    some = ["".join("x" if place == who else c for c, place in zip(truth, places, strict=True)) for who in range(3)]
    voted = vote([(text, 0.9) for text in some])
    log_shares = [math.log(0.9 * (3 if place == 3 else 2) / 3) for place in places]
    if all(sum(a != b for a, b in zip(one, two, strict=True)) == editdistance.eval(one, two)
           for one in some for two in some):  # fmt: skip
        assert voted.text == truth
        assert voted.confidence == pytest.approx(math.exp(sum(log_shares) / len(truth)))


def test_confidence_outweighs_number() -> None:
    assert vote([("a", 0.9), ("b", 0.4), ("b", 0.4)]).text == "a"
    assert vote([("", 0.9), ("b", 0.4), ("b", 0.4)]).text == ""


def test_the_confidence_by_hand() -> None:
    """Slots c: 0.6 + 0.9, a: 0.6 + 0.9, t: 0.6, none: 0.9 of two readings; the last slot is won by none."""
    voted = vote([("cat", 0.6), ("ca", 0.9)])
    assert voted.text == "ca"
    assert voted.confidence == pytest.approx((0.75 * 0.75 * 0.45) ** 0.5)


def test_shares_of_the_votes_by_hand() -> None:
    """Two voters: b has 0.6 + 0.45 of two votes and a 0.4 + 0.55, though each of two readings says a."""
    some = [Ballot("xb", 0.6, 0), Ballot("xa", 0.4, 0), Ballot("xa", 0.55, 1), Ballot("xb", 0.45, 1)]
    voted = rover(some, [1.0, 1.0])
    assert voted.text == "xb"
    assert voted.confidence == pytest.approx((1.0 * 0.525) ** 0.5)
    voted = rover(some, [1.0, 3.0])  # a has 0.4 + 1.65 of four votes
    assert voted.text == "xa"
    assert voted.confidence == pytest.approx((1.0 * 0.5125) ** 0.5)


@given(readings, st.data())
def test_a_voter_without_weight_has_no_say(some: list[tuple[str, float]], data: st.DataObject) -> None:
    chosen = data.draw(st.integers(0, len(some) - 1))
    weights = [0.3 if number == chosen else 0.0 for number in range(len(some))]
    assert vote(some, weights).text == some[chosen][0]


@given(readings, st.floats(0.1, 9))
def test_only_the_ratio_of_weights_counts(some: list[tuple[str, float]], weight: float) -> None:
    assert vote(some, [weight] * len(some)).confidence == pytest.approx(vote(some).confidence)


@given(texts, st.floats(0.01, 1), st.integers(1, 4))
def test_equal_readings_are_left_as_they_are(text: str, confidence: float, count: int) -> None:
    voted = vote([(text, confidence)] * count)
    assert (voted.text, voted.confidence) == (text, pytest.approx(confidence))


@given(readings, st.randoms(use_true_random=False))
def test_the_order_of_the_readings_does_not_matter(some: list[tuple[str, float]], random) -> None:
    voted = vote(some)
    random.shuffle(some)
    assert vote(some) == voted


@given(readings)
def test_the_confidence_is_a_probability_and_no_surer_than_the_surest(some: list[tuple[str, float]]) -> None:
    voted = vote(some)
    assert 0 <= voted.confidence <= max(confidence for _, confidence in some) + 1e-9


def test_a_reading_without_any_confidence_has_no_vote() -> None:
    assert vote([("a", 0.0), ("b", 0.5)]).text == "b"
    assert vote([("a", 0.0)]) == Elected("a", 0.0)
