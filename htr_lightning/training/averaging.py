"""Average the weights of a network over the training steps."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from htr_lightning.parameters import Fraction


class EMA(WeightAveraging):
    """An exponential moving average of weights and batch norm statistics, over about 1 / (1 - decay) steps.

    The averaged weights are validated, and saved as the `state_dict` of checkpoints, so that testing, transcription and
    fine-tuning use them as well. A resumed run continues with the raw weights. At first, the average covers fewer
    steps: after n updates, the decay is at most (1 + n) / (10 + n), as in TensorFlow's `ExponentialMovingAverage`.

    Args:
        decay: weight of the previous average in each update.
    """

    def __init__(self, decay: Fraction = 0.999) -> None:
        super().__init__(multi_avg_fn=self._update)
        self.decay = decay
        self._validating = False

    @torch.no_grad()
    def _update(self, average: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        n = int(count)
        decay = min(self.decay, (1 + n) / (10 + n))
        for own, new in zip(average, current, strict=True):
            own.lerp_(new, 1 - decay) if own.is_floating_point() else own.copy_(new)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._average_model is not None
        self._average_model.to(pl_module.device)  # it was copied before the model was moved to its device

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        self._validating = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_end(trainer, pl_module)
        self._validating = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._validating:  # interrupted while raw and averaged weights are swapped
            states = checkpoint["state_dict"], checkpoint["current_model_state"]
            checkpoint["current_model_state"], checkpoint["state_dict"] = states

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the raw weights until `teardown`, because other callbacks may save a checkpoint from now on."""

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and self._average_model is not None:  # otherwise, testing would load the raw weights
            self._copy_average_to_current(pl_module)
            self._average_model = None
