"""Log the config, summary and images of a run to Weights & Biases; `TrainingModule` logs the metrics."""

import os
import warnings
from collections.abc import Sequence
from http.client import HTTPException
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.error import HTTPError
from urllib.request import urlopen

import wandb
from annotated_types import Interval
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from htr_lightning.errors import InputError
from htr_lightning.picture import to_grey, transcription_sheet
from htr_lightning.transcription import Prediction

T = TypeVar("T")
Lines = Annotated[int, Interval(ge=1, le=1000)]

MODES = ("online", "offline", "disabled", "shared")
BEST = {"val/cer": "min", "val/wer": "min", "val/loss": "min", "val/line_accuracy": "max"}


def wandb_logger(
    save_dir: str,
    project: str,
    name: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    **settings: Any,
) -> WandbLogger:
    """Return a `WandbLogger` that never prompts: online if this machine is logged in, offline otherwise.

    Args:
        save_dir: run folder; an offline run is stored in its subfolder `wandb/`, from which `wandb sync` uploads it.
        project: name of the W&B project.
        name: name of the run; None for a random name.
        group: name of the group of runs, such as a sweep.
        tags: tags of the run.
        settings: further arguments of `WandbLogger`.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    mode = os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")
    mode = {"dryrun": "offline", "run": "online"}.get(mode, mode)  # former names; Lightning sets the first one itself
    if mode not in MODES:
        raise InputError(f"WANDB_MODE={mode}: use one of {', '.join(MODES)}")
    accepted = {*signature(WandbLogger).parameters, *signature(wandb.init).parameters} - {"experiment"}
    if unknown := next((key for key in settings if key not in accepted), None):
        raise InputError(f"logger.wandb.{unknown}: WandbLogger has no such parameter; remove it")
    chosen = wandb.Settings(project=project, run_name=name, run_group=group, run_tags=tuple(tags))
    chosen.update_from_env_vars(dict(os.environ))  # wandb itself reads them only when the run starts
    if mode == "online" and not reachable(chosen.base_url):
        warnings.warn(
            "cannot connect to Weights & Biases; logging offline (upload later with wandb sync)", stacklevel=2
        )
        mode = "offline"
    os.environ["WANDB_MODE"] = mode
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    offline = mode == "offline"
    logger = WandbLogger(name, save_dir, project=project, offline=offline, group=group, tags=tags, **settings)
    logger._wandb_init.pop("anonymous", None)  # set by Lightning, although wandb warns about it in every run
    return logger


def logged_in() -> bool:
    """Return whether there is an API key in the environment or in the netrc file written by `wandb login`."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        return "wandb" in netrc.read_text(errors="replace")
    except OSError:
        return False  # no netrc file: not logged in


def reachable(server: str, seconds: float = 3.0) -> bool:
    """Return whether a web server answers, if necessary through a proxy; wandb itself would keep trying for 90 seconds.

    Args:
        server: URL of the server.
        seconds: time to wait for an answer.
    """
    try:
        urlopen(server, timeout=seconds).close()
    except HTTPError:
        return True  # an answer, although not a page
    except (OSError, HTTPException, ValueError):
        return False
    return True


def log_config(trainer: Trainer, card: dict[str, Any]) -> None:
    """Log the config of a run to W&B, and let the summary keep the best value of each metric instead of the last."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_hyperparams(card["training"] | {"model": card["model"]})
            for metric, best in BEST.items():
                logger.experiment.define_metric(metric, summary=best)


def log_summary(trainer: Trainer, summary: dict[str, Any]) -> None:
    """Copy the values in `summary.json` to the summary of the W&B run, under the same names."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.summary.update({k: v for k, v in summary.items() if k not in ("checkpoint", "card")})


class TranscriptionTable(Callback):
    """A callback that saves a picture of lines, references and transcriptions to the run folder and W&B.

    A picture is saved after each validation and after testing.

    Args:
        folder: folder in which to save the pictures.
        lines: number of lines per picture, spread evenly over the batches.
    """

    def __init__(self, folder: str, lines: Lines = 12) -> None:
        self.folder, self.lines = Path(folder), lines
        self._shown: list[tuple[Any, Prediction]] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._shown = []

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if not trainer.is_global_zero:
            return
        batches = int(sum(trainer.num_test_batches if trainer.testing else trainer.num_val_batches))
        wanted = (batch_idx + 1) * self.lines // batches - batch_idx * self.lines // batches
        if batches < self.lines:  # more than needed, since later batches may be small
            wanted = self.lines
        for row in _spread(range(len(outputs)), wanted):
            ink = batch.images[row, 0, :, : int(batch.widths[row])].float().cpu().numpy()
            self._shown.append((to_grey(ink), outputs[row]))
        if batch_idx == batches - 1:
            self._shown = _spread(self._shown, self.lines)

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
                # not as a wandb.Table, whose images would be stored outside the run folder
                logger.log_image(f"{name.split('_')[0]}/transcriptions", [sheet], step=trainer.global_step)

    on_test_epoch_end = on_validation_epoch_end


def _spread(items: Sequence[T], count: int) -> list[T]:
    """Return at most `count` items, spread evenly over the sequence."""
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]
