"""Log a run to Weights & Biases."""

import os
import secrets
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from inspect import signature
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.request import urlopen

import wandb
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from htr_lightning.errors import InputError, first_line
from htr_lightning.output import beside

STAGING = "WANDB_DATA_DIR"
MODES = ("online", "offline", "disabled", "shared")
BEST = {"val/cer": "min", "val/wer": "min", "val/loss": "min", "val/line_accuracy": "max"}


class WandbLog(WandbLogger):
    """A `WandbLogger` that never prompts, with the card, results and tables of lines.

    It logs online if this machine is logged in, and offline otherwise. All parts of a run that is resumed are one run.

    Args:
        save_dir: run folder; an offline run is stored in its subfolder `wandb/`, from which `wandb sync` uploads it.
        project: name of the W&B project.
        name: name of the run; None for a random name.
        group: name of the group of runs, such as a sweep.
        tags: tags of the run.
        log_model: whether to log the best checkpoint as an artifact at the end; "all" for each one, when it is saved.
        settings: further arguments of `WandbLogger`.
    """

    title = "Weights & Biases"

    def __init__(
        self,
        save_dir: str,
        project: str,
        name: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        log_model: Literal[True, False, "all"] = False,
        **settings: Any,
    ) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        mode = os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")
        mode = {"dryrun": "offline", "run": "online"}.get(mode, mode)  # former names
        if mode not in MODES:
            raise InputError(f"WANDB_MODE={mode}: use one of {', '.join(MODES)}")
        accepted = {*signature(WandbLogger).parameters, *signature(wandb.init).parameters} - {"experiment", "offline"}
        if unknown := next((key for key in settings if key not in accepted), None):
            raise InputError(f"logger.wandb.{unknown}: WandbLogger has no such parameter; remove it")
        chosen = wandb.Settings(project=project, run_name=name, run_group=group, run_tags=tuple(tags))
        chosen.update_from_env_vars(dict(os.environ))  # wandb itself reads them only when the run starts
        if mode == "online" and not reachable(chosen.base_url):
            warnings.warn(
                "cannot connect to Weights & Biases; logging offline (upload later with wandb sync)", stacklevel=2
            )
            mode = "offline"
        os.environ["WANDB_MODE"] = mode  # Lightning's own `offline` excludes `log_model`
        self._folder = Path(save_dir)
        self._folder.mkdir(parents=True, exist_ok=True)
        if not ({"id", "version"} & settings.keys() or os.environ.get("WANDB_RUN_ID")):
            settings["id"] = _run_id(self._folder)
        super().__init__(name, save_dir, project=project, group=group, tags=tags, log_model=log_model, **settings)
        self._wandb_init.pop("anonymous", None)  # set by Lightning, although wandb warns about it in every run

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Log the config, and let the summary keep the best value of each metric instead of the last."""
        super().log_hyperparams(params)
        for metric, best in BEST.items():
            self.experiment.define_metric(metric, summary=best)

    @rank_zero_only
    def log_card(self, card: Mapping[str, Any]) -> None:
        """Add the card of the recognizer to the config."""
        self.experiment.config.update({"card": dict(card)}, allow_val_change=True)

    @rank_zero_only
    def log_table(  # type: ignore[override]  # without data frames
        self, key: str, columns: Sequence[str], data: Sequence[Sequence[Any]], step: int | None = None
    ) -> None:
        """Log a table with pictures, which wandb stages in the run folder until they are uploaded."""
        with self._staging():
            cells = [[wandb.Image(cell) if hasattr(cell, "dtype") else cell for cell in row] for row in data]
            super().log_table(key, list(columns), cells, step=step)

    @rank_zero_only
    def log_results(self, summary: Mapping[str, Any]) -> None:
        """Copy the results to the summary of the W&B run, under the same names."""
        self.experiment.summary.update({key: value for key, value in summary.items() if key != "checkpoint"})

    def _scan_and_log_checkpoints(self, checkpoint_callback: ModelCheckpoint) -> None:
        with self._staging():
            super()._scan_and_log_checkpoints(checkpoint_callback)

    @contextmanager
    def _staging(self) -> Iterator[None]:
        """Let wandb keep the files of artifacts in the run folder within the context, not in the home folder."""
        if os.environ.get(STAGING):
            yield
            return
        os.environ[STAGING] = str(self._folder.absolute() / "wandb")
        try:
            yield
        finally:
            del os.environ[STAGING]


def _run_id(folder: Path) -> str | None:
    """Return the id of the W&B run of a run folder, which is the same for all parts of a run that is resumed."""
    path = folder / "wandb" / "run_id.txt"
    if not path.is_file():
        if getattr(rank_zero_only, "rank", 0):
            return None  # only the first rank logs
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as new:
            new.write_text(secrets.token_hex(4), encoding="utf-8")
    return path.read_text(encoding="utf-8")


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


def log_sweep(
    folder: Path, project: str, group: str, columns: list[str | int], rows: list[list[Any]], page: Path
) -> None:  # fmt: skip
    """Log the table of the jobs of a sweep and their parallel coordinates as a run of their group.

    Args:
        folder: sweep folder.
        project: name of the W&B project.
        group: name of the group.
        columns: names of the columns of the table.
        rows: a row for each job.
        page: HTML file with the parallel coordinates.
    """
    try:
        logger = WandbLog(str(folder), project, f"{group} (all jobs)", group, ["sweep"], job_type="sweep")
        with logger._staging():
            logger.experiment.log({"jobs": wandb.Table(columns=columns, data=rows)})
        logger.experiment.log({"parallel coordinates": wandb.Html(page, inject=False)})
        wandb.finish()
    except Exception as error:
        print(f"warning: {WandbLog.title}: {first_line(error)}; the table of the sweep was not logged", file=sys.stderr)
