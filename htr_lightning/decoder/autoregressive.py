"""Decoding of autoregressive models over any step function.

`step(tokens, state)` takes the last token of each row and gives the log-probabilities of its next one and a new state;
`reorder(state, rows)` gives the state whose row i is row `rows[i]` of the given one. Tokens are specials, of which the
end is one, and then the alphabet.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64
from numpy import ndarray
from torch import Tensor

from htr_lightning.decoder.ctc import Hypothesis, check_counts
from htr_lightning.decoder.language import Automaton, whole
from htr_lightning.errors import InputError

Step = Callable[[Tensor, Any], tuple[Tensor, Any]]
Reorder = Callable[[Any, Tensor], Any]

CUT = 1e5  # off the score of a line that has to end where the language forbids it: the last resort


class Greedy:
    """The likeliest next token at every step.

    Args:
        max_length: labels after which a line is ended.
    """

    def __init__(self, max_length: int) -> None:
        check_counts(max_length=max_length)
        self.max_length = max_length

    def __call__(
        self, step: Step, state: Any, reorder: Reorder, start: Int[Tensor, " B"], eos: int
    ) -> list[Hypothesis]:
        """The labels of each line, without the end, whose log-probability counts.

        Args:
            step: see above.
            state: before the first step, a row a line.
            reorder: not needed here.
            start: the token before the first label of each line.
            eos: the token of the end.
        """
        tokens = start
        done = torch.zeros_like(start, dtype=torch.bool)
        log_prob = torch.zeros(len(start), device=start.device)
        ids = []
        for length in range(self.max_length + 1):
            log_probs, state = step(tokens, state)
            tokens = log_probs.argmax(1).masked_fill(done | (length == self.max_length), eos)
            log_prob += log_probs.float().gather(1, tokens[:, None])[:, 0].masked_fill(done, 0)
            done = tokens == eos
            ids.append(tokens)
            if done.all():
                break
        rows = torch.stack(ids, 1).tolist()
        return [Hypothesis(row[: row.index(eos)], p, p) for row, p in zip(rows, log_prob.tolist(), strict=True)]


class Beam:
    """Beam search with an optional language model by shallow fusion (Gulcehre et al., 2015, arXiv:1503.03535).

    The score of a line is log p + alpha * log p_lm + beta * labels, both probabilities with that of the end, divided by
    tokens ** length_norm, where the end is a token. With `width` as large as there are sequences the best is found.

    Args:
        width: sequences kept a line and step, ended ones among them.
        max_length: labels after which a line is ended.
        length_norm: 0 for none; 1 compares scores per token.
        alpha: weight of the language model; used where `automaton` is set.
        beta: score of every label, against the liking of short lines.

    Attributes:
        automaton: the language model, the lexicon or both, over the alphabet, whose class 0 is the first token behind
            the specials, of which the end is then the last; the others are forbidden.
    """

    def __init__(
        self, width: int, max_length: int, length_norm: float = 0.0, alpha: float = 0.0, beta: float = 0.0
    ) -> None:
        check_counts(width=width, max_length=max_length)
        for name, value in (("alpha", alpha), ("length_norm", length_norm)):
            if value < 0:
                raise InputError(f"decoder.{name}={value}: give at least 0")
        self.width, self.max_length, self.length_norm = width, max_length, length_norm
        self.alpha, self.beta = alpha, beta
        self.automaton: Automaton | None = None

    def __call__(
        self, step: Step, state: Any, reorder: Reorder, start: Int[Tensor, " B"], eos: int
    ) -> list[Hypothesis]:
        """The best hypothesis of each line; see `Greedy`."""
        return [best[0] for best in self.n_best(step, state, reorder, start, eos, 1)]

    def n_best(
        self, step: Step, state: Any, reorder: Reorder, start: Int[Tensor, " B"], eos: int, n: int
    ) -> list[list[Hypothesis]]:
        """Up to `n` different hypotheses a line, at most `width`, the best first; see `Greedy`."""
        lines, width, device = len(start), self.width, start.device
        first = torch.arange(0, lines * width, width, device=device)[:, None]  # row of each line's first sequence
        state = reorder(state, torch.arange(lines, device=device).repeat_interleave(width))
        tokens = start.repeat_interleave(width)
        ids = tokens[:, None][:, :0]
        done = torch.zeros_like(tokens, dtype=torch.bool)
        sizes, log_prob = torch.zeros(2, lines * width, device=device)
        score = torch.full_like(log_prob, -torch.inf)
        score[first] = 0  # at first there is one sequence
        contexts = np.full(lines * width, self.automaton.start if self.automaton else 0)
        for length in range(self.max_length + 1):
            log_probs, state = step(tokens, state)
            classes = log_probs.shape[1]
            gains = log_probs.float() + self.beta
            gains[:, eos] = log_probs[:, eos].float()
            if self.automaton:
                bonus, following = self._bonus(self.automaton, contexts, classes, eos)
                gains += torch.from_numpy(bonus).to(device)
            only_end = done | (length == self.max_length)
            gains[only_end] = gains[only_end].where(torch.arange(classes, device=device) == eos, -torch.inf)
            gains[done, eos] = 0  # an ended line stays as it is
            if self.automaton:
                stuck = gains.isneginf().all(1)
                gains[stuck, eos] = log_probs[stuck, eos].float() - CUT
            sizes += ~done
            total = score[:, None] + gains
            best = (total / sizes[:, None] ** self.length_norm).view(lines, -1).topk(width).indices
            rows, tokens = (best // classes + first).flatten(), (best % classes).flatten()
            log_prob = log_prob[rows] + log_probs[rows, tokens].float().masked_fill(done[rows], 0)
            score, sizes = total[rows, tokens], sizes[rows]
            if self.automaton:
                contexts = following[rows.cpu().numpy(), tokens.cpu().numpy()]
            state = reorder(state, rows)
            ids = torch.cat([ids[rows], tokens[:, None]], 1)
            done = (tokens == eos) | score.isneginf()  # the latter: there are fewer sequences than the width
            if done.all():
                break
        parts = (ids, log_prob, score, sizes**self.length_norm)
        every = zip(*(part.view(lines, width, *part.shape[1:]).tolist() for part in parts), strict=True)
        return [self._finished(list(zip(*line, strict=True))[:n], eos) for line in every]

    def _finished(self, sequences: list[tuple[list[int], float, float, float]], eos: int) -> list[Hypothesis]:
        """Sequences as hypotheses, the best first; one that had to be cut only where there is no other, and then as
        much of it as may be a line."""
        found: list[Hypothesis] = []
        for row, log_prob, score, norm in sequences:
            if score <= -CUT / 2 and found:
                break  # there are fewer sequences than the width, or the rest is cut
            ids = row[: row.index(eos)]
            if score <= -CUT / 2:
                ids, score = whole(ids, self.automaton, eos + 1) if self.automaton else ids, score + CUT
            found.append(Hypothesis(ids, log_prob, score / norm))
        return found

    def _bonus(
        self, automaton: Automaton, contexts: Int64[ndarray, " N"], classes: int, eos: int
    ) -> tuple[Float32[ndarray, "N C"], Int64[ndarray, "N C"]]:
        """What the language model adds to each next token, and the contexts behind it."""
        bonus = np.full((len(contexts), classes), -np.inf, np.float32)
        following = np.tile(contexts[:, None], classes)
        characters = np.arange(classes - eos - 1)
        log_probs, after = automaton.look_up(contexts[None], characters[None])
        bonus[:, eos] = _weighted(automaton.ends(contexts), self.alpha)
        bonus[:, eos + 1 :] = _weighted(log_probs[0], self.alpha)
        following[:, eos + 1 :] = after[0]
        return bonus, following


def _weighted(log_probs: Float[ndarray, "..."], alpha: float) -> Float[ndarray, "..."]:
    """What is forbidden stays so, even where the language model has no weight."""
    return np.multiply(log_probs, alpha, out=log_probs.copy(), where=log_probs > -np.inf)
