"""Decode autoregressive models with any step function.

Token ids start with the special tokens, the last of which is the end token, followed by the alphabet. A subword
tokenizer may use a different order if there is no language model.
"""

import copy
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import numpy as np
from annotated_types import Interval
from jaxtyping import Bool, Float, Float32, Int, Int64
from numpy import ndarray

from htr_lightning.decoder.hypothesis import Hypothesis, check_single
from htr_lightning.decoder.language import Automaton, allowed_prefix
from htr_lightning.errors import InputError
from htr_lightning.parameters import Score, Weight, Width

FORCED_END = 1e5  # penalty for ending a line where the language model forbids it, as a last resort
Norm = Annotated[float, Interval(ge=0, le=10)]


class FrameScores(NamedTuple):
    """The output of the CTC head in a model that also has an autoregressive decoder; see `rescoring`."""

    log_probs: Float[ndarray, "B T C"]  # class 0 is the blank, followed by the alphabet
    lengths: Int[ndarray, " B"]  # number of frames in each line
    rescore: Callable[[list[list[list[int]]]], list[list[float]]]
    # returns the autoregressive log-probability, in nats, of each of several token sequences per line


class Steps(NamedTuple):
    """An autoregressive model that a decoder runs step by step, with tokens and log-probabilities as arrays."""

    step: Callable[[Int[ndarray, " N"], Any], tuple[Float[ndarray, "N C"], Any]]
    # maps the last token of each row and the state to the log-probabilities of the next token and the new state
    begin: Callable[[], Any]  # returns the initial state, which has one row per line
    reorder: Callable[[Any, Int[ndarray, " N"]], Any]  # returns a state whose row i is row `rows[i]` of the given state
    start: Int[ndarray, " B"]  # start token of each line
    end: int  # end token
    frames: FrameScores | None = None  # CTC output, if the model has a CTC head


class Greedy:
    """A greedy decoder, which selects the most likely next token at each step.

    Args:
        max_length: maximum number of labels per line.
    """

    inputs = "steps"
    has_posterior = False

    def __init__(self, max_length: Width) -> None:
        self.max_length = max_length

    def __call__(self, steps: Steps) -> list[Hypothesis]:
        """Return the labels of each line without the end token, whose probability is included in `log_prob`."""
        tokens, state, end = steps.start, steps.begin(), steps.end
        done = np.zeros(len(tokens), bool)
        log_prob = np.zeros(len(tokens))
        ids, chosen = [], []
        for length in range(self.max_length + 1):
            log_probs, state = steps.step(tokens, state)
            tokens = np.where(done | (length == self.max_length), end, log_probs.argmax(1))
            chosen.append(np.where(done, 0.0, np.take_along_axis(log_probs, tokens[:, None], 1)[:, 0]))
            log_prob += chosen[-1]
            done = tokens == end
            ids.append(tokens)
            if done.all():
                break
        rows = np.stack(ids, 1).tolist()
        steps_of = np.exp(np.stack(chosen, 1).astype(np.float64)).tolist()
        return [
            Hypothesis(row[: row.index(end)], p, p, tuple(its[: row.index(end)]))
            for row, p, its in zip(rows, log_prob.tolist(), steps_of, strict=True)
        ]

    def n_best(self, steps: Steps, n: int) -> list[list[Hypothesis]]:
        """Return one hypothesis per line. Raises InputError if `n` is greater than 1."""
        check_single(n, "autoregressive_beam")
        return [[best] for best in self(steps)]

    def with_automaton(self, automaton: Automaton | None) -> "Greedy":
        """Return this decoder. Raises InputError if `automaton` is not None."""
        if automaton is not None:
            raise InputError(
                "decoder=autoregressive_greedy: does not support language models or lexicons; "
                "use decoder=autoregressive_beam"
            )
        return self


class Beam:
    """A beam search decoder with optional shallow fusion of a language model (Gulcehre et al., 2015, arXiv:1503.03535).

    The score of a line is (log p + alpha * log p_lm + beta * labels) / tokens ** length_norm, where both probabilities
    and the number of tokens include the end token. The search is exact if `width` is at least the number of possible
    sequences.

    Args:
        width: beam width, i.e. the number of sequences kept per line and step, including finished ones.
        max_length: maximum number of labels per line.
        length_norm: exponent of the length normalisation; 0 for none, 1 for the score per token.
        alpha: weight of the language model (see `with_automaton`).
        beta: score added per label, which counteracts the preference for short lines.
    """

    inputs = "steps"

    def __init__(
        self, width: Width, max_length: Width, length_norm: Norm = 0.0, alpha: Weight = 0.0, beta: Score = 0.0
    ) -> None:
        self.width, self.max_length, self.length_norm = width, max_length, length_norm
        self.alpha, self.beta = alpha, beta
        self.automaton: Automaton | None = None

    @property
    def has_posterior(self) -> bool:
        """Whether scores are log-probabilities up to a constant, which length normalisation prevents."""
        return self.length_norm == 0

    def with_automaton(self, automaton: Automaton | None) -> "Beam":
        """Return a copy of this decoder with a different automaton, whose class 0 is the token after the end token.

        With an automaton, special tokens other than the end token are forbidden.
        """
        other = copy.copy(self)
        other.automaton = automaton
        return other

    def __call__(self, steps: Steps) -> list[Hypothesis]:
        """Return the best hypothesis for each line; see `Greedy`."""
        return [best[0] for best in self.n_best(steps, 1)]

    def n_best(self, steps: Steps, n: int) -> list[list[Hypothesis]]:
        """Return up to `n` distinct hypotheses for each line, but at most `width`, best first; see `Greedy`."""
        return self.search(self.prepare(steps), n)

    def prepare(self, steps: Steps) -> Steps:
        """Return the input to `search`."""
        return steps._replace(frames=None)

    def search(self, prepared: Steps, n: int) -> list[list[Hypothesis]]:
        """Return up to `n` distinct hypotheses for each line, best first; see `n_best`."""
        step, begin, reorder, start, end, _ = prepared
        lines, width = len(start), self.width
        first = np.arange(0, lines * width, width)[:, None]  # row of each line's first sequence
        state = reorder(begin(), np.arange(lines).repeat(width))
        tokens = start.repeat(width)
        ids, chosen = np.zeros((lines * width, 0), np.int64), np.zeros((lines * width, 0))
        done = np.zeros(lines * width, bool)
        sizes, log_prob, score = np.zeros(lines * width), np.zeros(lines * width), np.full(lines * width, -np.inf)
        score[first] = 0  # the search starts with a single sequence per line
        contexts = np.full(lines * width, self.automaton.start if self.automaton else 0)
        for length in range(self.max_length + 1):
            log_probs, state = step(tokens, state)
            gains, following = self._gains(log_probs, contexts, done, length == self.max_length, end)
            sizes += ~done
            total = score[:, None] + gains
            best = _largest((total / sizes[:, None] ** self.length_norm).reshape(lines, -1), width)
            rows, tokens = (best // gains.shape[1] + first).ravel(), (best % gains.shape[1]).ravel()
            gained = np.where(done[rows], 0.0, log_probs[rows, tokens])
            log_prob = log_prob[rows] + gained
            score, sizes = total[rows, tokens], sizes[rows]
            if following is not None:
                contexts = following[rows, tokens]
            state = reorder(state, rows)
            ids = np.concatenate([ids[rows], tokens[:, None]], 1)
            chosen = np.concatenate([chosen[rows], gained[:, None]], 1)
            done = (tokens == end) | np.isneginf(score)  # -inf: fewer sequences than the beam width
            if done.all():
                break
        parts = (ids, log_prob, score, sizes**self.length_norm, np.exp(chosen))
        every = zip(*(part.reshape(lines, width, *part.shape[1:]).tolist() for part in parts), strict=True)
        return [self._hypotheses(list(zip(*line, strict=True))[:n], end) for line in every]

    def _gains(
        self, log_probs: Float[ndarray, "N C"], contexts: Int64[ndarray, " N"], done: Bool[ndarray, " N"], last: bool,
        end: int,
    ) -> tuple[Float[ndarray, "N C"], Int64[ndarray, "N C"] | None]:  # fmt: skip
        """Return what each next token adds to the score, and the language model's context after it.

        Args:
            log_probs: log-probabilities of the next tokens.
            contexts: contexts of the language model.
            done: sequences that have ended; they keep their score.
            last: whether all other sequences must end.
            end: end token.
        """
        following = None
        gains = log_probs.astype(np.float64) + self.beta
        gains[:, end] -= self.beta
        if self.automaton:
            bonus, following = self._bonus(self.automaton, contexts, log_probs.shape[1], end)
            gains += bonus
        others = np.arange(log_probs.shape[1]) != end
        gains[np.ix_(done | last, others)] = -np.inf
        gains[done, end] = 0.0
        if self.automaton:
            stuck = np.isneginf(gains).all(1)
            gains[stuck, end] = log_probs[stuck, end] - FORCED_END
        return gains, following

    def _hypotheses(
        self, sequences: list[tuple[list[int], float, float, float, list[float]]], end: int
    ) -> list[Hypothesis]:
        """Convert sequences, sorted best first, to hypotheses.

        A sequence whose end was forced is used only if there is no other, and is cut back to the longest prefix that
        the automaton accepts as a line.
        """
        found: list[Hypothesis] = []
        for row, log_prob, score, norm, chosen in sequences:
            if score <= -FORCED_END / 2 and found:
                break  # the remaining sequences pad the beam, or their end was forced
            ids = row[: row.index(end)]
            if score <= -FORCED_END / 2:
                ids = allowed_prefix(ids, self.automaton, end + 1) if self.automaton else ids
                score += FORCED_END
            found.append(Hypothesis(ids, log_prob, score / norm, tuple(chosen[: len(ids)])))
        return found

    def _bonus(
        self, automaton: Automaton, contexts: Int64[ndarray, " N"], classes: int, end: int
    ) -> tuple[Float32[ndarray, "N C"], Int64[ndarray, "N C"]]:
        """Return the weighted language model score of each next token, and the context after it."""
        bonus = np.full((len(contexts), classes), -np.inf, np.float32)
        following = np.tile(contexts[:, None], classes)
        characters = np.arange(classes - end - 1)
        log_probs, after = automaton.look_up(contexts[None], characters[None])
        bonus[:, end] = _weighted(automaton.ends(contexts), self.alpha)
        bonus[:, end + 1 :] = _weighted(log_probs[0], self.alpha)
        following[:, end + 1 :] = after[0]
        return bonus, following


def _weighted(log_probs: Float[ndarray, "..."], alpha: float) -> Float[ndarray, "..."]:
    """Scale log-probabilities but keep -inf, so that forbidden tokens stay forbidden even if the weight is 0."""
    return np.multiply(log_probs, alpha, out=log_probs.copy(), where=log_probs > -np.inf)


def _largest(values: Float[ndarray, "B N"], count: int) -> Int64[ndarray, "B K"]:
    """Return the positions of the largest values of each row, in descending order."""
    count = min(count, values.shape[1])
    found = np.argpartition(-values, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(values, found, 1), axis=1, kind="stable")
    return np.take_along_axis(found, order, 1)
