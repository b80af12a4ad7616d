"""What a run shows while it goes on and when it ends."""

import json
import math
import shutil
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.callbacks.progress import RichProgressBar
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image
from rich.console import Console
from rich.table import Table

from htr_lightning.data.batch import Batch
from htr_lightning.model.base import Recognizer
from htr_lightning.model.learner import Learner
from htr_lightning.picture import to_grey, transcription_sheet
from htr_lightning.transcription import Prediction

console = Console(soft_wrap=True)
Kind = TypeVar("Kind", bound=Callback)


class Throughput(Callback):
    """Training lines per second, over the time that training itself took; counts validation out."""

    def __init__(self) -> None:
        self.lines, self.seconds = 0, 0.0
        self._since: float | None = None
        self.started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self.seconds += now - (self._since or now)
        self._since = now
        self.lines += len(batch.ids) * trainer.world_size
        pl_module.log("lines/s", self.rate, prog_bar=True, logger=False, batch_size=len(batch.ids))
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined] # set outside the class
            pl_module.log("train/lines_per_second", self.rate, batch_size=len(batch.ids))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.perf_counter()

    @property
    def rate(self) -> float:
        return self.lines / self.seconds if self.seconds else 0.0


class RestoreBest(Callback):
    """A resumed run, in a folder of its own, starts from the best checkpoint of the run that it goes on with."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        best = find(trainer, ModelCheckpoint)
        if best is None or not trainer.ckpt_path or best.best_model_score is not None:
            return
        state = torch.load(trainer.ckpt_path, weights_only=True, map_location="cpu")["callbacks"].get(best.state_key)
        if state is None or state["best_model_score"] is None or not Path(state["best_model_path"]).is_file():
            best.best_model_path = ""  # the old run had none, or it is gone: the first validation makes one
            return
        path = Path(str(best.dirpath)) / "best.ckpt"
        if trainer.is_global_zero:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(state["best_model_path"], path)
        best.best_model_path = best.kth_best_model_path = str(path)
        best.best_model_score = best.kth_value = state["best_model_score"]
        best.best_k_models = {str(path): state["best_model_score"]}


class ValidateAtEnd(Callback):
    """A run that ends by its count of steps or epochs is validated like one that ends by the clock; one validated from
    epoch to epoch is so at the end of each, though epochs differ in their count of batches."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.val_check_interval == 1.0 and trainer.check_val_every_n_epoch:
            trainer.val_check_batch = math.inf  # else the count of the first epoch's batches

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        epochs = trainer.max_epochs or -1
        is_last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch  # epochs may differ in length
        last_batch = is_last and 0 < epochs <= trainer.current_epoch + 1
        if last_batch or 0 < trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True


class TranscriptionTable(Callback):
    """A table of image, reference and transcription at every validation: a picture in the run folder, and in W&B.

    Args:
        folder: where the pictures go.
        lines: how many, spread over the widths of the set.
    """

    def __init__(self, folder: str, lines: int = 12) -> None:
        self.folder, self.lines = Path(folder), lines
        self._shown: list[tuple[Any, Prediction]] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._shown = []

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if not isinstance(pl_module, Recognizer):
            return  # it reads nothing
        batches = trainer.num_test_batches if trainer.testing else trainer.num_val_batches
        every = max(1, int(sum(batches)) // self.lines)
        if trainer.is_global_zero and batch_idx % every == 0 and len(self._shown) < self.lines:
            ink = batch.images[0, 0, :, : int(batch.widths[0])].float().cpu().numpy()
            self._shown.append((to_grey(ink), outputs[0]))

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking or not self._shown:
            return
        images, read = zip(*self._shown, strict=True)
        sheet = transcription_sheet(images, [p.reference for p in read], [p.hypothesis for p in read])
        self.folder.mkdir(parents=True, exist_ok=True)
        name = "test" if trainer.testing else f"val_step_{trainer.global_step:06d}"
        Image.fromarray(sheet).save(self.folder / f"{name}.png")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                import wandb  # slow to import, and only here needed

                rows = [[p.id, wandb.Image(i), p.reference, p.hypothesis, p.confidence] for i, p in self._shown]
                columns = ["id", "image", "reference", "transcription", "confidence"]
                logger.log_table(f"{name.split('_')[0]}/transcriptions", columns=columns, data=rows)

    on_test_epoch_end = on_validation_epoch_end


class ProgressBar(RichProgressBar):
    """Lightning's progress bar on a terminal; in a log file a line per validation, since a bar cannot redraw there."""

    def __init__(self) -> None:
        super().__init__(leave=False)
        if not console.is_terminal:
            self.disable()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if isinstance(pl_module, Recognizer) and "val" in pl_module.totals:
            metrics["val CER"] = f"{pl_module.totals['val'].cer:.2%}"
        return metrics


class Report(Callback):
    """A line per validation, and at the end of a run `summary.json` and a table of where everything is.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._seconds = 0.0

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Learner)
        sizes = {split: its["lines"] for split, its in pl_module.card["data"].items()}
        weights = sum(p.numel() for p in pl_module.parameters())
        console.print(
            f"{weights / 1e6:.2f} M weights in {trainer.precision}, {len(pl_module.alphabet)} characters, lines: "
            + ", ".join(f"{count} {split}" for split, count in sizes.items())
        )
        for split, its in pl_module.card["data"].items():
            for reason, count in its["skipped"].items():
                console.print(f"skipped on request: {count} x {reason} ({split})")
        console.print(f"training ends after {' or '.join(_bounds(trainer))}")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):  # so that the runs of a sweep can be told apart
                logger.log_hyperparams(pl_module.card["training"] | {"model": pl_module.card["model"]})
        if trainer.ckpt_path:
            console.print(
                f"resumed from {trainer.ckpt_path}: epoch {trainer.current_epoch}, step {trainer.global_step}"
            )

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Learner)
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        throughput = find(trainer, Throughput)
        val = pl_module.metrics["val"]
        told = f"CER {val['cer']:.2%} · WER {val['wer']:.2%}" if "cer" in val else f"loss {val['loss']:.4f}"
        loss = trainer.callback_metrics.get("train/loss", torch.tensor(float("nan")))
        elapsed = timedelta(seconds=round(time.perf_counter() - throughput.started)) if throughput else ""
        speed = f" · {throughput.rate:.0f} lines/s" if throughput else ""
        console.print(
            f"{elapsed} · epoch {trainer.current_epoch} · step {trainer.global_step} · loss {float(loss):.3f} · "
            f"val {told}{speed}"
        )

    @rank_zero_only
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        throughput = find(trainer, Throughput)
        self._seconds = time.perf_counter() - throughput.started if throughput else 0.0

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """A run that is stopped by Ctrl-C keeps what it has learned; several ranks may not all be there to save."""
        if isinstance(exception, KeyboardInterrupt) and trainer.world_size == 1 and trainer.global_step:
            path = self.folder / "checkpoints" / "last.ckpt"
            trainer.save_checkpoint(path, weights_only=False)
            console.print(
                f"stopped at step {trainer.global_step}; go on with resume={_relative(path)}", highlight=False
            )

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Learner)
        throughput = find(trainer, Throughput)
        path = str(trainer.ckpt_path or "")  # the checkpoint that is tested
        val = torch.load(path, weights_only=True, map_location="cpu")["htr"]["metrics"]["val"] if path else {}
        test = pl_module.metrics["test"]
        rates = ("cer", "wer") if isinstance(pl_module, Recognizer) else ("loss",)
        counts = ("edits", "characters", "lines") if isinstance(pl_module, Recognizer) else ()
        summary = {
            **{f"val_{rate}": val.get(rate) for rate in rates},
            **{f"test_{figure}": test[figure] for figure in (*rates, *counts)},
            "seconds": round(self._seconds, 1),
            "lines_per_second": round(throughput.rate, 2) if throughput else None,
            "checkpoint": path,
        }
        (self.folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
        console.print(summary_table(summary, self.folder))
        if path and counts:
            console.print(f"next: htr transcribe {_relative(Path(path))} IMAGE...", highlight=False)
        elif path:
            console.print(f"next: python train.py start={_relative(Path(path))} ...", highlight=False)


def summary_table(summary: dict[str, Any], folder: Path) -> Table:
    """The end of a run on a screen: figures, files, and the next command to type."""

    def rates(split: str) -> str:
        cer, wer = summary[f"{split}_cer"], summary[f"{split}_wer"]
        return "-" if cer is None else f"{cer:.2%} / {wer:.2%}"

    table = Table(show_header=False, box=None)
    if "test_cer" in summary:
        table.add_row("best val CER / WER", rates("val"))
        table.add_row(
            "test CER / WER", f"{rates('test')}  ({summary['test_edits']} edits in {summary['test_lines']} lines)"
        )
    else:
        table.add_row("best val loss", "-" if summary["val_loss"] is None else f"{summary['val_loss']:.4f}")
        table.add_row("test loss", f"{summary['test_loss']:.4f}")
    table.add_row("training time", str(timedelta(seconds=round(summary["seconds"]))))
    if summary["lines_per_second"]:
        table.add_row("training speed", f"{summary['lines_per_second']:.0f} lines/s")
    table.add_row("run folder", _relative(folder))
    if "test_cer" in summary:
        table.add_row("pictures", _relative(folder / "transcriptions"))
    return table


def _bounds(trainer: Trainer) -> list[str]:
    """What ends a run, whichever comes first: a data config may bring a clock that the user did not ask for."""
    timer = find(trainer, Timer)
    clock = [str(timedelta(seconds=timer._duration))] if timer is not None and timer._duration else []
    counts = {"epochs": trainer.max_epochs or -1, "steps": trainer.max_steps}
    early = find(trainer, EarlyStopping)
    patience = [] if early is None else [f"{early.patience} validations without a better {early.monitor}"]
    return clock + [f"{count} {unit}" for unit, count in counts.items() if count > 0] + patience


def find(trainer: Trainer, kind: type[Kind]) -> Kind | None:
    """The trainer's first callback of a kind."""
    return next((callback for callback in trainer.callbacks if isinstance(callback, kind)), None)  # type: ignore[attr-defined]


def _relative(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
