"""Train, validate and test a recognizer with Lightning."""

import logging
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from htr_lightning.data.batch import Batch
from htr_lightning.errors import InputError
from htr_lightning.metrics.aggregate import EditCounts, MeanLoss
from htr_lightning.metrics.edits import EditTotals
from htr_lightning.model.base import Recognizer, TooFew
from htr_lightning.training.optimization import check_fused, check_monitors, clip_gradients, configure_optimizers
from htr_lightning.training.resume import check_optimizer
from htr_lightning.transcription import Prediction

log = logging.getLogger("htr_lightning")
RATES = ("cer", "wer", "line_accuracy")
PREFIX = "recognizer."  # prefix of the names in the recognizer's part of a state dict
CHECK_EVERY = 20  # number of steps between checks of the loss on a GPU, since each check waits for the GPU
MAX_LEFT_OUT = 200  # number of lines after which a run stops if all lines so far were left out of the loss


class TrainingModule(LightningModule):
    """A LightningModule that trains, validates and tests a recognizer.

    Its state dict is identical to the recognizer's, so that checkpoints can be loaded without Lightning.

    Args:
        recognizer: recognizer to train; it must have an optimizer unless it is only validated or tested.

    Attributes:
        totals: most recent edit counts for each split.
        tested: predictions of the most recent test, on every rank and in no order.
    """

    def __init__(self, recognizer: Recognizer) -> None:
        super().__init__()
        self.recognizer = recognizer
        self.losses, self.counts = MeanLoss(), EditCounts()
        self.totals: dict[str, EditTotals] = {}
        self.tested: list[Prediction] = []
        self._reported: set[str] = set()  # attributes with short lines that the log has named
        self._left_out: int | None = 0  # lines left out so far; None once a line has enough frames for its text
        self.register_state_dict_post_hook(_strip_prefix)
        self.register_load_state_dict_pre_hook(_add_prefix)

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The most recent edit counts and error rates for each split."""
        return {split: {**its._asdict(), "cer": its.cer, "wer": its.wer} for split, its in self.totals.items()}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.recognizer.loss(batch)
        every = CHECK_EVERY if loss.is_cuda else 1
        if batch_idx % every == 0 and not torch.isfinite(loss):
            raise InputError(
                f"step {self.trainer.global_step}: the loss is {loss.item()} (lines: {', '.join(batch.ids)}); reduce "
                "optimizer.lr, or check these lines"
            )
        self._check_feasible(batch)
        self.log("train/loss", loss, batch_size=len(batch.ids))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:  # type: ignore[override] # for the callbacks
        total, count, predictions = self.recognizer.validate(batch)
        self.losses.update(total, count)
        return self._count(predictions)

    def test_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:  # type: ignore[override] # for the callbacks
        predictions = self._count(self.recognizer.predict(batch))
        self.tested += predictions
        return predictions

    def on_validation_epoch_start(self) -> None:
        self.counts.reset()
        self.losses.reset()

    def on_test_epoch_start(self) -> None:
        self.counts.reset()
        self.tested = []

    def on_validation_epoch_end(self) -> None:
        self.log("val/loss", self.losses.compute(), sync_dist=True)  # already summed over ranks, like the counts
        self._report("val")

    def on_test_epoch_end(self) -> None:
        self._report("test")
        if self.trainer.world_size > 1:
            shares: list[list[Prediction]] = [[] for _ in range(self.trainer.world_size)]
            torch.distributed.all_gather_object(shares, self.tested)
            self.tested = [one for share in shares for one in share]

    def on_train_epoch_end(self) -> None:
        count = self._report_short("infeasible", "are left out of the loss")
        self.log("train/infeasible_lines", float(count), sync_dist=True)
        self._report_short("short", "cannot be transcribed to their end")

    def _report_short(self, kind: str, effect: str) -> int:
        """Return the number of lines with too few frames on all ranks; say so once, when there are any."""
        own: dict[str, TooFew] = getattr(self.recognizer, kind)
        found = [own]
        if self.trainer.world_size > 1:  # lines may move between ranks from one epoch to the next
            found = [{} for _ in range(self.trainer.world_size)]
            torch.distributed.all_gather_object(found, own)
        lines = {id: line for some in found for id, line in some.items()}
        if lines and kind not in self._reported:
            self._reported.add(kind)
            id, line = next(iter(lines.items()))
            rank_zero_only(log.warning)(
                f"lines with too few frames for their text {effect} ({len(lines)}; first: {id}, which requires "
                f"{line.required} frames and has {line.frames}); they may be bad crops, or need a larger "
                "model.preprocess.width_scale or a smaller stride"
            )
        return len(lines)

    def on_fit_start(self) -> None:
        check_monitors(self.trainer, (*RATES, "loss"))

    def configure_optimizers(self) -> Any:
        return configure_optimizers(self.recognizer, self.trainer)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        clip_gradients(self, optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_train_start(self) -> None:
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        check_optimizer(optimizer)
        check_fused(optimizer)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["htr"] = {**self.recognizer.card, "metrics": self.metrics}
        if self.recognizer.parts:
            checkpoint["parts"] = self.recognizer.parts

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        shapes = [
            {name: weight.shape for name, weight in state.items()}
            for state in (self.recognizer.state_dict(), checkpoint["state_dict"])
        ]
        if checkpoint["htr"]["alphabet"] != self.recognizer.alphabet or shapes[0] != shapes[1]:
            raise InputError(
                "resume: the checkpoint has a different alphabet or network; repeat the overrides of its run, which "
                "are listed in .hydra/overrides.yaml in its run folder"
            )

    def _check_feasible(self, batch: Batch) -> None:
        """Stop the run if the first `MAX_LEFT_OUT` lines are all left out of the loss."""
        if self._left_out is None:
            return
        if not self.recognizer.infeasible.keys() >= set(batch.ids):
            self._left_out = None
            return
        self._left_out += len(batch.ids)
        if self._left_out >= MAX_LEFT_OUT:
            id, line = next(iter(self.recognizer.infeasible.items()))
            raise InputError(
                f"none of the first {self._left_out} training lines has enough frames for its text (first: {id}, which "
                f"requires {line.required} frames and has {line.frames}); check the crops with htr audit, or use a "
                "larger model.preprocess.width_scale or a smaller stride"
            )

    def _count(self, predictions: list[Prediction]) -> list[Prediction]:
        self.counts.update([p.reference for p in predictions], [p.hypothesis for p in predictions])
        return predictions

    def _report(self, split: str) -> None:
        totals = self.counts.compute()
        self.totals[split] = totals
        # identical on all ranks, since the counts are already summed
        self.log_dict({f"{split}/{rate}": getattr(totals, rate) for rate in RATES}, sync_dist=True)


def _strip_prefix(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in [name for name in state if name.startswith(prefix + PREFIX)]:
        state[prefix + name.removeprefix(prefix + PREFIX)] = state.pop(name)


def _add_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *others: Any) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[prefix + PREFIX + name.removeprefix(prefix)] = state.pop(name)
