"""Train, validate and test a recognizer with Lightning."""

import logging
import math
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from htr_lightning.data.batch import Batch
from htr_lightning.errors import InputError
from htr_lightning.metrics.aggregate import EditCounts, MeanLoss
from htr_lightning.metrics.edits import EditTotals
from htr_lightning.model.base import Recognizer, TooFew, use_tf32
from htr_lightning.training.divergence import Pass, save
from htr_lightning.training.optimization import (
    check_fused,
    check_monitors,
    clip_gradients,
    configure_optimizers,
    gradient_norm,
)
from htr_lightning.training.resume import changes, check_optimizer, rewind
from htr_lightning.transcription import Prediction

log = logging.getLogger("htr_lightning")
RATES = ("cer", "wer", "line_accuracy")
PREFIX = "recognizer."  # prefix of the names in the recognizer's part of a state dict
UNITS = 256.0  # labels in a typical batch, by which weighted losses are divided; it cancels out
CHECK_EVERY = 20  # number of batches between checks of the loss on a GPU, since each check waits for the GPU
MAX_LEFT_OUT = 200  # number of lines after which a run stops if all lines so far were left out of the loss


class TrainingModule(LightningModule):
    """A LightningModule that trains, validates and tests a recognizer.

    Its state dict is identical to the recognizer's, so that checkpoints can be loaded without Lightning.

    Args:
        recognizer: recognizer to train; it must have an optimizer unless it is only validated or tested.
        seed: random seed of the training steps.

    Attributes:
        totals: most recent edit counts for each split.
        tested: predictions of the most recent test, on every rank and in no order.
        compiled: number of parts of the network that are compiled for training.
    """

    def __init__(self, recognizer: Recognizer, seed: int = 0) -> None:
        super().__init__()
        self.recognizer, self.seed = recognizer, seed
        self.losses, self.counts = MeanLoss(), EditCounts()
        self.totals: dict[str, EditTotals] = {}
        self.tested: list[Prediction] = []
        self.compiled = 0
        self._reported: set[str] = set()  # attributes with short lines that the log has named
        self._passes: list[Pass] = []  # since the last check
        self._checked, self._step_seed = True, seed
        self._units: list[int] = []  # labels of the batches of this step
        self._left_out: int | None = 0  # lines left out so far; None once a line has enough frames for its text
        self.register_state_dict_post_hook(_strip_prefix)
        self.register_load_state_dict_pre_hook(_add_prefix)

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The most recent edit counts and error rates for each split."""
        return {split: {**its._asdict(), "cer": its.cer, "wer": its.wer} for split, its in self.totals.items()}

    def on_train_epoch_start(self) -> None:
        """Tell Lightning the length of the epoch, which it assumes to be that of the first one."""
        fit, trainer = self.trainer.fit_loop, self.trainer
        assert fit._combined_loader is not None
        count, limit = len(fit._combined_loader.flattened[0]), trainer.limit_train_batches
        count = int(count * limit) if isinstance(limit, float) else min(count, limit)
        fit._combined_loader.limits, fit.max_batches = [count], count
        interval = trainer.val_check_interval
        if isinstance(interval, float) and isinstance(trainer.val_check_batch, int):
            trainer.val_check_batch = max(1, int(count * interval))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed PyTorch, so that dropout in a resumed run is the same as in one that was not interrupted."""
        key = (self.seed, self.trainer.current_epoch, batch_idx, self.trainer.global_rank)
        self._step_seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
        torch.manual_seed(self._step_seed)
        if self._checked and batch_idx % self.trainer.accumulate_grad_batches == 0:
            self._passes = []
        if self.device.type == "cuda":
            use_tf32(True)  # reading turns it off
        # after resuming, Lightning may count a step twice, and would log the following ones under wrong numbers
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.trainer.global_step

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.recognizer.loss(batch)
        self._passes.append(Pass(self._step_seed, batch, loss.detach()))
        self._checked = not loss.is_cuda or len(self._passes) % CHECK_EVERY == 0
        if self._checked:
            self.check_losses()
        self._check_feasible(batch)
        self.log("train/loss", loss, batch_size=len(batch.ids))
        if self.trainer.accumulate_grad_batches * self.trainer.world_size == 1:
            return loss
        self._units = (self._units if batch_idx % self.trainer.accumulate_grad_batches else []) + [
            self.recognizer.units(batch)
        ]
        return loss * (self._units[-1] / UNITS)

    def check_losses(self) -> None:
        """Raise InputError if a loss since the last check is not finite."""
        losses = torch.stack([one.loss for one in self._passes]).tolist() if self._passes else []
        for loss, one in zip(losses, self._passes, strict=True):
            if not math.isfinite(loss):
                self._stop(f"the loss is {loss}", [one])

    def check_gradient(self, norm: float) -> None:
        """Raise InputError if the norm of the gradient is not finite."""
        if not math.isfinite(norm):
            self._stop(f"the norm of the gradient is {norm}", self._passes)

    def _stop(self, reason: str, passes: list[Pass]) -> NoReturn:
        """Save the batches of a step that went wrong, and stop the run."""
        rank = self.trainer.global_rank
        path = Path(self.trainer.default_root_dir) / (f"nonfinite-{rank}.pt" if rank else "nonfinite.pt")
        try:
            save(path, self.recognizer, passes, str(self.trainer.precision))
            saved = f"python -m htr_lightning.training.divergence {path} repeats the step"
        except InputError as error:
            saved = str(error)
        ids = ", ".join(id for one in passes for id in one.batch.ids)
        raise InputError(f"step {self.trainer.global_step}: {reason} (lines: {ids}); reduce optimizer.lr, or check "
                         f"these lines; {saved}")  # fmt: skip

    def validation_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:  # type: ignore[override] # for the callbacks
        with self.eager():
            total, count, predictions = self.recognizer.validate(batch)
        self.losses.update(total, count)
        return self._count(predictions)

    def test_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:  # type: ignore[override] # for the callbacks
        with self.eager():
            predictions = self._count(self.recognizer.predict(batch))
        self.tested += predictions
        return predictions

    def eager(self) -> AbstractContextManager[Any]:
        """Return a context in which nothing is compiled, so that validation gives the text that reading gives."""
        return torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()

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
        self._combine_batches(optimizer)
        norm = gradient_norm(self, optimizer)
        if norm is not None:
            self.check_gradient(getattr(norm, "full_tensor", lambda: norm)().item())  # of all ranks with trainer=fsdp
        clip_gradients(self, optimizer, gradient_clip_val, gradient_clip_algorithm, norm)

    def _combine_batches(self, optimizer: torch.optim.Optimizer) -> None:
        """Turn the gradients of a step's batches into those of a single batch of all their lines on all ranks.

        Lightning averages the losses of batches instead, so that the characters of a short batch would count more. If
        the parts of a loss are averaged over different numbers, as with `ctc_weight`, all are weighted by `units`.
        """
        count = self.trainer.accumulate_grad_batches
        if count * self.trainer.world_size == 1:
            return
        units = torch.tensor(float(sum(self._units)))
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(units)
        factor = count * UNITS * self.trainer.world_size / max(1.0, units.item())
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        torch._foreach_mul_([weight.grad for weight in weights if weight.grad is not None], factor)

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
            differing = "; ".join(changes(checkpoint["htr"], self.recognizer.card))
            raise InputError(
                f"resume: the checkpoint has a different alphabet or network ({differing}); repeat the overrides of "
                "its run, which are listed in .hydra/overrides.yaml in its run folder"
            )
        if self._trainer is not None and self.trainer.state.fn == "fit":
            rewind(checkpoint["loops"]["fit_loop"], checkpoint["global_step"])
            found = checkpoint["htr"].get("metrics", {}).items()
            self.totals = {split: EditTotals(*(its[key] for key in EditTotals._fields)) for split, its in found}

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
