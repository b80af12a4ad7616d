"""Log a run to TensorBoard."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import UInt8
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from numpy import ndarray

from htr_lightning.training.logger.guard import flat


class TensorBoardLog(TensorBoardLogger):
    """A TensorBoardLogger for `tensorboard/` in the run folder, with pictures, the card and hyperparameters.

    The hyperparameters are the overrides of the run, or those that vary in its sweep, beside the results: the HParams
    tab of TensorBoard draws parallel coordinates of them.

    Args:
        save_dir: run folder.
        settings: further arguments of `SummaryWriter`.
    """

    title, package = "TensorBoard", "tensorboard"

    def __init__(self, save_dir: str, **settings: Any) -> None:
        super().__init__(save_dir, name="tensorboard", version="", default_hp_metric=False, **settings)
        self._overrides: dict[str, Any] = {}

    def begin(self, steps: int) -> None:
        """Let TensorBoard forget what was logged after the step from which the run goes on."""
        self._kwargs["purge_step"] = steps

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._overrides = params.get("overrides", {})
        self.experiment.add_text("config", _code(params))

    @rank_zero_only
    def log_card(self, card: Mapping[str, Any]) -> None:
        """Log the card of the recognizer."""
        self.experiment.add_text("card", _code(card))

    @rank_zero_only
    def log_image(self, key: str, images: Sequence[UInt8[ndarray, "H W 3"]], step: int) -> None:
        """Log pictures."""
        for image in images:
            self.experiment.add_image(key, image, step, dataformats="HWC")

    @rank_zero_only
    def log_results(self, summary: Mapping[str, Any]) -> None:
        """Log the results beside the hyperparameters."""
        super().log_hyperparams(self._overrides, flat({k: v for k, v in summary.items() if k != "card"}))
        self.experiment.add_text("results", _code(summary))

    @rank_zero_only
    def save(self) -> None:
        self.experiment.flush()  # Lightning's own also writes the overrides to a file


def _code(content: Mapping[str, Any]) -> str:
    """Return nested values as Markdown that shows them as they are."""
    return "\n".join(
        f"    {line}" for line in json.dumps(content, indent=1, ensure_ascii=False, default=str).split("\n")
    )
