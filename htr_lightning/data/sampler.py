"""Batches of lines of similar width. No torch: a DataLoader takes any iterable that has a length."""

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np

from htr_lightning.errors import InputError

READING_LINES, READING_COLUMNS = 32, 32768  # budget of a batch that is only read: no gradients are kept


class BatchIndices(NamedTuple):
    """The lines of one batch; the epoch seeds their augmentation, whichever worker makes it."""

    epoch: int
    indices: list[int]


def replayed(new: int, share: float) -> int:
    """Old lines in an epoch of so many new ones, where they are this share of both.

    Raises:
        InputError: a share that leaves nothing new.
    """
    if not 0 <= share < 1:
        raise InputError(f"data.replay_fraction={share}: give a share of the training lines, at least 0 and below 1")
    return round(new * share / (1 - share))


class BucketBatchSampler:
    """Batches of lines of similar width within a budget, sharded by rank.

    The batches are the same for any number of ranks: rank r takes every `world_size`-th of them. Outside training no
    line is ever repeated, so ranks may have a batch more or less. In training every rank takes the same number, the
    first batches of the epoch filling up the last round.

    Args:
        widths: columns of every line after preprocessing; an estimate is enough.
        max_lines: lines a batch has at most.
        max_columns: padded columns (lines times the widest) a batch has at most; a single wider line stands alone.
        shuffle: training order: random windows of like width in random order, new in every epoch.
        seed: with the epoch, the only source of randomness.
        old: the last so many lines; of them an epoch of training takes only some, others in each until all have come.
        replay_fraction: share that they have of the lines of the first epoch.
        replay_decay: of that share from each epoch to the next.

    Raises:
        InputError: outside training there are fewer lines than ranks.
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
        old: int = 0,
        replay_fraction: float = 0.0,
        replay_decay: float = 1.0,
    ) -> None:
        self.widths = np.asarray(widths)
        self.max_lines, self.max_columns = max_lines, max_columns
        self.shuffle, self.seed = shuffle, seed
        if not shuffle and 0 < len(widths) < world_size:
            raise InputError(f"{len(widths)} lines cannot be shared by {world_size} ranks; use fewer trainer.devices")
        self.rank, self.world_size = rank, world_size
        self.old, self.replay_fraction, self.replay_decay = old, replay_fraction, replay_decay
        if not 0 <= replay_decay <= 1:
            raise InputError(f"data.replay_decay={replay_decay}: give a factor from 0 to 1, which keeps the share")
        if old:
            self._drawn(0)  # refuses a share that leaves nothing new
        self.epoch = 0
        self._planned: tuple[int, list[list[int]]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._plan())

    def __iter__(self) -> Iterator[BatchIndices]:
        for indices in self._plan():
            yield BatchIndices(self.epoch, indices)

    def _plan(self) -> list[list[int]]:
        if self._planned is None or self._planned[0] != self.epoch:
            if self.shuffle:
                batches = self._shuffled()
                batches += list(islice(cycle(batches), -len(batches) % self.world_size))
            else:
                order = np.argsort(-self.widths, kind="stable")
                batches = self._cut(order)
                if len(batches) < self.world_size:  # a rank without a batch would keep the others waiting
                    batches = [[index] for index in order.tolist()]
            self._planned = self.epoch, batches[self.rank :: self.world_size]
        return self._planned[1]

    def _shuffled(self) -> list[list[int]]:
        """Where the budget of columns binds, epochs may differ by a batch; lines cut off come again in the next."""
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(self._of_epoch())
        window = 40 * self.max_lines  # wide enough for like widths, narrow enough for new neighbours in each epoch
        batches = []
        for start in range(0, len(order), window):
            lines = order[start : start + window]
            about = self.widths[lines] * rng.uniform(0.97, 1.03, len(lines))  # in small sets too, new neighbours
            batches += self._cut(lines[np.argsort(-about)])
        # Ranks wait for each other at every step, so the batches of one round are neighbours in width.
        full = len(batches) // self.world_size * self.world_size
        rounds = [batches[i : i + self.world_size] for i in range(0, full, self.world_size)]
        rng.shuffle(rounds)
        return [batch for batches in rounds for batch in batches] + batches[full:]

    def _of_epoch(self) -> np.ndarray:
        """All new lines, and the old ones whose turn it is: they are dealt from one shuffled pile after the other."""
        new = np.arange(len(self.widths) - self.old)
        drawn = [self._drawn(epoch) for epoch in range(self.epoch + 1)] if self.old else [0]
        if not drawn[-1]:
            return new
        first = sum(drawn[:-1])
        piles = range(first // self.old, (first + drawn[-1] - 1) // self.old + 1)
        dealt = np.concatenate([np.random.default_rng((self.seed, pile, 1)).permutation(self.old) for pile in piles])
        start = first - piles[0] * self.old
        return np.concatenate([new, len(new) + dealt[start : start + drawn[-1]]])

    def _drawn(self, epoch: int) -> int:
        return replayed(len(self.widths) - self.old, self.replay_fraction * self.replay_decay**epoch)

    def _cut(self, order: np.ndarray) -> list[list[int]]:
        batches: list[list[int]] = []
        widest = 0
        for index in order.tolist():
            width = max(widest, int(self.widths[index]))
            if not batches or len(batches[-1]) == self.max_lines or (len(batches[-1]) + 1) * width > self.max_columns:
                batches.append([])
                width = int(self.widths[index])
            batches[-1].append(index)
            widest = width
        return batches
