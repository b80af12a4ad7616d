"""Run the decoder of an exported autoregressive recognizer. Does not import torch."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray

from htr_lightning.decoder.autoregressive import Steps
from htr_lightning.errors import InputError
from htr_lightning.export.session import Graph

NEW = "new_"  # prefix of the outputs of a step that replace an input


class LineState(NamedTuple):
    """The state of the decoder for one line; each row is a sequence of labels."""

    shared: Mapping[str, ndarray]  # what all rows attend to
    own: Mapping[str, ndarray]  # the first dimension is that of the rows
    left: int  # number of characters that may follow


class StepGraphs:
    """The decoder of an exported recognizer, which runs line by line, so that no memory is padded.

    Args:
        begin: graph that maps the memory of a line to the state before its text.
        step: graph that maps tokens, the number of characters that may follow, and a state to log-probabilities and the
            part of the state that changes.
        classes: number of tokens.
        start: start token.
        end: end token.

    Raises:
        ValueError: if the graphs do not belong together.
    """

    def __init__(self, begin: Graph, step: Graph, classes: int, start: int, end: int) -> None:
        self.begin, self.step, self.classes, self.start, self.end = begin, step, classes, start, end
        first, *changed = step.outputs
        self.own = [name.removeprefix(NEW) for name in changed]
        fits = {"tokens", "left", *begin.outputs} >= set(step.inputs) >= {"tokens", *self.own}
        if set(begin.inputs) != {"encoded"} or first != "log_probs" or not fits:
            raise ValueError("its decoder is not one that htr export writes")

    def steps(
        self, memory: Float[ndarray, "B S M"], lengths: Int64[ndarray, " B"], frames: Int64[ndarray, " B"]
    ) -> Steps:
        """Return the argument of the decoder (see `decoder.autoregressive`) for the output of the encoder."""
        lines = [(one[None, :length], limit) for one, length, limit in zip(memory, lengths, frames, strict=True)]
        start = np.full(len(memory), self.start)
        return Steps(self._step, lambda: [self._begin(*line) for line in lines], _reorder, start, self.end)

    def _begin(self, memory: Float[ndarray, "1 S M"], limit: int) -> LineState:
        state = dict(zip(self.begin.outputs, self.begin.run({"encoded": memory}), strict=True))
        own = {name: state.pop(name) for name in self.own}
        return LineState(state, own, int(limit))

    def _step(
        self, tokens: Int64[ndarray, " N"], state: list[LineState]
    ) -> tuple[Float[ndarray, "N C"], list[LineState]]:
        """Return log-probabilities and the new state; those of a line whose rows have all ended do not matter."""
        found, after = [], []
        for mine, line in zip(tokens.reshape(len(state), -1), state, strict=True):
            log_probs = np.zeros((len(mine), self.classes), np.float32)
            if (mine != self.end).any():
                log_probs, *changed = self.step.run(
                    {"tokens": mine, "left": np.full(len(mine), line.left), **line.shared, **line.own}
                )
                if log_probs.shape != (len(mine), self.classes) or np.isnan(log_probs).any():
                    raise InputError("its decoder returns no log-probabilities; export the checkpoint again")
                line = line._replace(own=dict(zip(self.own, changed, strict=True)), left=line.left - 1)
            found.append(log_probs)
            after.append(line)
        return np.concatenate(found), after


def _reorder(state: list[LineState], order: Int64[ndarray, " N"]) -> list[LineState]:
    """Return a state whose row i is row `order[i]`; the rows of each line stay together."""
    old = len(next(iter(state[0].own.values())))
    rows = order.reshape(len(state), -1) - old * np.arange(len(state))[:, None]
    return [
        line._replace(own={name: array[mine] for name, array in line.own.items()})
        for line, mine in zip(state, rows, strict=True)
    ]
