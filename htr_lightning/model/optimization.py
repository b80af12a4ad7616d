"""How recognizers are optimized, on Lightning's terms."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

from htr_lightning.errors import InputError
from htr_lightning.optim import rates_by_depth
from htr_lightning.schedule import progress


def configure_optimizers(recognizer: Any) -> Any:
    """The optimizer and the scheduler of a recognizer, as Lightning takes them.

    Raises:
        InputError: there is no optimizer, or it does not accept its values.
    """
    if recognizer.optimizer is None:
        raise InputError("this recognizer was built without an optimizer; it can read but not be trained")
    if any(p.dtype != torch.float32 for p in recognizer.parameters()):
        raise InputError(
            f"trainer.precision={recognizer.trainer.precision}: weights stay float32; use bf16-mixed or 16-mixed"
        )
    groups = recognizer.parameters()
    if recognizer.layer_decay != 1:
        groups = rates_by_depth(recognizer.net, recognizer.num_classes, recognizer.layer_decay)
    try:
        optimizer = recognizer.optimizer(groups)
    except (TypeError, ValueError, RuntimeError) as error:  # a value that is not a number or out of range
        raise InputError(f"optimizer: {error}; check its values, such as optimizer.lr") from None
    if not isinstance(fused := optimizer.param_groups[0].get("fused"), bool | None):
        raise InputError(f"optimizer.fused={fused}: use true or false")
    for group in optimizer.param_groups:
        group["lr"] *= group.get("lr_scale", 1.0)  # before a scheduler takes it as its peak
    if recognizer.scheduler is None:
        return optimizer
    scheduler = recognizer.scheduler(optimizer, progress=lambda: progress(recognizer.trainer))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def clip_gradients(
    module: LightningModule, optimizer: torch.optim.Optimizer, value: float | None, algorithm: str | None
) -> None:
    """Clip gradients as Lightning does, which refuses to do so for a fused optimizer in mixed precision. Gradients
    are still scaled in half precision, so the bound is scaled as well."""
    plugin = module.trainer.precision_plugin
    fused = getattr(optimizer, "_step_supports_amp_scaling", False)
    if not (value and fused and isinstance(plugin, MixedPrecision)):
        return module.clip_gradients(optimizer, value, algorithm)
    if plugin.scaler and algorithm == "value":  # which would hide an overflow from the scaler
        raise InputError("trainer.gradient_clip_algorithm=value: set optimizer.fused=false to use it with 16-mixed")
    bound = value * (plugin.scaler.get_scale() if plugin.scaler else 1.0)
    clip = nn.utils.clip_grad_value_ if algorithm == "value" else nn.utils.clip_grad_norm_
    clip([weight for group in optimizer.param_groups for weight in group["params"]], bound)


def check_fused(optimizer: Any) -> None:
    """Have the optimizer of a resumed run that began with an unfused step be treated as unfused: a scaler would hand
    its scale to a step that takes none."""
    if hasattr(optimizer, "_step_supports_amp_scaling"):
        optimizer._step_supports_amp_scaling = all(group.get("fused") for group in optimizer.param_groups)


def check_monitors(trainer: Trainer, figures: Sequence[str]) -> None:
    """Refuse callbacks that monitor a validation metric that does not exist, before any time is spent."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined] # Lightning sets it outside the class
        split, _, figure = str(getattr(callback, "monitor", "")).partition("/")
        if split == "val" and figure not in figures:
            raise InputError(
                f"callbacks: {type(callback).__name__} follows val/{figure}, which does not exist; use one of "
                + ", ".join(f"val/{name}" for name in figures)
            )
