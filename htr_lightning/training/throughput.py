"""Measure how fast a run trains, and what its time goes into."""

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch.utils.flop_counter import FlopCounterMode

from htr_lightning.data.batch import Batch
from htr_lightning.training.module import TrainingModule

BACKWARD = 2  # the gradients of inputs and of weights take as many operations each as the forward pass
SIDE, REPEATS = 2048, 5  # size of the matrices whose product gives the ceiling, and how often it is measured


class Throughput(Callback):
    """A callback that measures and logs the speed of training, excluding the time spent on validation.

    It logs `train/lines_per_second`, `train/pixels_per_second` (of the arrays that the network sees, without padding),
    `train/padding` (fraction of padding in the batches) and `train/waiting` (fraction of the time in which the run
    waits for a batch). If a run is resumed, what was measured before the interruption counts as well.

    Args:
        utilization: whether to log `train/utilization` as well: floating-point operations per second as a fraction of
            those in a large matrix product, measured on this device in the precision of the run. The operations of a
            training step are three times those of the forward pass, which are counted on the first batch and taken to
            be proportional to its columns.
    """

    def __init__(self, utilization: bool = False) -> None:
        self.utilization = utilization
        self.lines, self.seconds, self.waited = 0, 0.0, 0.0
        self.pixels = 0  # without padding
        self.padded_pixels = 0
        self._since: float | None = None
        self._before = 0.0  # seconds of training before `_started`
        self._started: float | None = None
        self._restored: dict[str, Any] = {}
        self._cost, self._ceiling = 0.0, 0.0  # operations per padded pixel and training step; operations per second

    def state_dict(self) -> dict[str, Any]:
        measured = ("lines", "seconds", "waited", "pixels", "padded_pixels", "elapsed")
        return {name: getattr(self, name) for name in measured}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = dict(state_dict)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._restored:  # Lightning also loads the state of the checkpoint that is tested
            self._before = self._restored.pop("elapsed")
            vars(self).update(self._restored)
            self._restored = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = self._since = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before, self._started = self.elapsed, None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        now = time.perf_counter()
        waited = now - (self._since or now)
        self.waited += waited
        if self.utilization and not self._cost:
            assert isinstance(pl_module, TrainingModule)
            self._cost = (1 + BACKWARD) * operations(pl_module, batch) / batch.images.numel()
            self._ceiling = ceiling(pl_module.device, trainer.precision)
            self._since = time.perf_counter() - waited  # this takes a second, once

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self.seconds += now - (self._since or now)
        self._since = now
        self.lines += len(batch.ids) * trainer.world_size
        self.pixels += int(batch.widths.sum()) * batch.images.shape[2]
        self.padded_pixels += batch.images.numel()
        every = trainer.log_every_n_steps  # type: ignore[attr-defined] # Lightning sets it outside the class
        if every and trainer.global_step % every == 0:
            figures = self.figures(trainer.world_size)
            pl_module.log_dict({f"train/{name}": value for name, value in figures.items()}, batch_size=len(batch.ids))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds of training, including validation."""
        return self._before + (0.0 if self._started is None else time.perf_counter() - self._started)

    @property
    def rate(self) -> float:
        """Training lines per second."""
        return self.lines / self.seconds if self.seconds else 0.0

    def figures(self, ranks: int = 1) -> dict[str, float]:
        """Return what is logged, by name. Pixels and time are those of this rank, multiplied by the number of ranks."""
        if not self.seconds or not self.padded_pixels:
            return {}
        figures = {
            "lines_per_second": self.rate,
            "pixels_per_second": ranks * self.pixels / self.seconds,
            "padding": 1 - self.pixels / self.padded_pixels,
            "waiting": self.waited / self.seconds,
        }
        if self._ceiling:
            figures["utilization"] = self._cost * self.padded_pixels / self.seconds / self._ceiling
        return figures


def operations(module: TrainingModule, batch: Batch) -> int:
    """Return the number of floating-point operations that the network spends on a batch in the forward pass.

    Those of matrix products and convolutions are counted, two for each multiplication and addition; others are few.
    """
    counter = FlopCounterMode(display=False)
    training = [part for part in module.recognizer.modules() if part.training]
    module.recognizer.eval()  # so that batch norms keep their statistics
    try:
        with counter, torch.no_grad(), module.eager():
            module.recognizer.loss(batch)
    finally:
        for part in training:
            part.training = True
    return counter.get_total_flops()


def ceiling(device: torch.device, precision: str | int) -> float:
    """Return the floating-point operations per second of a large matrix product.

    Args:
        device: device of the run.
        precision: Lightning's name of the precision.
    """
    kinds = {"bf16": torch.bfloat16, "16": torch.float16}
    kind = kinds.get(str(precision).partition("-")[0], torch.float32)
    matrix = torch.ones(SIDE, SIDE, dtype=kind, device=device)
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        matrix @ matrix
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * SIDE**3 / best
