"""Suggest a learning rate (`find=lr`), or the largest batches that fit into a GPU (`find=batch`), before a run."""

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.memory import is_oom_error
from numpy import ndarray
from torch.utils.data import DataLoader

from htr_lightning.config import external_ranks
from htr_lightning.data.batch import Batch
from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.line_dataset import LineDataset, whole
from htr_lightning.data.sampler import BatchIndices, BucketBatchSampler
from htr_lightning.errors import InputError, counted
from htr_lightning.model.base import Recognizer
from htr_lightning.output import beside, not_fatal
from htr_lightning.training.module import TrainingModule
from htr_lightning.training.run_log import log

LOWEST, HIGHEST, STEPS = 1e-6, 1.0, 150  # of the learning rates that are tried, a step each
WINDOW = 15  # steps over which the loss is smoothed
DIVERGED = 3.0  # ratio of the loss to its minimum at which the search ends
LARGEST = 1 << 10  # factor by which batches may grow
RESERVE = 0.9  # fraction of the largest batch that is suggested, since memory becomes fragmented
KEPT = ("accelerator", "precision", "gradient_clip_val", "gradient_clip_algorithm", "deterministic", "benchmark")


class Attempt(NamedTuple):
    """A batch size that was tried."""

    lines: int  # data.max_lines
    columns: int  # data.max_columns
    fits: bool
    gigabytes: float  # largest memory of the GPU in use; 0 on a CPU


class Rates(Callback):
    """A callback that raises the learning rate from step to step and records the loss of each (Smith, 2017, "Cyclical
    learning rates for training neural networks", arXiv:1506.01186, section 3.3).

    It ends the run when the loss has grown to several times its minimum.
    """

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._batches: list[float] = []  # losses of the batches of this step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if len(self.rates) > trainer.global_step:
            return  # within a step
        rate = LOWEST * (HIGHEST / LOWEST) ** (len(self.rates) / (STEPS - 1))
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        self.rates.append(rate)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batches.append(float(trainer.callback_metrics["train/loss"]))
        if trainer.global_step < len(self.rates):
            return
        self.losses.append(float(np.mean(self._batches)))
        self._batches = []
        if len(self.losses) > WINDOW:
            smooth = smoothed(self.losses)
            trainer.should_stop = bool(smooth[-1] > DIVERGED * smooth.min())


def smoothed(losses: Sequence[float]) -> Float[ndarray, " N"]:
    """Return losses averaged over a window around each of them."""
    weights = np.hanning(WINDOW + 2)[1:-1]
    padded = np.pad(np.asarray(losses), WINDOW // 2, mode="edge")
    return np.convolve(padded, weights / weights.sum(), mode="valid")


def suggestion(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return the learning rate at which the loss falls fastest for each doubling of the rate.

    Raises:
        InputError: if the loss does not fall.
    """
    smooth = smoothed(losses)
    lowest = int(smooth.argmin())
    if len(losses) <= WINDOW or lowest == 0:
        raise InputError("find=lr: the loss does not fall at any learning rate; check the data, or train from start=")
    return rates[int(np.gradient(smooth[: lowest + 1]).argmin())]


def find(kind: str, recognizer: Recognizer, data: LineDataModule, settings: dict[str, Any], folder: Path) -> float:
    """Suggest a setting in a line of the log and a picture in the run folder; return it. It trains the recognizer.

    Args:
        kind: "lr" or "batch".
        recognizer: recognizer that is about to be trained.
        data: its data.
        settings: config of the trainer, as plain data; the search uses one device.
        folder: run folder.

    Raises:
        InputError: if there is nothing to suggest.
    """
    if external_ranks():
        raise InputError(f"find={kind}: uses one process; start it without torchrun or srun")
    if kind == "lr":
        return _find_rate(recognizer, data, settings, folder)
    return _find_batch(recognizer, data, settings, folder)


def _find_rate(recognizer: Recognizer, data: LineDataModule, settings: dict[str, Any], folder: Path) -> float:
    rates = Rates()
    trainer = _trainer(settings, folder, STEPS, [rates], settings.get("accumulate_grad_batches", 1))
    log.info(f"tries learning rates from {LOWEST:g} to {HIGHEST:g} in {STEPS} steps")
    try:
        trainer.fit(TrainingModule(recognizer, data.seed), data)
    except InputError as error:
        if len(rates.losses) <= WINDOW or "nonfinite" not in str(error):
            raise  # otherwise, the learning rate was too high
    found = suggestion(rates.rates, rates.losses)
    tried = rates.rates[: len(rates.losses)]

    def draw(axes: Any) -> None:
        axes.plot(tried, rates.losses, color="0.8", label="loss")
        axes.plot(tried, smoothed(rates.losses), label=f"average of {WINDOW} steps")
        axes.axvline(found, color="C1", label=f"suggestion: {found:.2g}")
        axes.set(xscale="log", xlabel="learning rate", ylabel="training loss", ylim=(0, 1.5 * rates.losses[0]))

    path = _picture(folder / "find-lr.png", draw)
    lines = data.max_lines * trainer.accumulate_grad_batches
    log.info(f"suggestion: optimizer.lr={found:.2g} for steps of at most {counted(lines, 'line')}, on one device "
             f"(where the loss falls fastest: {path})")  # fmt: skip
    return found


def _find_batch(recognizer: Recognizer, data: LineDataModule, settings: dict[str, Any], folder: Path) -> float:
    if _trainer(settings, folder, 1, []).strategy.root_device.type == "cpu":
        raise InputError("find=batch: measures the memory of a GPU, but this run uses the CPU, on which small batches "
                         "learn more in the same time")  # fmt: skip
    attempts = largest_batch(
        data.max_lines, data.max_columns, lambda *sizes: _attempt(recognizer, data, settings, folder, *sizes)
    )
    fitting = [one for one in attempts if one.fits]
    if not fitting:
        raise InputError(f"find=batch: not even data.max_lines={data.max_lines} data.max_columns={data.max_columns} "
                         "fits; reduce them, or use a smaller model")  # fmt: skip
    best = max(fitting, key=lambda one: one.columns)
    lines, columns = max(1, int(RESERVE * best.lines)), int(RESERVE * best.columns)

    def draw(axes: Any) -> None:
        ordered = sorted(fitting, key=lambda one: one.columns)
        axes.plot([one.columns for one in ordered], [one.gigabytes for one in ordered], "o-", label="fits")
        axes.axvline(columns, color="C1", label=f"suggestion: {columns} columns")
        axes.set(xlabel="columns of a batch (data.max_columns)", ylabel="memory of the GPU (GB)", ylim=(0, None))

    path = _picture(folder / "find-batch.png", draw)
    log.info(f"suggestion: data.max_lines={lines} data.max_columns={columns} ({path}); find=lr finds a learning rate "
             "for them")  # fmt: skip
    return float(columns)


def largest_batch(lines: int, columns: int, attempt: Callable[[int, int], Attempt]) -> list[Attempt]:
    """Return the attempts to find the largest batch that fits: doubled until one does not, then bisected to an eighth.

    Args:
        lines: `data.max_lines` of the first attempt.
        columns: `data.max_columns` of the first attempt; the ratio of both is kept.
        attempt: function that tries a maximum number of lines and of columns.
    """
    attempts = [attempt(lines, columns)]
    low, high = 1.0, 2.0
    while attempts[-1].fits and high <= LARGEST:
        attempts.append(attempt(int(lines * high), int(columns * high)))
        if attempts[-1].fits:
            low, high = high, 2 * high
    if attempts[0].fits and not attempts[-1].fits:
        for _ in range(3):
            middle = (low + high) / 2
            attempts.append(attempt(int(lines * middle), int(columns * middle)))
            low, high = (middle, high) if attempts[-1].fits else (low, middle)
    return attempts


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error says that memory is used up, also by cuDNN and cuBLAS, which allocate some themselves."""
    return isinstance(error, torch.OutOfMemoryError) or is_oom_error(error) or "ALLOC" in str(error)


def widest(data: LineDataModule, lines: int, columns: int) -> Batch:
    """Return the training batch that needs most memory: of the widest lines, repeated if there are too few."""
    loader = data.loader("train", training=True)
    training = cast(LineDataset, loader.dataset)
    every = range(len(training))
    widths = np.asarray(training.augmented_widths(0, every) if training.resizes else training.widths)
    repeated = np.resize(np.argsort(-widths, kind="stable"), max(lines, len(widths)))
    (batch, *_) = BucketBatchSampler(widths[repeated].tolist(), lines, columns)
    return training[BatchIndices(0, repeated[batch.indices].tolist())]


def _attempt(
    recognizer: Recognizer, data: LineDataModule, settings: dict[str, Any], folder: Path, lines: int, columns: int
) -> Attempt:
    """Take two steps, since the optimizer stores its state in the first."""
    batch = widest(data, lines, columns)
    trainer = _trainer(settings, folder, 2, [])
    is_cuda = trainer.strategy.root_device.type == "cuda"
    fits, used = True, 0.0
    if is_cuda:
        torch.cuda.reset_peak_memory_stats(trainer.strategy.root_device)
    try:
        given: Any = DataLoader([batch, batch], batch_size=None, collate_fn=whole)  # type: ignore[arg-type] # a sequence
        trainer.fit(TrainingModule(recognizer, data.seed), given, given)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        fits = False
    if is_cuda:
        used = torch.cuda.max_memory_allocated(trainer.strategy.root_device) / 1e9
    recognizer.zero_grad()
    del trainer
    gc.collect()
    if is_cuda:
        torch.cuda.empty_cache()
    told = f"{used:.1f} GB" if fits else "does not fit"
    log.info(f"data.max_lines={lines} data.max_columns={columns}: {told}")
    return Attempt(lines, columns, fits, used)


def _trainer(
    settings: dict[str, Any], folder: Path, steps: int, callbacks: list[Callback], accumulated: int = 1
) -> Trainer:
    chosen = settings.get("devices")  # 1 is the first GPU, and [1] the second
    return Trainer(
        **{key: settings[key] for key in KEPT}, devices=chosen[:1] if isinstance(chosen, list) else 1, logger=False,
        accumulate_grad_batches=accumulated, max_steps=steps, callbacks=callbacks, default_root_dir=folder,
        limit_val_batches=0, num_sanity_val_steps=0, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1, use_distributed_sampler=False,
    )  # fmt: skip


def _picture(path: Path, draw: Callable[[Any], None]) -> Path:
    from matplotlib.figure import Figure  # takes a while to import

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.legend()
    with not_fatal(path), beside(path) as new:
        figure.savefig(new, format="png", dpi=120)
    return path
