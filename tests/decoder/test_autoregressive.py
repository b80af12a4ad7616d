"""Autoregressive decoding against all sequences of a small table model."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from htr_lightning.decoder.autoregressive import Beam, Greedy, Steps
from htr_lightning.decoder.hypothesis import Hypothesis
from htr_lightning.decoder.lexicon import Lexicon
from htr_lightning.decoder.ngram import NGram
from htr_lightning.errors import InputError

BOS, EOS, ALPHABET = 0, 1, "ab "
CLASSES = 2 + len(ALPHABET)
LABELS = range(2, CLASSES)
State = tuple[np.ndarray, np.ndarray, int]


class Table:
    """A model whose next token depends on the line, the last two tokens and the step."""

    def __init__(self, lines: int, seed: int, sharpness: float = 2.0, steps: int = 8) -> None:
        generator = torch.Generator().manual_seed(seed)
        logits = sharpness * torch.randn(lines, steps, CLASSES, CLASSES, CLASSES, generator=generator)
        logits[..., BOS] = -50  # as in a trained model
        self.table = logits.log_softmax(-1).numpy()
        self.lines = lines
        self.longest = 0

    def start(self) -> State:
        return np.arange(self.lines), np.full(self.lines, BOS), 0

    def step(self, tokens: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        line, before, number = state
        self.longest = max(self.longest, number + 1)
        return self.table[line, number, before, tokens], (line, tokens, number + 1)

    @staticmethod
    def reorder(state: State, rows: np.ndarray) -> State:
        return state[0][rows], state[1][rows], state[2]

    def steps(self) -> Steps:
        return Steps(self.step, self.start, self.reorder, np.full(self.lines, BOS), EOS)

    def read(self, decoder: Greedy | Beam) -> list[Hypothesis]:
        return decoder(self.steps())

    def n_best(self, beam: Beam, n: int) -> list[list[Hypothesis]]:
        return beam.n_best(self.steps(), n)

    def log_prob(self, line: int, ids: tuple[int, ...]) -> float:
        path = [BOS, BOS, *ids, EOS]
        return math.fsum(float(self.table[line, i, path[i], path[i + 1], path[i + 2]]) for i in range(len(ids) + 1))


def sequences(max_length: int) -> list[tuple[int, ...]]:
    return [ids for length in range(max_length + 1) for ids in product(LABELS, repeat=length)]


def model() -> NGram:
    return NGram.estimate(["ab ba", "a b", "bb a", "abba"], 3)


def text(ids: tuple[int, ...]) -> str:
    return "".join(ALPHABET[id - 2] for id in ids)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("length_norm", [0.0, 1.0])
@pytest.mark.parametrize(("alpha", "beta"), [(None, 0.0), (None, 0.7), (0.8, 0.0), (0.5, 1.2), (0.0, 0.0)])
def test_a_beam_of_all_sequences_is_brute_force(
    seed: int, length_norm: float, alpha: float | None, beta: float
) -> None:
    table, max_length = Table(2, seed), 3
    every = sequences(max_length)
    beam = Beam(5**4, max_length, length_norm, alpha or 0.0, beta)
    language = model()
    if alpha is not None:
        beam = beam.with_automaton(language.automaton(list(ALPHABET)))
    for line, found in enumerate(table.n_best(beam, 12)):
        scores = {
            ids: (table.log_prob(line, ids) + (alpha or 0) * language.log_prob(text(ids)) + beta * len(ids))
            / (len(ids) + 1) ** length_norm
            for ids in every
        }
        best = sorted(every, key=scores.__getitem__, reverse=True)[:12]
        assert [tuple(hypothesis.ids) for hypothesis in found] == best
        assert [h.score for h in found] == pytest.approx([scores[ids] for ids in best], abs=1e-4)
        assert [h.log_prob for h in found] == pytest.approx([table.log_prob(line, ids) for ids in best], abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("max_length", [1, 3, 6])
def test_a_beam_of_one_is_greedy_and_greedy_takes_the_most_likely_token(seed: int, max_length: int) -> None:
    table = Table(4, seed)
    greedy = table.read(Greedy(max_length))
    for line, (one, other) in enumerate(zip(greedy, table.read(Beam(1, max_length)), strict=True)):
        assert one.ids == other.ids
        assert one.log_prob == pytest.approx(other.log_prob, abs=1e-5)
        path = [BOS, BOS]
        while path[-1] != EOS and len(path) < 2 + max_length:
            path.append(int(table.table[line, len(path) - 2, path[-2], path[-1]].argmax()))
        assert one.ids == [id for id in path[2:] if id != EOS]
        assert one.log_prob == pytest.approx(table.log_prob(line, tuple(one.ids)), abs=1e-4)


@pytest.mark.parametrize("decoder", [Greedy(6), Beam(1, 6), Beam(3, 6), Beam(4, 6, 0.7, 0.5, 0.3)])
def test_a_line_reads_the_same_alone_and_in_a_batch(decoder: Greedy | Beam) -> None:
    if isinstance(decoder, Beam) and decoder.alpha:
        decoder = decoder.with_automaton(model().automaton(list(ALPHABET)))
    together = Table(6, 0)
    for line, expected in enumerate(together.read(decoder)):
        alone = Table(1, 0)
        alone.table = together.table[line : line + 1]
        (found,) = alone.read(decoder)
        assert found.ids == expected.ids
        assert found.score == pytest.approx(expected.score, abs=1e-5)


@pytest.mark.parametrize("decoder", [Greedy, lambda length: Beam(3, length), lambda length: Beam(3, length, beta=99.0)])
@pytest.mark.parametrize("max_length", [1, 2, 5])
def test_no_line_is_longer_than_the_maximum(decoder: type, max_length: int) -> None:
    table = Table(3, 0)
    table.table[..., EOS] -= 60  # a model that never ends
    found = table.read(decoder(max_length))
    assert [len(hypothesis.ids) for hypothesis in found] == [max_length] * 3
    assert table.longest == max_length + 1
    for line, hypothesis in enumerate(found):
        assert hypothesis.log_prob == pytest.approx(table.log_prob(line, tuple(hypothesis.ids)), rel=1e-5)


@pytest.mark.parametrize("decoder", [Greedy(7), Beam(2, 7)])
def test_decoding_stops_when_all_lines_have_ended(decoder: Greedy | Beam) -> None:
    table = Table(3, 0)
    table.table[:, 2, :, :, EOS] += 60
    table.table -= np.logaddexp.reduce(table.table, axis=-1, keepdims=True)
    assert all(len(hypothesis.ids) <= 2 for hypothesis in table.read(decoder))
    assert table.longest == 3


def test_a_wider_beam_never_finds_a_worse_line_here() -> None:
    tables = [Table(8, seed) for seed in range(3)]
    totals = [sum(h.score for table in tables for h in table.read(Beam(width, 5))) for width in (1, 2, 4, 16, 4**5)]
    assert totals == sorted(totals)


def test_n_best_are_different_and_no_more_than_there_are() -> None:
    table = Table(2, 0)
    for found in table.n_best(Beam(50, 1), 50):
        assert len(found) == 1 + len(LABELS) + 1  # the empty line, each label, and <s>
        assert len({tuple(hypothesis.ids) for hypothesis in found}) == len(found)
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_forbidden_texts_are_not_found() -> None:
    class NoB:
        """A language without b, which may not end on a space."""

        start = 0

        def look_up(self, states: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            count = (*states.shape, 1)
            return np.tile(np.array([0, -np.inf, 0], np.float32)[classes], count), np.tile((classes == 2) * 1, count)

        def ends(self, states: np.ndarray) -> np.ndarray:
            return np.where(states == 1, -np.inf, 0).astype(np.float32)

    for alpha in (0.0, 1.0):
        beam = Beam(5**3, 3, alpha=alpha).with_automaton(NoB())
        table = Table(3, 0)
        for line, found in enumerate(table.read(beam)):
            allowed = [ids for ids in sequences(3) if "b" not in text(ids) and not text(ids).endswith(" ")]
            assert tuple(found.ids) == max(allowed, key=lambda ids: table.log_prob(line, ids))


def test_a_beam_wider_than_the_language_gives_all_of_its_lines() -> None:
    class OneLetter:
        """A language of two lines: a and b."""

        start = 0

        def look_up(self, states: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            scores = np.where(states[..., None] == 0, np.array([0, 0, -np.inf])[classes], -np.inf)
            return scores.astype(np.float32), np.ones(scores.shape, np.int64)

        def ends(self, states: np.ndarray) -> np.ndarray:
            return np.where(states == 1, 0, -np.inf).astype(np.float32)

    beam = Beam(8, 7).with_automaton(OneLetter())
    table = Table(3, 0)
    for line, found in enumerate(table.n_best(beam, 8)):
        expected = sorted([(2,), (3,)], key=lambda ids: -table.log_prob(line, ids))
        assert [tuple(hypothesis.ids) for hypothesis in found] == expected
    assert table.longest == 2


def test_every_word_is_of_the_lexicon() -> None:
    words = {"ab", "ba", "bb"}
    beam = Beam(4, 7).with_automaton(Lexicon(words).automaton(list(ALPHABET)))
    table = Table(6, 0)
    for line, found in enumerate(table.n_best(beam, 4)):
        assert len(found) >= 1
        for hypothesis in found:
            assert set(text(tuple(hypothesis.ids)).split()) <= words
            assert hypothesis.score == pytest.approx(table.log_prob(line, tuple(hypothesis.ids)), abs=1e-4)


def test_a_line_that_may_never_end_is_empty() -> None:
    class Endless:
        """A language whose lines never end."""

        start = 0

        def look_up(self, states: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            shape = (*states.shape, classes.shape[1])
            return np.zeros(shape, np.float32), np.zeros(shape, np.int64)

        def ends(self, states: np.ndarray) -> np.ndarray:
            return np.full(len(states), -np.inf, np.float32)

    beam = Beam(4, 3).with_automaton(Endless())
    for line in Table(6, 0).n_best(beam, 4):
        assert [(found.ids, found.score > -100) for found in line] == [([], True)]


def test_an_incomplete_last_word_is_dropped() -> None:
    table, words = Table(20, 0), {"ab", "abba", "b"}
    table.table[..., EOS] -= 60
    beam = Beam(1, 3).with_automaton(Lexicon(words).automaton(list(ALPHABET)))
    read = [text(tuple(found.ids)) for found in table.read(beam)]
    assert all(set(one.split()) <= words for one in read)
    assert any(len(one) < 3 for one in read)  # some lines were cut back


def test_greedy_has_one_hypothesis_and_no_language_model() -> None:
    table = Table(3, 0)
    assert Greedy(5).n_best(table.steps(), 1) == [[best] for best in table.read(Greedy(5))]
    with pytest.raises(InputError, match=r"n_best=2: .*htr tune-decoder"):
        Greedy(5).n_best(table.steps(), 2)
    with pytest.raises(InputError, match="decoder=autoregressive_beam"):
        Greedy(5).with_automaton(model().automaton(list(ALPHABET)))
