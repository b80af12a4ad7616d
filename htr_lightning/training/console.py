"""Report the progress and results of a run."""

import json
import math
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import EarlyStopping, ProgressBar, Timer
from lightning.pytorch.utilities import rank_zero_only
from rich.progress import BarColumn, Progress, TextColumn

from htr_lightning.config import varied_values
from htr_lightning.errors import counted
from htr_lightning.output import beside, not_fatal
from htr_lightning.schedule import completed
from htr_lightning.training.callbacks import find, log
from htr_lightning.training.logger.guard import send
from htr_lightning.training.module import TrainingModule
from htr_lightning.training.run_log import console
from htr_lightning.training.summary import in_order, relative, summarize, summary_lines
from htr_lightning.training.throughput import Throughput
from htr_lightning.transcription import PREDICTIONS, write_predictions


class RunBar(ProgressBar):
    """A progress bar for the whole run that shows the completed fraction, time left, loss, validation score and speed.

    It also logs a line every minute, to `train.log` and, if stdout is not a terminal, to stdout.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bar: Progress | None = None
        self._updated = self._logged = 0.0

    def disable(self) -> None:
        self._close()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if trainer.is_global_zero and console.is_terminal and not console.is_dumb_terminal and self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(bar_width=None), TextColumn("{task.fields[told]}"),
                console=console, transient=True, expand=True,
            )  # fmt: skip
            self._bar.add_task("starting", total=None, told="")
            self._bar.start()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._logged = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if self._bar is not None and now - self._updated > 0.25:  # reading the loss waits for the GPU
            self._updated = now
            told = [f"{completed(trainer):4.0%}", *_time_left(trainer), *self._state(trainer, pl_module)]
            self._show("training", completed(trainer), " · ".join(told))
        if trainer.is_global_zero and now - self._logged > 60:
            self._logged = now
            told = [_elapsed(trainer), f"{completed(trainer):.0%} done", f"step {trainer.global_step}"]
            log.info("%s", " · ".join([*told, *self._state(trainer, pl_module)]),
                     extra={"on_screen": self._bar is None})  # fmt: skip

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        total = int(sum(trainer.num_val_batches))
        done = completed(trainer) if trainer.state.fn == "fit" else (batch_idx + 1) / max(1, total)
        self._show("validating", done, f"{batch_idx + 1} of {total} batches")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._logged = time.perf_counter()  # a line has just been logged

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        total = int(sum(trainer.num_test_batches))
        self._show("testing", (batch_idx + 1) / max(1, total), f"{batch_idx + 1} of {total} batches")

    def _state(self, trainer: Trainer, pl_module: LightningModule) -> list[str]:
        assert isinstance(pl_module, TrainingModule)
        loss = trainer.callback_metrics.get("train/loss")
        throughput = find(trainer, Throughput)
        return [
            *([] if loss is None else [f"loss {float(loss):.3f}"]),
            *([score(pl_module, "val")] if "val" in pl_module.totals else []),
            *([] if throughput is None else [f"{throughput.rate:.0f} lines/s"]),
        ]

    def _show(self, what: str, done: float, told: str) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=what, completed=done, total=1.0, told=told)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Report(Callback):
    """A callback that logs the results of each validation and the final results of the run.

    The final results are also written to `summary.json`, and the test lines to `predictions.jsonl`.

    Args:
        folder: run folder.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._started = ""

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        recognizer = pl_module.recognizer
        sizes = {split: its["lines"] for split, its in recognizer.card["data"].items()}
        parameters = sum(p.numel() for p in recognizer.parameters())
        log.info(
            f"{parameters / 1e6:.2f} M parameters · {len(recognizer.alphabet)} characters · lines: "
            + ", ".join(f"{count} {split}" for split, count in sizes.items())
        )
        for split, its in recognizer.card["data"].items():
            for reason, count in its["skipped"].items():
                log.info(f"skipped in {split}: {count} x {reason}")
        log.info(f"training on {_devices(trainer)} in {trainer.precision} for {' or '.join(_bounds(trainer))}")
        log.info(_steps(trainer))
        if note := deterministic(trainer.strategy.root_device):
            log.info(note)
        if note := idle_gpus(isinstance(trainer.accelerator, CPUAccelerator), trainer.num_devices):
            log.info(f"note: {note}")
        card = recognizer.card
        settings = card["training"] | {"model": card["model"]}
        send(trainer, "log_hyperparams", settings | {"overrides": varied_values()})
        send(trainer, "log_card", {key: value for key, value in card.items() if key not in ("training", "model")})
        if trainer.ckpt_path:
            log.info(f"resumed from {trainer.ckpt_path}: epoch {trainer.current_epoch}, step {trainer.global_step}")

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        throughput = find(trainer, Throughput)
        loss = trainer.callback_metrics.get("train/loss", torch.tensor(float("nan")))
        by_epoch = (trainer.max_epochs or -1) > 0
        told = [
            _elapsed(trainer),
            f"epoch {trainer.current_epoch}" if by_epoch else f"step {trainer.global_step}",
            f"loss {float(loss):.3f}",
            f"val {score(pl_module, 'val', words=True)}",
            *([f"{throughput.rate:.0f} lines/s"] if throughput else []),
        ]
        log.info(" · ".join(told))

    @rank_zero_only
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        early = find(trainer, EarlyStopping)
        if early is not None and early.stopping_reason_message:
            log.info(f"stopped early: {early.stopping_reason_message}")

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        throughput = find(trainer, Throughput)
        clock = {
            "started": self._started,
            "seconds": round(throughput.elapsed if throughput else 0.0, 1),
            "lines_per_second": round(throughput.rate, 2) if throughput else None,
        }
        data = trainer.datamodule  # type: ignore[attr-defined]
        predictions = in_order(pl_module.tested, data.lines("test").reader.ids)
        summary = summarize(trainer, pl_module, predictions, clock, self.folder)
        with not_fatal(self.folder / PREDICTIONS):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_predictions(self.folder, predictions)
        with not_fatal(self.folder / "summary.json"), beside(self.folder / "summary.json") as new:
            new.write_text(json.dumps(summary, indent=1) + "\n")
        send(trainer, "log_results", summary)
        for line in summary_lines(summary, self.folder, pl_module.recognizer.single_characters):
            log.info(line)
        path = str(trainer.ckpt_path or "")
        if path and summary["test_cer"] > 0.9:
            log.info("note: the recognizer cannot read yet; train it longer, e.g. with trainer.max_time=20m")
        elif path:
            log.info(f"next: htr transcribe {relative(Path(path))} IMAGE...")


def score(module: TrainingModule, split: str, words: bool = False) -> str:
    """Format the accuracy of a single-character recognizer, or the CER of any other; `words` adds the WER."""
    totals = module.totals[split]
    if module.recognizer.single_characters:
        return f"accuracy {1 - totals.cer:.2%}"
    return f"CER {totals.cer:.2%}" + (f" · WER {totals.wer:.2%}" if words else "")


def deterministic(device: torch.device) -> str | None:
    """Return what `trainer.deterministic` costs on a device, or None if it costs nothing."""
    if device.type != "cuda" or not torch.are_deterministic_algorithms_enabled():
        return None
    return "deterministic: a CTC loss is computed on the CPU, and other operations may be slower"


def idle_gpus(on_cpu: bool, devices: int) -> str | None:
    """Return a note on how to use the GPUs that a run leaves idle, or None if there are none.

    Args:
        on_cpu: whether the run uses the CPU.
        devices: number of devices that the run uses on this machine.
    """
    if on_cpu:
        if torch.cuda.is_available():
            return "a GPU is available, but this run uses the CPU; add trainer=gpu to use it"
        if torch.backends.mps.is_available():
            return "an Apple GPU is available, but this run uses the CPU; add trainer=mps to use it"
    elif devices < (count := torch.cuda.device_count()):
        return f"{devices} of {count} GPUs in use; add trainer=ddp trainer.devices={count} to use all of them"
    return None


def _devices(trainer: Trainer) -> str:
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    return name if trainer.world_size == 1 else f"{trainer.world_size} x {name}"


def _steps(trainer: Trainer) -> str:
    """Describe the optimizer steps of a run: the lines in each, on all ranks, their number and the learning rate."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    sizes = {"batches": trainer.accumulate_grad_batches, "ranks": trainer.world_size}
    factors = [f"{count} {name}" for name, count in sizes.items() if count > 1]
    lines = data.max_lines * math.prod(sizes.values())
    steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    rate = max(group.get("initial_lr", group["lr"]) for group in trainer.optimizers[0].param_groups)
    of = f" ({' x '.join([f'{data.max_lines} lines', *factors])})" if factors else ""
    return f"steps of at most {lines} lines{of} · {counted(steps, 'step')} per epoch · learning rate {rate:g}"


def _elapsed(trainer: Trainer) -> str:
    throughput = find(trainer, Throughput)
    return str(timedelta(seconds=round(throughput.elapsed))) if throughput else ""


def _time_left(trainer: Trainer) -> list[str]:
    """Return the time left, estimated from progress unless the run has a time limit; empty if not yet known."""
    timer, throughput = find(trainer, Timer), find(trainer, Throughput)
    done = completed(trainer)
    if timer is not None and timer._duration:
        left = timer._duration - timer.time_elapsed()
    elif throughput is not None and done > 0.01:
        left = throughput.elapsed * (1 - done) / done
    else:
        return []
    return [f"{timedelta(seconds=max(0, round(left)))} left"]


def _bounds(trainer: Trainer) -> list[str]:
    """Describe the limits of a run, which ends when it reaches the first of them."""
    timer = find(trainer, Timer)
    clock = [str(timedelta(seconds=timer._duration))] if timer is not None and timer._duration else []
    counts = {"epoch": trainer.max_epochs or -1, "step": trainer.max_steps}
    early = find(trainer, EarlyStopping)
    bounds = [f"{count} {unit}{'s' * (count != 1)}" for unit, count in counts.items() if count > 0]
    if early is not None:
        plural = "s" * (early.patience != 1)
        bounds.append(f"{early.patience} validation{plural} without improvement in {early.monitor}")
    return clock + bounds
