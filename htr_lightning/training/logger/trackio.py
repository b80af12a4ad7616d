"""Log a run to Trackio."""

import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from numpy import ndarray

from htr_lightning.training.logger.guard import flat


class TrackioLog(Logger):
    """A logger for Trackio, whose dashboard is opened by `trackio show`; Lightning has none.

    Trackio resumes the run with the same name, so the name ends with the run folder.

    Args:
        save_dir: run folder.
        project: name of the Trackio project.
        name: name of the run.
        group: sweep that the run belongs to.
        settings: further arguments of `trackio.init`, such as `space_id`.
    """

    title, package = "Trackio", "trackio"

    def __init__(
        self, save_dir: str, project: str, name: str, group: str | None = None, **settings: Any
    ) -> None:  # fmt: skip
        super().__init__()
        folder = "/".join(Path(save_dir).absolute().parts[-2:])
        self._init = {"project": project, "name": f"{name} ({folder})", "group": group, "resume": "allow",
                      "embed": False} | settings  # fmt: skip
        self._config: dict[str, Any] = {}
        self._run: Any = None

    @property
    def run(self) -> Any:
        """The run, which is created on first use, since Trackio takes its config only then."""
        if self._run is None:
            import trackio

            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                self._run = trackio.init(**self._init, config=self._config)
        return self._run

    @property
    def name(self) -> str:
        return self._init["project"]

    @property
    def version(self) -> str:
        return self._init["name"]

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self.run.log(dict(metrics), step=step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._config |= params

    @rank_zero_only
    def log_card(self, card: Mapping[str, Any]) -> None:
        """Add the card of the recognizer to the config."""
        self._config["card"] = dict(card)

    @rank_zero_only
    def log_image(self, key: str, images: Sequence[UInt8[ndarray, "H W 3"]], step: int) -> None:
        """Log pictures."""
        import trackio

        for image in images:
            self.log_metrics({key: trackio.Image(image)}, step)

    @rank_zero_only
    def log_table(self, key: str, columns: Sequence[str], data: Sequence[Sequence[Any]], step: int) -> None:
        """Log a table with pictures."""
        import trackio

        cells = [[trackio.Image(cell) if hasattr(cell, "dtype") else cell for cell in row] for row in data]
        self.log_metrics({key: trackio.Table(columns=list(columns), data=cells)}, step)

    @rank_zero_only
    def log_results(self, summary: Mapping[str, Any]) -> None:
        """Log the results as metrics."""
        self.log_metrics(flat({key: value for key, value in summary.items() if key != "card"}))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is waiting; the run may go on with the test."""
        if self._run is not None:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                self._run.finish()
            self._run = None
