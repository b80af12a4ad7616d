"""Normalise, augment and measure the lines of a split."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from numpy import ndarray
from torch.utils.data import DataLoader, Dataset

from htr_lightning.augment.transform import Resizing
from htr_lightning.data.batch import Batch, collate
from htr_lightning.data.image import reduced_size
from htr_lightning.data.preprocess import Preprocess
from htr_lightning.data.sample import Reader, Sample
from htr_lightning.data.sampler import BatchIndices
from htr_lightning.errors import InputError
from htr_lightning.text.normalize import Normalizer

Augment = Callable[[UInt8[ndarray, "H W"], np.random.Generator], UInt8[ndarray, "h w"]]
SHARED = 512  # number of lines that ranks normalise before they exchange them; fewer are not worth a process


class LineDataset(Dataset[Batch]):
    """A dataset of the lines in one split, indexed by batch."""

    def __init__(
        self,
        reader: Reader,
        preprocess: Preprocess,
        normalizer: Normalizer,
        augment: Augment | None = None,
        multiple: int = 1,
        seed: int = 0,
        cache_mb: int = 0,
        measured_lines: int = 0,
    ) -> None:
        self.reader, self.preprocess, self.normalizer, self.augment = reader, preprocess, normalizer, augment
        self.multiple = 1 if preprocess.framed else multiple
        self.seed, self.measured_lines = seed, measured_lines
        self._cache: dict[int, Sample] = {}  # samples to which `geometry` has been applied
        self._room = cache_mb * 1_000_000  # bytes

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, batch: BatchIndices) -> Batch:
        samples, arrays = [], []
        for index in batch.indices:
            sample = self._normalized(index)
            samples.append(sample)
            try:
                arrays.append(self._array(sample.image, batch.epoch, index))
            except ValueError as error:
                raise InputError(f"{sample.id}: {error}") from None
        texts = [self.normalizer(sample.text) for sample in samples]
        return collate([s.id for s in samples], arrays, texts, [s.group for s in samples], self.multiple)

    def _array(self, image: UInt8[ndarray, "H W"], epoch: int, index: int) -> Float32[ndarray, "h w"]:
        if self.augment:  # false for an empty `Compose`; creating a generator costs more than loading an image
            augmented = self.augment(image, self._rng(epoch, index))
            with suppress(ValueError):  # use the original if the augmented line is too large or too small for the model
                return self.preprocess.to_array(augmented)
        return self.preprocess.to_array(image)

    def _normalized(self, index: int) -> Sample:
        """Return a sample to which `geometry` has been applied, from the cache if possible."""
        if index in self._cache:
            return self._cache[index]
        sample = self._geometry(index)
        self._keep(index, sample)
        return sample

    def _geometry(self, index: int) -> Sample:
        sample = self.reader[index]
        try:
            return sample._replace(image=self.preprocess.geometry(self.preprocess.reduce(sample.image)))
        except ValueError as error:
            raise InputError(f"{sample.id}: {error}") from None

    def _keep(self, index: int, sample: Sample) -> None:
        """Add a sample to the cache unless the cache is full."""
        if sample.image.nbytes <= self._room:
            self._room -= sample.image.nbytes
            self._cache[index] = sample
        else:
            self._room = 0

    @cached_property
    def widths(self) -> list[int]:
        """The width of each line after preprocessing, in columns; identical in every process.

        If the width depends on the writing as well as on the image size, it is exact for the first `measured_lines`
        lines and estimated for all others. The ranks of a run must ask for it together, because they share the work.
        """
        return [self.preprocess.width(size) for size in self._sizes]

    @property
    def resizes(self) -> bool:
        """Whether augmentation changes the widths of lines, and tells by how much."""
        return bool(self.augment) and isinstance(self.augment, Resizing) and not self.preprocess.framed

    def augmented_widths(self, epoch: int, indices: Sequence[int]) -> list[int]:
        """Return the widths of lines after augmentation in an epoch, to within a column where `widths` is exact.

        Raises:
            TypeError: if the augmentation does not tell sizes.
        """
        if not isinstance(self.augment, Resizing):
            raise TypeError(f"{self.augment!r} is not Resizing")
        found = [self.widths[index] for index in indices]
        for place, index in enumerate(indices):
            size = self.augment.size_after(self._sizes[index], self._rng(epoch, index))
            with suppress(ValueError):  # as in `_array`
                self.preprocess.check(size)
                found[place] = self.preprocess.width(size)
        return found

    def _rng(self, epoch: int, index: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, epoch, index))

    @cached_property
    def _sizes(self) -> list[tuple[int, int]]:
        """The (height, width) of each line before augmentation, or of its reduced scan if `geometry` is not known."""
        sizes = [reduced_size(size, self.preprocess.max_rows) for size in self.reader.sizes]
        if not self.preprocess.by_size:
            for index, sample in self._measured():
                sizes[index] = sample.image.shape[0], sample.image.shape[1]
                self._keep(index, sample)
        return sizes

    def _measured(self) -> Iterator[tuple[int, Sample]]:
        """Yield the first `measured_lines` samples, normalised by the ranks or by at most one process a thread.

        Raises:
            InputError: on all ranks, if a line of any of them is unusable.
        """
        if torch.distributed.is_initialized():
            found = self._shared()
        else:
            lines = _Geometries(self)
            processes = min(torch.get_num_threads(), len(lines) // SHARED)
            found = iter(DataLoader(
                lines, batch_size=None, collate_fn=whole, num_workers=processes if processes > 1 else 0,
                generator=torch.Generator(), # the run's own random numbers do not depend on how lines are measured
            ))  # fmt: skip
        for index, sample in enumerate(found):
            if isinstance(sample, InputError):
                raise sample
            yield index, sample

    def _shared(self) -> Iterator[Sample | InputError]:
        """Yield the samples, each normalised by one of the ranks of the run."""
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        lines = _Geometries(self)
        for start in range(0, len(lines), SHARED):
            indices = range(start, min(start + SHARED, len(lines)))
            own = [lines[index] for index in indices[rank::world]]
            shares: list[list[Sample | InputError]] = [[] for _ in range(world)]
            torch.distributed.all_gather_object(shares, own)
            for place in range(len(indices)):
                yield shares[place % world][place // world]

    @cached_property
    def texts(self) -> list[str]:
        """The normalised reference texts."""
        return [self.normalizer(text) for text in self.reader.texts]


class _Geometries(Dataset[Sample | InputError]):
    """The samples to measure, after the first half of preprocessing, or the error for each that is unusable.

    Errors are values, since another process or rank may be waiting for the sample.
    """

    def __init__(self, lines: LineDataset) -> None:
        self.lines = lines

    def __len__(self) -> int:
        return min(len(self.lines), self.lines.measured_lines)

    def __getitem__(self, index: int) -> Sample | InputError:
        try:
            return self.lines._geometry(index)
        except InputError as error:
            return error


def whole(batch: Any) -> Any:
    """Return the batch unchanged, because PyTorch's default conversion would visit every string in it."""
    return batch
