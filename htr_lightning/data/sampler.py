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


def replayed(new: int, fraction: float) -> int:
    """Number of replayed lines in an epoch of `new` new lines, if they are to be this fraction of all lines.

    Raises:
        InputError: the fraction is not in [0, 1).
    """
    if not 0 <= fraction < 1:
        raise InputError(f"data.replay_fraction={fraction}: give a fraction of the training lines, in [0, 1)")
    return round(new * fraction / (1 - fraction))


class BucketBatchSampler:
    """Batches of lines of similar width within a budget, sharded by rank.

    The batches are the same for any number of ranks: rank r takes every `world_size`-th of them. Outside training no
    line is repeated, so some ranks may have one batch more than others. In training every rank takes the same number,
    and the first batches of the epoch fill up the last round.

    Args:
        widths: columns of every line after preprocessing; an estimate is enough.
        max_lines: largest number of lines in a batch.
        max_columns: largest number of columns in a batch, padding included; a wider line is a batch of its own.
        shuffle: for training: lines of similar width from random windows, in random order, new in every epoch.
        seed: with the epoch, the only source of randomness.
        rank: of this process.
        world_size: number of processes.
        old: number of lines at the end that are replayed: an epoch takes only some, different ones each time until all
            have been used.
        replay_fraction: fraction of the lines of the first epoch that are old.
        replay_decay: factor on that fraction from each epoch to the next.

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
            raise InputError(f"{len(widths)} lines are too few for {world_size} ranks; use fewer trainer.devices")
        self.rank, self.world_size = rank, world_size
        self.old, self.replay_fraction, self.replay_decay = old, replay_fraction, replay_decay
        if not 0 <= replay_decay <= 1:
            raise InputError(f"data.replay_decay={replay_decay}: give a factor from 0 to 1")
        if old:
            self._count(0)  # refuses an invalid fraction
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
                if len(batches) < self.world_size:  # the others would wait for a rank without a batch
                    batches = [[index] for index in order.tolist()]
            self._planned = self.epoch, batches[self.rank :: self.world_size]
        return self._planned[1]

    def _shuffled(self) -> list[list[int]]:
        """Where the column budget binds, the number of batches may differ by one between epochs."""
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(self._of_epoch())
        window = 40 * self.max_lines  # wide enough for similar widths, narrow enough for new neighbours in each epoch
        batches = []
        for start in range(0, len(order), window):
            lines = order[start : start + window]
            about = self.widths[lines] * rng.uniform(0.97, 1.03, len(lines))  # new neighbours even in small sets
            batches += self._cut(lines[np.argsort(-about)])
        # Ranks wait for each other at every step, so the batches of one round are neighbours in width.
        full = len(batches) // self.world_size * self.world_size
        rounds = [batches[i : i + self.world_size] for i in range(0, full, self.world_size)]
        rng.shuffle(rounds)
        return [batch for batches in rounds for batch in batches] + batches[full:]

    def _of_epoch(self) -> np.ndarray:
        """All new lines, and the next old ones of an endless sequence of permutations."""
        new = np.arange(len(self.widths) - self.old)
        counts = [self._count(epoch) for epoch in range(self.epoch + 1)] if self.old else [0]
        if not counts[-1]:
            return new
        first = sum(counts[:-1])
        passes = range(first // self.old, (first + counts[-1] - 1) // self.old + 1)
        order = np.concatenate(
            [np.random.default_rng((self.seed, number, 1)).permutation(self.old) for number in passes]
        )
        start = first - passes[0] * self.old
        return np.concatenate([new, len(new) + order[start : start + counts[-1]]])

    def _count(self, epoch: int) -> int:
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
