"""Log a run to MLflow."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxtyping import UInt8
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.logger import _flatten_dict
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only
from numpy import ndarray
from PIL import Image

from htr_lightning.errors import InputError, first_line
from htr_lightning.output import beside
from htr_lightning.training.logger.guard import flat
from htr_lightning.training.logger.wandb import reachable

SQLITE = "sqlite:///"


class MLflowLog(MLFlowLogger):
    """An MLFlowLogger with pictures, tables, the card, and the same run for all parts of a run that is resumed.

    Args:
        save_dir: run folder, in which the id of the MLflow run is noted.
        experiment_name: name of the MLflow experiment.
        run_name: name of the run.
        tracking_uri: address of a server, or of a database such as sqlite:///runs/mlflow.db.
        group: sweep that the run belongs to, logged as a tag.
        tags: further tags, logged as `tags`.
        log_model: whether to log the best checkpoint as an artifact; "all" for each one.
        artifact_location: where pictures and checkpoints of a new experiment are stored; None for a folder beside the
            database, or for what the server is set to.
    """

    title, package = "MLflow", "mlflow"

    def __init__(
        self,
        save_dir: str,
        experiment_name: str,
        run_name: str,
        tracking_uri: str,
        group: str | None = None,
        tags: Sequence[str] = (),
        log_model: Literal[True, False, "all"] = False,
        artifact_location: str | None = None,
    ) -> None:
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        self._resumed = False
        self._noted = Path(save_dir) / "mlflow_run.txt"
        if tracking_uri.startswith(SQLITE):
            database = Path(tracking_uri.removeprefix(SQLITE)).absolute()
            database.parent.mkdir(parents=True, exist_ok=True)
            artifact_location = artifact_location or (database.parent / "mlflow").as_uri()
        elif tracking_uri.startswith("http") and not reachable(tracking_uri):
            raise InputError(f"logger.mlflow.tracking_uri={tracking_uri}: cannot connect; start the server, or remove "
                             "this logger")  # fmt: skip
        try:
            super().__init__(
                experiment_name, run_name, tracking_uri, {"tags": " ".join(tags)} | ({"group": group} if group else {}),
                log_model=log_model, artifact_location=artifact_location,
                run_id=self._noted.read_text(encoding="utf-8") if self._noted.is_file() else None,
            )  # fmt: skip
        except Exception as error:
            raise self._refused(error) from None

    def _refused(self, error: Exception) -> InputError:
        remedy = f"; or remove {self._noted} to log to a new run" if self._noted.is_file() else ""
        return InputError(f"MLflow: {first_line(error).rstrip('.')}; check the overrides of logger.mlflow{remedy}")

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if not self._initialized:
            try:
                if self._run_id is None and self._mlflow_client.get_experiment_by_name(self._experiment_name) is None:
                    self._mlflow_client.create_experiment(self._experiment_name, self._artifact_location)
                client = super().experiment
                with beside(self._noted) as new:
                    new.write_text(str(self._run_id), encoding="utf-8")
                client.update_run(self._run_id, "RUNNING")  # also if an earlier part of the run has ended
            except Exception as error:
                raise self._refused(error) from None
        return self._mlflow_client

    def begin(self, steps: int) -> None:
        """Begin a new MLflow run unless the run goes on, since MLflow does not allow its parameters to change."""
        self._resumed = bool(steps) and self._run_id is not None
        if not steps:
            self._run_id = None

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log the config, unless the MLflow run has it already."""
        if not self._resumed:
            super().log_hyperparams({re.sub("[^/\\w.: -]", "_", k): v for k, v in _flatten_dict(params).items()})

    @rank_zero_only
    def log_card(self, card: Mapping[str, Any]) -> None:
        """Log the card of the recognizer as an artifact."""
        self.experiment.log_dict(self.run_id, dict(card), "card.json")

    @rank_zero_only
    def log_image(self, key: str, images: Sequence[UInt8[ndarray, "H W 3"]], step: int) -> None:
        """Log pictures, which MLflow shows by step."""
        for image in images:
            self.experiment.log_image(self.run_id, image, key=key, step=step)

    @rank_zero_only
    def log_table(self, key: str, columns: Sequence[str], data: Sequence[Sequence[Any]], step: int) -> None:
        """Log a table as an artifact, in which pictures are artifacts of their own."""
        cells = [[Image.fromarray(cell) if hasattr(cell, "dtype") else cell for cell in row] for row in data]
        table = {name: [row[index] for row in cells] for index, name in enumerate(columns)}
        self.experiment.log_table(self.run_id, table, f"{key}.json")

    @rank_zero_only
    def log_results(self, summary: Mapping[str, Any]) -> None:
        """Log the results as metrics, and with what they depend on as an artifact."""
        self.log_metrics(flat({key: value for key, value in summary.items() if key != "card"}))
        self.experiment.log_dict(self.run_id, dict(summary), "summary.json")
