"""Build training, validation and test batches from any reader."""

import re
from collections.abc import Callable, Iterable, Sequence
from inspect import signature
from typing import Annotated, Any, cast

import torch
from annotated_types import Interval
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from htr_lightning.data.batch import Batch, moved
from htr_lightning.data.line_dataset import Augment, LineDataset, whole
from htr_lightning.data.pack import Pack
from htr_lightning.data.preprocess import Preprocess
from htr_lightning.data.sample import ConcatReader, Reader
from htr_lightning.data.sampler import BucketBatchSampler, replayed
from htr_lightning.data.split import SPLITS
from htr_lightning.data.subset import held_out_of, subset_of
from htr_lightning.data.texts import WithTexts, read_texts
from htr_lightning.errors import InputError
from htr_lightning.parameters import BelowOne, Count, Fraction, Seed, Side
from htr_lightning.text.codec import alphabet_of
from htr_lightning.text.normalize import Normalizer

Workers = Annotated[int, Interval(ge=0, le=256)]
Lines = Annotated[int, Interval(ge=0, le=10**9)]
Megabytes = Annotated[int, Interval(ge=0, le=1 << 20)]


class LineDataModule(LightningDataModule):
    """A Lightning data module that serves the splits of a reader as batches of lines of similar width.

    Args:
        reader: function that returns the reader of a split. It is called with `split` ("train", "val" or "test"), with
            `root` and `repo` if they are set, and with `reduce` if the function accepts that argument and
            `reduce_scans` is true.
        preprocess: the model's preprocessing, shared by training, validation and transcription.
        normalizer: the model's text normalizer.
        root: data folder, passed to the reader.
        repo: public repository that the reader downloads if `root` is not set.
        pack: packed file written by `htr pack`, used instead of the reader.
        subset: start and end of the range of training lines to use, counted in a fixed random order (see `subset_of`);
            None uses all lines.
        subset_by: "line", or "group" to keep groups together.
        held_out: range of training lines to leave out, counted like `subset` among the lines that it selects.
        texts: table of ids and texts that replace those of the reader (see `texts.read_texts`).
        augment: augmentation of the training lines.
        alphabet: characters to learn; None uses the characters in the training texts.
        max_lines: maximum number of lines per batch.
        max_columns: maximum number of columns per batch, summed over its lines and including padding.
        multiple: batch widths are rounded up to a multiple of this number of columns. Larger values produce fewer
            distinct shapes, so fewer kernels are compiled.
        reduce_scans: whether a reader that keeps its lines in memory shrinks tall scans in the same way as
            `preprocess`. Set this to false to keep the original resolution, e.g. for a model with another input height.
        workers: number of processes per rank that load training batches.
        cache_mb: size of the cache of decoded, normalised lines per split and process, in megabytes.
        measured_lines: number of lines per split whose width is measured before training if it depends on the writing.
            The widths of other lines are estimated, so their batches contain more padding.
        seed: random seed for line order and augmentation.
        replay: data module whose training lines are mixed into the training batches to prevent forgetting.
        replay_fraction: fraction of replayed lines in the first epoch.
        replay_decay: factor by which `replay_fraction` is multiplied after each epoch.
    """

    def __init__(
        self,
        reader: Callable[..., Reader],
        preprocess: Preprocess,
        normalizer: Normalizer,
        root: str | None = None,
        repo: str | None = None,
        pack: str | None = None,
        subset: Sequence[int | None] | None = None,
        subset_by: str = "line",
        held_out: Sequence[int | None] | None = None,
        texts: str | None = None,
        augment: Augment | None = None,
        alphabet: Iterable[str] | None = None,
        max_lines: Count = 16,
        max_columns: Count = 16384,
        multiple: Side = 1,
        reduce_scans: bool = True,
        workers: Workers = 1,
        cache_mb: Megabytes = 0,
        measured_lines: Lines = 0,
        seed: Seed = 0,
        replay: "LineDataModule | None" = None,
        replay_fraction: BelowOne = 0.5,
        replay_decay: Fraction = 1.0,
    ) -> None:
        super().__init__()
        self.reader, self.preprocess, self.normalizer, self.augment = reader, preprocess, normalizer, augment
        self.max_lines, self.max_columns, self.multiple = max_lines, max_columns, multiple
        self.root, self.repo, self.pack = root, repo, pack
        self.subset, self.subset_by, self.held_out, self.texts = subset, subset_by, held_out, texts
        self.reduce_scans = reduce_scans
        self.workers, self.cache_mb, self.measured_lines, self.seed = workers, cache_mb, measured_lines, seed
        self.replay, self.replay_fraction, self.replay_decay = replay, replay_fraction, replay_decay
        self._alphabet = None if alphabet is None else list(alphabet)
        self._lines: dict[str, LineDataset] = {}

    def open(self, split: str) -> Reader:
        """Return the reader of a split, restricted to the subset if one is set and the split is "train".

        Raises:
            InputError: if the split does not exist or is empty, or the subset is invalid.
        """
        if split not in SPLITS:
            raise InputError(f"'{split}' is not a split; use one of {', '.join(SPLITS)}")
        reader: Reader
        if self.pack is not None:
            reader = cast(Reader, Pack(self.pack, split, self.preprocess))
        else:
            reader = self.reader(split=split, **self._given())
        if not len(reader):
            raise InputError(f"split '{split}' is empty; check data.root and data.reader")
        if self.texts is not None:
            reader = cast(Reader, WithTexts(reader, read_texts(self.texts)))
        if split == "train" and self.subset is not None:
            reader = cast(Reader, subset_of(reader, self.subset, self.subset_by))
        if split == "train" and self.held_out is not None:
            reader = cast(Reader, held_out_of(reader, self.held_out, self.subset_by))
        return reader

    def _given(self) -> dict[str, Any]:
        """Return the arguments that this data module passes to its reader."""
        accepted = signature(self.reader).parameters
        given: dict[str, Any] = {
            key: value for key, value in (("root", self.root), ("repo", self.repo)) if value is not None
        }
        for key, value in given.items():
            if key not in accepted:
                raise InputError(f"data.{key}={value}: this reader has no such option; remove this override")
        if self.reduce_scans and "reduce" in accepted:  # the reader keeps its lines in memory
            given["reduce"] = self.preprocess.reduce
        return given

    def lines(self, split: str) -> LineDataset:
        """Return the `LineDataset` for a split, creating it on first use.

        Raises:
            InputError: if the split is empty or contains an unusable line.
        """
        if split not in self._lines:
            self._lines[split] = self._checked(self.open(split))
        return self._lines[split]

    def set_preprocess(self, preprocess: Preprocess) -> None:
        """Use another preprocessing for the lines that have been opened and for all others, replayed lines included.

        Raises:
            InputError: if a line is unusable.
        """
        self.preprocess = preprocess
        self._lines = {split: self._checked(lines.reader) for split, lines in self._lines.items()}
        if self.replay is not None:
            self.replay.set_preprocess(preprocess)

    def _checked(self, reader: Reader) -> LineDataset:
        for id, size in zip(reader.ids, reader.sizes, strict=True):
            try:
                self.preprocess.check(size)  # fail now rather than in the middle of a run
            except ValueError as error:
                raise InputError(f"{id}: {error}") from None
        return self._dataset(reader)

    def _dataset(self, reader: Reader, augment: Augment | None = None) -> LineDataset:
        return LineDataset(
            reader,
            self.preprocess,
            self.normalizer,
            augment,
            self.multiple,
            self.seed,
            self.cache_mb,
            self.measured_lines,
        )

    @property
    def sources(self) -> list[LineDataset]:
        """The training dataset, followed by the dataset of lines to replay if there is one."""
        own = self.lines("train")
        if self.replay is None:
            return [own]
        try:
            return [own, self.replay.lines("train")]
        except InputError as error:  # the key in the message belongs to `replay`
            raise InputError(re.sub(r"\bdata(?=\.(root|repo|pack|reader)\b)", "replay", str(error))) from None

    @property
    def replayed(self) -> int:
        """The number of replayed lines in the first epoch."""
        return 0 if self.replay is None else replayed(len(self.lines("train")), self.replay_fraction)

    @property
    def alphabet(self) -> list[str]:
        """The characters to learn."""
        if self._alphabet is not None:
            return self._alphabet
        found = alphabet_of(text for lines in self.sources for text in lines.texts)
        if not found:
            raise InputError("data: the training lines have no text to learn from; choose data with texts")
        return found

    def loader(self, split: str, rank: int = 0, world_size: int = 1, training: bool = False) -> DataLoader[Batch]:
        """Return a loader for the batches of a split; for training, batches are shuffled and lines augmented."""
        lines = self.lines(split)
        old = 0
        if training:
            reader: Reader = lines.reader
            if self.replay is not None and split == "train":
                reader = cast(Reader, ConcatReader([source.reader for source in self.sources]))
                old = len(reader) - len(lines)
            lines = self._dataset(reader, self.augment)
        batches = BucketBatchSampler(
            lines.widths,
            self.max_lines,
            self.max_columns,
            training,
            self.seed,
            rank,
            world_size,
            old,
            self.replay_fraction,
            self.replay_decay,
            lines.augmented_widths if lines.resizes else None,
        )
        workers = self.workers if training else 0
        return DataLoader(
            lines,
            sampler=batches,
            batch_size=None,  # the sampler yields whole batches
            collate_fn=whole,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
            pin_memory=self._on_cuda(),  # so that copies to the GPU run beside its computations
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the loader for training, after checking that every rank has a line to validate and one to test.

        If a run is resumed, the loader continues after the last batch that it was trained on.

        Raises:
            InputError: if another split has fewer lines than there are ranks, since a rank without lines would block
                the others.
        """
        rank, world_size = self._rank()
        for split in SPLITS:
            if split != "train" and 0 < (count := len(self.lines(split))) < world_size:
                raise InputError(f"data: too few lines in {split} ({count} for {world_size} devices); reduce "
                                 f"trainer.devices to {count}, or move lines to {split}")  # fmt: skip
        loader = self.loader("train", rank, world_size, training=True)
        fit = getattr(self.trainer, "fit_loop", None)
        if fit is not None:  # Lightning creates the first iterator before it sets the epoch
            batch = fit.epoch_loop.batch_progress.current.processed if fit.restarting else 0
            cast(BucketBatchSampler, loader.sampler).start_at(fit.epoch_progress.current.processed, batch)
        return loader

    def val_dataloader(self) -> DataLoader[Batch]:
        return self.loader("val", *self._rank())

    def test_dataloader(self) -> DataLoader[Batch]:
        return self.loader("test", *self._rank())

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move only the images: Lightning would visit every string, and reading widths would wait for the GPU."""
        return batch._replace(images=moved(batch.images, device))

    def _on_cuda(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _rank(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
