"""Sample batches of lines of similar width. Does not import torch."""

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np

MAX_PLANNED = 100_000  # lines of an epoch whose widths after augmentation are computed, at about 0.1 ms a line
READING_LINES, READING_COLUMNS = 32, 32768  # batch size limits for inference, which stores no activations


class BatchIndices(NamedTuple):
    """The epoch and the line indices of one batch, from which workers derive the augmentation seeds."""

    epoch: int
    indices: list[int]


def replayed(new: int, fraction: float) -> int:
    """Return how many replayed lines to add to `new` new lines so that they make up `fraction` of the total."""
    return round(new * fraction / (1 - fraction))


class BucketBatchSampler:
    """A batch sampler that groups lines of similar width, limits the batch size, and shards batches across ranks.

    The batches do not depend on the number of ranks: rank r takes every `world_size`-th batch, starting with batch
    r. Without shuffling, no line is repeated, so some ranks may have one batch more than others. With shuffling, the
    first batches of the epoch are repeated at its end so that all ranks have the same number of batches.

    Args:
        widths: width of each line after preprocessing, in columns; may be estimates.
        max_lines: maximum number of lines per batch.
        max_columns: maximum number of columns per batch, summed over its lines and including padding; a wider line
            forms a batch by itself.
        shuffle: whether to draw new batches in random order in each epoch, for training.
        seed: random seed; the batches depend only on the seed, the epoch and the widths.
        rank: rank of this process.
        world_size: number of processes.
        old: number of replayed lines, which come last in `widths`. Each epoch uses some of them, and none is used again
            before all others have been used.
        replay_fraction: fraction of replayed lines in the first epoch.
        replay_decay: factor by which `replay_fraction` is multiplied after each epoch.
        augmented_widths: function that returns the widths of lines after augmentation, given the epoch and their
            indices; None if they have `widths` in every epoch.
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
        augmented_widths: Callable[[int, Sequence[int]], Sequence[int]] | None = None,
    ) -> None:
        self.widths = np.asarray(widths)
        self.max_lines, self.max_columns = max_lines, max_columns
        self.shuffle, self.seed = shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.old, self.replay_fraction, self.replay_decay = old, replay_fraction, replay_decay
        self.augmented_widths = augmented_widths
        self.epoch = self._skipped = 0
        self._planned: tuple[int, list[list[int]]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each epoch."""
        if epoch != self.epoch:
            self.epoch, self._skipped = epoch, 0

    def start_at(self, epoch: int, batch: int) -> None:
        """Skip the first `batch` batches of an epoch, which this rank has already used; later epochs are complete.

        The length remains that of the complete epoch.
        """
        self.epoch, self._skipped = epoch, batch

    def __len__(self) -> int:
        return len(self._plan())

    def __iter__(self) -> Iterator[BatchIndices]:
        for indices in self._plan()[self._skipped :]:
            yield BatchIndices(self.epoch, indices)

    def _plan(self) -> list[list[int]]:
        if self._planned is None or self._planned[0] != self.epoch:
            if self.shuffle:
                batches = self._shuffled()
                batches += list(islice(cycle(batches), -len(batches) % self.world_size))
            else:
                order = np.argsort(-self.widths, kind="stable")
                batches = self._cut(order, self.widths)
                if len(batches) < self.world_size:  # a rank without a batch would block the others
                    batches = [[index] for index in order.tolist()]
            self._planned = self.epoch, batches[self.rank :: self.world_size]
        return self._planned[1]

    def _shuffled(self) -> list[list[int]]:
        """Return the shuffled batches of the current epoch; their number may vary slightly because of `max_columns`."""
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(self._of_epoch())
        widths = self.widths.copy()
        keys = widths * rng.uniform(0.97, 1.03, len(widths))  # varies the batches of small data sets
        if self.augmented_widths is not None:
            planned = order[:MAX_PLANNED]
            augmented = np.asarray(self.augmented_widths(self.epoch, planned.tolist()))
            if (augmented != widths[planned]).any():  # then the batches vary without noise
                widths[planned] = keys[planned] = augmented
        window = 40 * self.max_lines  # large enough for similar widths, small enough to vary the batches
        batches = []
        for start in range(0, len(order), window):
            lines = order[start : start + window]
            batches += self._cut(lines[np.argsort(-keys[lines])], widths)
        # Ranks wait for each other at each step, so the batches of one step should have similar widths.
        full = len(batches) // self.world_size * self.world_size
        rounds = [batches[i : i + self.world_size] for i in range(0, full, self.world_size)]
        rng.shuffle(rounds)
        return [batch for batches in rounds for batch in batches] + batches[full:]

    def _of_epoch(self) -> np.ndarray:
        """Return the indices of all new lines, and of the next replayed lines in an endless series of permutations."""
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

    def _cut(self, order: np.ndarray, widths: np.ndarray) -> list[list[int]]:
        batches: list[list[int]] = []
        widest = 0
        for index in order.tolist():
            width = max(widest, int(widths[index]))
            if not batches or len(batches[-1]) == self.max_lines or (len(batches[-1]) + 1) * width > self.max_columns:
                batches.append([])
                width = int(widths[index])
            batches[-1].append(index)
            widest = width
        return batches
