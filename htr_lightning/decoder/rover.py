"""Combine several hypotheses for a line character by character with ROVER."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

GAP = ""  # entry of a hypothesis that has no character in a slot


class WeightedHypothesis(NamedTuple):
    """A hypothesis of one ensemble member."""

    text: str
    confidence: float  # probability per character; for n-best lists, multiplied by its share of the posterior
    member: int  # index into the weights


class Consensus(NamedTuple):
    """The combined text and its probability per character, on average and of each."""

    text: str
    confidence: float
    characters: list[float]  # probability of each character


def rover(hypotheses: Sequence[WeightedHypothesis], weights: Sequence[float]) -> Consensus:
    """Return the consensus of several hypotheses, voting on characters rather than words.

    This is ROVER (Fiscus, 1997, "A post-processing system to yield reduced word error rates: Recognizer Output Voting
    Error Reduction (ROVER)"). In each slot of the alignment, each hypothesis votes for its character, or a gap, with
    its confidence times the weight of its member. The candidate with the largest sum wins, and its probability is the
    ratio of this sum to the sum of all weights. Ties are won by the most confident hypothesis; the order of the
    hypotheses does not matter. With n-best lists weighted by their posteriors, this is confusion network combination
    (Evermann and Woodland, 2000, "Posterior probability decoding, confidence estimation and system combination").

    Args:
        hypotheses: one or more hypotheses.
        weights: weight of each ensemble member.
    """
    hypotheses = by_confidence(hypotheses)
    return combine(hypotheses, align([one.text for one in hypotheses]), weights)


def by_confidence(hypotheses: Sequence[WeightedHypothesis]) -> list[WeightedHypothesis]:
    """Sort hypotheses in the order in which they are aligned: by descending confidence, ignoring member weights."""
    return sorted(hypotheses, key=lambda one: (-one.confidence, one.text))


def combine(
    hypotheses: Sequence[WeightedHypothesis], slots: Sequence[tuple[str, ...]], weights: Sequence[float]
) -> Consensus:
    """Return the consensus of aligned hypotheses.

    Args:
        hypotheses: hypotheses sorted by `by_confidence`.
        slots: alignment of the hypotheses, returned by `align`.
        weights: weight of each ensemble member.
    """
    support, total = [one.confidence * weights[one.member] for one in hypotheses], math.fsum(weights)
    text, log_prob, characters = "", 0.0, []
    for slot in slots or [(GAP,) * len(hypotheses)]:
        sums: dict[str, float] = defaultdict(float)
        for weight, character in zip(support, slot, strict=True):
            sums[character] += weight
        best = max(sums, key=lambda character: sums[character])
        probability = min(1.0, sums[best] / total)
        log_prob += math.log(probability) if probability else -math.inf
        text += best
        characters += [probability] * len(best)  # none for a gap
    return Consensus(text, math.exp(log_prob / max(1, len(text))), characters)


def align(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """Align several texts, and return slots that contain one character or `GAP` for each text.

    Texts are aligned one by one with the existing slots at minimum cost. The cost of a character is the number of
    earlier texts that have a different entry in the slot. For two texts, the result is their Levenshtein alignment.
    """
    counts = Counter(texts)
    ids = {character: id for id, character in enumerate(dict.fromkeys("".join(counts)), start=1)} | {GAP: 0}
    slots: list[list[str]] = []
    table = np.zeros((0, len(ids)), np.int64)  # number of texts with each character in each slot
    total = 0
    for row, (text, count) in enumerate(counts.items()):
        extended: list[list[str]] = []
        sources: list[int] = []  # row of `padded` for each slot; the last row is a new slot
        for slot, position in _path(table, total, [ids[character] for character in text]):
            character = GAP if position is None else text[position]
            extended.append([*([GAP] * row if slot is None else slots[slot]), character])
            sources.append(len(slots) if slot is None else slot)
        padded = np.vstack([table, np.eye(1, len(ids), dtype=np.int64) * total])
        table = padded[sources].reshape(len(extended), len(ids))
        for number, entries in enumerate(extended):
            table[number, ids[entries[-1]]] += count
        slots, total = extended, total + count
    row_of = {text: row for row, text in enumerate(counts)}
    return [tuple(slot[row_of[text]] for text in texts) for slot in slots]


def _path(table: np.ndarray, total: int, text: Sequence[int]) -> list[tuple[int | None, int | None]]:
    """Return pairs of a slot and a text position; a slot of None is a new slot, a position of None is a gap."""
    match = total - table[:, text]  # cost of a character in a slot
    skip = total - table[:, 0]
    columns = np.arange(len(text) + 1) * total
    cost = np.empty((len(table) + 1, len(text) + 1), np.int64)
    cost[0] = columns
    for slot in range(len(table)):
        here = cost[slot] + skip[slot]
        here[1:] = np.minimum(here[1:], cost[slot, :-1] + match[slot])
        cost[slot + 1] = np.minimum.accumulate(here - columns) + columns
    path: list[tuple[int | None, int | None]] = []
    slot, position = cost.shape[0] - 1, cost.shape[1] - 1
    while slot or position:
        if slot and position and cost[slot, position] == cost[slot - 1, position - 1] + match[slot - 1, position - 1]:
            slot, position = slot - 1, position - 1
            path.append((slot, position))
        elif slot and cost[slot, position] == cost[slot - 1, position] + skip[slot - 1]:
            slot -= 1
            path.append((slot, None))
        else:
            position -= 1
            path.append((None, position))
    return path[::-1]
