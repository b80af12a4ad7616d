"""What everything that is trained on lines shares: the training step, the optimizer, the card of its checkpoints."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from lightning import LightningModule
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from htr_lightning.data.batch import Batch
from htr_lightning.data.preprocess import Preprocess
from htr_lightning.errors import InputError
from htr_lightning.metrics.loss import MeanLoss
from htr_lightning.optim import progress
from htr_lightning.text.normalize import Normalizer


class Learner(LightningModule, ABC):
    """A network that is trained on lines, with its preprocessing and the card of its checkpoints.

    Args:
        normalizer: brings references into the form that is learned and compared.
        preprocess: brings images into the form that the network sees.
        optimizer: called with the parameters; None for one that is not trained.
        scheduler: called with the optimizer and `progress`, a function that gives the share of the run that is done;
            gives a scheduler that is asked at every step, or Lightning's description of another one.
    """

    net: nn.Module
    figures: tuple[str, ...] = ("loss",)  # of the validation, by which checkpoints can be chosen

    def __init__(
        self,
        normalizer: Normalizer,
        preprocess: Preprocess,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__()
        self.normalizer, self.preprocess = normalizer, preprocess
        self.optimizer, self.scheduler = optimizer, scheduler
        self.card: dict[str, Any] = {}  # what the checkpoint tells of itself, plain data
        self.parts: dict[str, Any] = {}  # plain data that it is built from besides config and alphabet, if any
        self.losses = MeanLoss()

    @abstractmethod
    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """The training loss of a batch."""

    @property
    @abstractmethod
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The figures of every split, as last measured."""

    @property
    def alphabet(self) -> list[str]:
        """The characters that it reads."""
        return []

    def check_targets(self, ids: Sequence[str], texts: Sequence[str]) -> Counter[str]:
        """Refuse training texts that cannot be learned, before any time is spent.

        Returns:
            How often each character is left out, with `unknown="skip"`.

        Raises:
            InputError: a text cannot be learned; it is named by its id.
        """
        return Counter()

    def parameter_groups(self) -> Any:
        """What is learned, as the optimizer takes it; the rate of a group is its "lr_scale" times the optimizer's."""
        return self.parameters()

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Inference in float32, whatever the training precision."""
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            yield

    def on_fit_start(self) -> None:
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            split, _, figure = str(getattr(callback, "monitor", "")).partition("/")
            if split == "val" and figure not in self.figures:
                raise InputError(
                    f"callbacks: {type(callback).__name__} follows val/{figure}, but a {type(self).__name__} has only "
                    + ", ".join(f"val/{name}" for name in self.figures)
                    + "; give callbacks.checkpoint.monitor=val/loss, or another callbacks="
                )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.ids))
        return loss

    def configure_optimizers(self) -> Any:
        if self.optimizer is None:
            raise InputError("this recognizer was built without an optimizer; it reads but cannot be trained")
        if any(p.dtype != torch.float32 for p in self.parameters()):
            raise InputError(
                f"trainer.precision={self.trainer.precision}: weights stay float32; use bf16-mixed or 16-mixed"
            )
        groups = self.parameter_groups()
        try:
            optimizer = self.optimizer(groups)
        except (TypeError, ValueError, RuntimeError) as error:  # a value that is no number, or that fits no other
            raise InputError(f"optimizer: {error}; check its values, such as optimizer.lr") from None
        if not isinstance(fused := optimizer.param_groups[0].get("fused"), bool | None):
            raise InputError(f"optimizer.fused={fused}: give true or false")
        for group in optimizer.param_groups:
            group["lr"] *= group.get("lr_scale", 1.0)  # before a scheduler takes it for its peak
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer, progress=lambda: progress(self.trainer))
        described = scheduler if isinstance(scheduler, dict) else {"scheduler": scheduler, "interval": "step"}
        if "monitor" in described and self.trainer.check_val_every_n_epoch != 1:
            raise InputError(
                f"scheduler: it follows {described['monitor']} from epoch to epoch; validate once in each: "
                "trainer.check_val_every_n_epoch=1 trainer.val_check_interval=1.0"
            )
        return {"optimizer": optimizer, "lr_scheduler": described}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """In mixed precision Lightning refuses to clip for a fused optimizer, whose gradients are still scaled where
        half precision scales them: so is the bound here."""
        plugin = self.trainer.precision_plugin
        fused = getattr(optimizer, "_step_supports_amp_scaling", False)
        if not (gradient_clip_val and fused and isinstance(plugin, MixedPrecision)):
            return self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        if plugin.scaler and gradient_clip_algorithm == "value":  # which would hide an overflow from the scaler
            raise InputError("trainer.gradient_clip_algorithm=value: in 16-mixed it takes optimizer.fused=false")
        bound = gradient_clip_val * (plugin.scaler.get_scale() if plugin.scaler else 1.0)
        clip = nn.utils.clip_grad_value_ if gradient_clip_algorithm == "value" else nn.utils.clip_grad_norm_
        clip([weight for group in optimizer.param_groups for weight in group["params"]], bound)

    def on_train_start(self) -> None:
        optimizer = self.optimizers(use_pl_optimizer=False)
        if hasattr(
            optimizer, "_step_supports_amp_scaling"
        ):  # of a resumed run that began with a plain step, it is plain
            optimizer._step_supports_amp_scaling = all(group.get("fused") for group in optimizer.param_groups)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["htr"] = {**self.card, "metrics": self.metrics}
        if self.parts:
            checkpoint["parts"] = self.parts

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own, loaded = self.state_dict(), checkpoint["state_dict"]
        shapes = [{name: weight.shape for name, weight in state.items()} for state in (own, loaded)]
        if checkpoint["htr"]["alphabet"] != self.alphabet or shapes[0] != shapes[1]:
            raise InputError(
                "resume: the checkpoint has another alphabet or network; give the overrides of its run, which stand in "
                "its .hydra/overrides.yaml"
            )
