"""Batches of lines of like width."""

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


class Draw(NamedTuple):
    """The lines of one batch; the epoch seeds their augmentation, whichever worker makes it."""

    epoch: int
    indices: list[int]


class LineBatches(Sampler[Draw]):
    """Batches of lines of like width within a budget, sharded by rank.

    The batches are the same for any number of ranks, and rank r takes every `world_size`-th of them. Outside training no
    line is ever repeated, so ranks may have a batch more or less. In training every rank takes the same number, the
    first batches of the epoch filling up the last round.

    Args:
        widths: columns of every line after preprocessing; an estimate is enough.
        max_lines: lines a batch has at most.
        max_columns: padded columns (lines times the widest) a batch has at most; a single wider line stands alone.
        shuffle: training order: random windows of like width in random order, new in every epoch.
        seed: with the epoch, the only source of randomness.
    """

    def __init__(
        self,
        widths: Sequence[int],
        max_lines: int,
        max_columns: int,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.widths = np.asarray(widths)
        self.max_lines, self.max_columns = max_lines, max_columns
        self.shuffle, self.seed = shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self._planned: tuple[int, list[list[int]]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._plan())

    def __iter__(self) -> Iterator[Draw]:
        for indices in self._plan():
            yield Draw(self.epoch, indices)

    def _plan(self) -> list[list[int]]:
        if self._planned is None or self._planned[0] != self.epoch:
            batches = self._shuffled() if self.shuffle else self._cut(np.argsort(-self.widths, kind="stable"))
            if self.shuffle and self.world_size > 1:
                batches += list(islice(cycle(batches), -len(batches) % self.world_size))
            self._planned = self.epoch, batches[self.rank :: self.world_size]
        return self._planned[1]

    def _shuffled(self) -> list[list[int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self.widths))
        window = 40 * self.max_lines  # wide enough for like widths, narrow enough for new neighbours each epoch
        batches = []
        for start in range(0, len(order), window):
            lines = order[start : start + window]
            batches += self._cut(lines[np.argsort(-self.widths[lines], kind="stable")])
        # Ranks wait for each other at every step, so the batches of one round are neighbours in width.
        rounds = [batches[i : i + self.world_size] for i in range(0, len(batches), self.world_size)]
        rng.shuffle(rounds)
        return [batch for batches in rounds for batch in batches]

    def _cut(self, order: np.ndarray) -> list[list[int]]:
        batches: list[list[int]] = []
        widest = 0
        for index in order.tolist():  # widest first: the first of a batch sets its width
            if not batches or len(batches[-1]) == self.max_lines or (len(batches[-1]) + 1) * widest > self.max_columns:
                batches.append([])
                widest = int(self.widths[index])
            batches[-1].append(index)
        return batches
