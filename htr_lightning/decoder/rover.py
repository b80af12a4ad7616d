"""Several readings of a line voted into one, character by character."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NONE = ""  # where a reading has no character


class Ballot(NamedTuple):
    """One reading; its confidence is a probability per character, or its share of that among those of its voter."""

    text: str
    confidence: float
    voter: int  # its place among the weights


class Elected(NamedTuple):
    """The reading that won, and its probability per character."""

    text: str
    confidence: float


def rover(ballots: Sequence[Ballot], weights: Sequence[float]) -> Elected:
    """The reading that most of the confidence is for (Fiscus, 1997, "A post-processing system to yield reduced word
    error rates: Recognizer Output Voting Error Reduction (ROVER)"), over characters in place of words.

    In every slot of the alignment each reading gives its character, or none, its confidence times its voter's weight;
    the largest sum wins, and its weighted mean over all voters is its probability. So equal readings are left as they
    are. The order of the readings does not matter; of equal sums the one with the most confident reading wins. Where
    voters give several readings by their posteriors, this is confusion network combination (Evermann and Woodland,
    2000, "Posterior probability decoding, confidence estimation and system combination").

    Args:
        ballots: at least one.
        weights: of the voters.
    """
    ballots = in_order(ballots)
    return count(ballots, align([ballot.text for ballot in ballots]), weights)


def in_order(ballots: Sequence[Ballot]) -> list[Ballot]:
    """The ballots as they are lined up: the surest first, whatever its voter weighs."""
    return sorted(ballots, key=lambda ballot: (-ballot.confidence, ballot.text))


def count(ballots: Sequence[Ballot], slots: Sequence[tuple[str, ...]], weights: Sequence[float]) -> Elected:
    """The reading that wins.

    Args:
        ballots: see `in_order`.
        slots: their alignment, see `align`.
        weights: see `rover`.
    """
    votes, whole = [ballot.confidence * weights[ballot.voter] for ballot in ballots], math.fsum(weights)
    text, log_prob = "", 0.0
    for slot in slots or [(NONE,) * len(ballots)]:
        sums: dict[str, float] = defaultdict(float)
        for vote, character in zip(votes, slot, strict=True):
            sums[character] += vote
        best = max(sums, key=lambda character: sums[character])
        probability = min(1.0, sums[best] / whole)
        log_prob += math.log(probability) if probability else -math.inf
        text += best
    return Elected(text, math.exp(log_prob / max(1, len(text))))


def align(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """The slots of an alignment of all texts: of each text a character or `NONE`, in order.

    One text after the other is aligned with the slots so far, at least cost: an entry costs the count of earlier texts
    that have another one there. Of two texts this is their Levenshtein alignment.
    """
    counts = Counter(texts)
    ids = {character: id for id, character in enumerate(dict.fromkeys("".join(counts)), start=1)} | {NONE: 0}
    slots: list[list[str]] = []
    seen = np.zeros((0, len(ids)), np.int64)  # how often each entry stands in each slot
    total = 0
    for row, (text, count) in enumerate(counts.items()):
        grown: list[list[str]] = []
        before: list[int] = []  # where a slot stood; the last row of `padded` is a new one
        for slot, place in _path(seen, total, [ids[character] for character in text]):
            grown.append([*([NONE] * row if slot is None else slots[slot]), NONE if place is None else text[place]])
            before.append(len(slots) if slot is None else slot)
        padded = np.vstack([seen, np.eye(1, len(ids), dtype=np.int64) * total])
        seen = padded[before].reshape(len(grown), len(ids))
        for number, entries in enumerate(grown):
            seen[number, ids[entries[-1]]] += count
        slots, total = grown, total + count
    row_of = {text: row for row, text in enumerate(counts)}
    return [tuple(slot[row_of[text]] for text in texts) for slot in slots]


def _path(seen: np.ndarray, total: int, text: Sequence[int]) -> list[tuple[int | None, int | None]]:
    """Which slot each character of a text goes to; None: to a new one, or a slot without a character."""
    put = total - seen[:, text]  # of a slot and a character
    leave = total - seen[:, 0]
    columns = np.arange(len(text) + 1) * total
    cost = np.empty((len(seen) + 1, len(text) + 1), np.int64)
    cost[0] = columns
    for slot in range(len(seen)):
        here = cost[slot] + leave[slot]
        here[1:] = np.minimum(here[1:], cost[slot, :-1] + put[slot])
        cost[slot + 1] = np.minimum.accumulate(here - columns) + columns
    path: list[tuple[int | None, int | None]] = []
    slot, place = cost.shape[0] - 1, cost.shape[1] - 1
    while slot or place:
        if slot and place and cost[slot, place] == cost[slot - 1, place - 1] + put[slot - 1, place - 1]:
            slot, place = slot - 1, place - 1
            path.append((slot, place))
        elif slot and cost[slot, place] == cost[slot - 1, place] + leave[slot - 1]:
            slot -= 1
            path.append((slot, None))
        else:
            place -= 1
            path.append((None, place))
    return path[::-1]
